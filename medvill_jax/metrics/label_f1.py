"""How well labels read from one set of reports agree with those read from another: clinical F1."""

from __future__ import annotations

from typing import Literal

import numpy as np

from medvill_jax.metrics.clinical import FINDINGS
from medvill_jax.metrics.clinical_rules import ABSENT, NEGATIVE, POSITIVE, UNCERTAIN

# The findings of the CheXpert competition (Irvin et al. 2019).
COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
# What "uncertain" counts as.
Uncertain = Literal["positive", "negative", "ignore"]


def clinical_f1(
    reference: np.ndarray,
    hypothesis: np.ndarray,
    *,
    uncertain: Uncertain = "positive",
) -> dict[str, float]:
    """Precision, recall and F1 of the positive class, micro- and macro-averaged, over 14 and over 5 findings.

    A finding that is positive on neither side has no precision or recall; it is left out of the macro means, and
    counted.

    Args:
      reference: int8 `[N, 14]` as from `clinical.label_batch`: 1, 0, -1 uncertain, -2 not mentioned.
      hypothesis: likewise, of the reports to be judged; not mentioned counts as negative on both sides.
      uncertain: what -1 counts as; "ignore" leaves out each finding of each report that is uncertain on either side.

    Returns:
      `clinical_{micro,macro}_{precision,recall,f1}_{14,5}` in [0, 1], NaN where there is no positive at all, and
      `clinical_empty_{14,5}`, the number of findings left out of the macro means.

    Raises:
      ValueError: shapes that differ or are not `[N, 14]`, another value in them, or no such `uncertain`.
    """
    counts = f1_counts(reference, hypothesis, uncertain=uncertain).sum(0)
    return {name: float(value) for name, value in f1_of_counts(counts).items()}


def f1_counts(
    reference: np.ndarray,
    hypothesis: np.ndarray,
    *,
    uncertain: Uncertain = "positive",
) -> np.ndarray:
    """What each report adds to the counts behind `clinical_f1`; arguments and errors are the same.

    Returns:
      int64 `[N, 14, 3]`: 1 where a finding was hit, falsely given, missed.
    """
    for name, array in (("reference", reference), ("hypothesis", hypothesis)):
        if array.ndim != 2 or array.shape[1] != len(FINDINGS):
            raise ValueError(f"{name} has shape {list(array.shape)}; expected [N, {len(FINDINGS)}]")
        if not np.isin(array, (POSITIVE, NEGATIVE, UNCERTAIN, ABSENT)).all():
            raise ValueError(f"{name} has values other than 1, 0, -1 and -2")
    if reference.shape != hypothesis.shape:
        raise ValueError(f"{len(reference)} reference rows, but {len(hypothesis)} of the hypothesis")
    if uncertain not in ("positive", "negative", "ignore"):
        raise ValueError(f"uncertain={uncertain!r}; there are positive, negative, ignore")

    positive = (POSITIVE, UNCERTAIN) if uncertain == "positive" else (POSITIVE,)
    true, given = np.isin(reference, positive), np.isin(hypothesis, positive)  # bool [N, 14]
    counted = np.ones(true.shape, bool)
    if uncertain == "ignore":
        counted = (reference != UNCERTAIN) & (hypothesis != UNCERTAIN)
    return np.stack([true & given & counted, ~true & given & counted, true & ~given & counted], -1).astype(np.int64)


def f1_of_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of `clinical_f1` from counts that are already summed over reports.

    Args:
      counts: `[..., 14, 3]`: how often a finding was hit, falsely given and missed.

    Returns:
      The names of `clinical_f1`, each float64 `[...]`.
    """
    figures: dict[str, np.ndarray] = {}
    for size, names in ((14, FINDINGS), (5, COMPETITION)):
        some = counts[..., [FINDINGS.index(name) for name in names], :]
        there = some.sum(-1) > 0  # [..., size]
        number = there.sum(-1)
        micro = _scores(some.sum(-2))
        macro = [_ratio(np.where(there, each, 0.0).sum(-1), number) for each in _scores(some)]
        for average, values in (("micro", micro), ("macro", macro)):
            for kind, value in zip(("precision", "recall", "f1"), values, strict=True):
                figures[f"clinical_{average}_{kind}_{size}"] = np.where(number > 0, value, np.nan)
        figures[f"clinical_empty_{size}"] = (size - number).astype(np.float64)
    return figures


def _scores(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall, F1 of `[..., 3]`; a ratio without a denominator is 0, as something was missed or false."""
    hits, false, missed = np.moveaxis(counts, -1, 0)
    return _ratio(hits, hits + false), _ratio(hits, hits + missed), _ratio(2 * hits, 2 * hits + false + missed)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.maximum(below, 1), 0.0)
