"""Precision, recall and F1 of classes from counts, and which classes a macro mean is over.

A macro mean is over the supported classes: those with a positive among all references. A class without a positive has
no recall. Counted as 0, two such classes with a false alarm each could halve an otherwise perfect score, so they are
reported as counts instead (`absent`). Pooled (micro) metrics are over all classes.

The supported classes follow from the full reference set and are the same in every resample of it. If a resample has no
positive of a supported class, its F1 there is 0 with a false alarm. Without a false alarm it is undefined, and left out
of that resample's mean: 0 would punish a perfect answer, and 1 would reward an empty one.
"""

from __future__ import annotations

import numpy as np


def outcomes(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """bool `[..., 3]` of bool `[...]`: whether a label is a hit, a false alarm, a miss."""
    return np.stack([predicted & targets, predicted & ~targets, ~predicted & targets], -1)


def scores(counts: np.ndarray) -> np.ndarray:
    """Precision, recall and F1, float64 `[3, ...]`, of summed `outcomes` `[..., 3]`.

    A ratio with denominator 0 is 0 if there was any miss or false alarm, and NaN if all counts are 0.
    """
    hits, false, missed = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    fractions = [(hits, hits + false), (hits, hits + missed), (2 * hits, 2 * hits + false + missed)]
    ratios = np.stack([np.divide(top, below, out=np.zeros(below.shape), where=below > 0) for top, below in fractions])
    return np.where(hits + false + missed > 0, ratios, np.nan)


def mean_of_defined(values: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """The mean `[...]` of values `[..., C]` over the classes that are `defined` (bool, `[C]` or `[..., C]`).

    NaN values are left out; the mean is NaN if no value is left.
    """
    counted = defined & ~np.isnan(values)
    number = counted.sum(-1)
    total = np.where(counted, values, 0.0).sum(-1)
    return np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0)


def absent(counts: np.ndarray, supported: np.ndarray) -> tuple[float, float]:
    """How many classes have no positive in any reference, and the false alarms in them.

    Args:
      counts: `[C, 3]`, `outcomes` summed over all examples.
      supported: bool `[C]`, which classes have a positive among all references.
    """
    return float((~supported).sum()), float(counts[~supported, 1].sum())
