"""Precision, recall and F1 of classes from counts, and which classes a macro mean is over.

A macro mean is over the classes that the references define: those with a positive among all of them. A class without
one has no recall, and counted as 0 two false alarms in two such classes would halve a perfect score; so these are told
as counts, how many there are and how many false alarms (`absent`). Pooled (micro) figures are over all classes.

Which classes they are follows from the full reference set and stays so in every resample of it. A class of which a
resample happens to hold no positive counts there as its formula says, 0 with a false alarm. With neither there is
nothing to count, and only then the class is left out of that resample's mean: it would be 0 for a perfect answer, or 1
for an empty one.
"""

from __future__ import annotations

import numpy as np


def outcomes(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """bool `[..., 3]` of bool `[...]`: whether a label was hit, falsely given, missed."""
    return np.stack([predicted & targets, predicted & ~targets, ~predicted & targets], -1)


def scores(counts: np.ndarray) -> np.ndarray:
    """Precision, recall and F1, float64 `[3, ...]`, of summed `outcomes` `[..., 3]`.

    A ratio without a denominator is 0 if something was missed or false, and NaN if nothing was counted at all.
    """
    hits, false, missed = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    each = [(hits, hits + false), (hits, hits + missed), (2 * hits, 2 * hits + false + missed)]
    found = np.stack([np.divide(above, below, out=np.zeros(below.shape), where=below > 0) for above, below in each])
    return np.where(hits + false + missed > 0, found, np.nan)


def mean_of_defined(values: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """The mean `[...]` over classes of values `[..., C]`: of those that are `defined` (bool, `[C]` or `[..., C]`).

    What is NaN is left out; NaN if nothing is left.
    """
    there = defined & ~np.isnan(values)
    number = there.sum(-1)
    total = np.where(there, values, 0.0).sum(-1)
    return np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0)


def absent(counts: np.ndarray, supported: np.ndarray) -> tuple[float, float]:
    """How many classes no reference defines, and the false alarms in them.

    Args:
      counts: `[C, 3]`, `outcomes` summed over all examples.
      supported: bool `[C]`, which classes have a positive among all references.
    """
    return float((~supported).sum()), float(counts[~supported, 1].sum())
