"""How well labels read from one set of reports agree with those read from another: clinical F1.

See docs/spec.md#clinical-metrics.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN
from medvill_jax.metrics import f1

# The findings of the CheXpert competition (Irvin et al. 2019).
COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
_SIZES = {14: list(range(14)), 5: [CHEXPERT_FINDINGS.index(name) for name in COMPETITION]}
# What "uncertain" counts as.
Uncertain = Literal["positive", "negative", "ignore"]


def clinical_f1(
    reference: np.ndarray,
    hypothesis: np.ndarray,
    *,
    uncertain: Uncertain = "positive",
) -> dict[str, float]:
    """Precision, recall and F1 of the positive class, micro- and macro-averaged, over 14 and over 5 findings.

    Macro means are over the findings that some reference has (`f1` tells why); micro figures are over all.

    Args:
      reference: int8 `[N, 14]` as from `clinical.label_batch`: 1, 0, -1 uncertain, -2 not mentioned.
      hypothesis: likewise, of the reports to be judged; not mentioned counts as negative on both sides.
      uncertain: what -1 counts as; "ignore" leaves out each finding of each report that is uncertain on either side.

    Returns:
      `clinical_{micro,macro}_{precision,recall,f1}_{14,5}` in [0, 1], NaN where there is no positive at all (macro: in
      no reference), and the counts of `absent_counts`.

    Raises:
      ValueError: shapes that differ or are not `[N, 14]`, another value in them, or no such `uncertain`.
    """
    counts = f1_counts(reference, hypothesis, uncertain=uncertain).sum(0)
    there = supported(reference, uncertain)
    figures = {name: float(value) for name, value in f1_of_counts(counts, there).items()}
    return figures | absent_counts(counts, there)


def supported(reference: np.ndarray, uncertain: Uncertain = "positive") -> np.ndarray:
    """bool `[14]`: which findings some reference has, of int8 `[N, 14]`; the hypotheses have no say in it."""
    return _positive(reference, uncertain).sum(0) > 0


def f1_counts(
    reference: np.ndarray,
    hypothesis: np.ndarray,
    *,
    uncertain: Uncertain = "positive",
) -> np.ndarray:
    """What each report adds to the counts behind `clinical_f1`; arguments and errors are the same.

    Returns:
      int8 `[N, 14, 3]`: 1 where a finding was hit, falsely given, missed.
    """
    for name, array in (("reference", reference), ("hypothesis", hypothesis)):
        if array.ndim != 2 or array.shape[1] != len(CHEXPERT_FINDINGS):
            raise ValueError(f"{name} has shape {list(array.shape)}; expected [N, {len(CHEXPERT_FINDINGS)}]")
        if not np.isin(array, (POSITIVE, NEGATIVE, UNCERTAIN, ABSENT)).all():
            raise ValueError(f"{name} has values other than 1, 0, -1 and -2")
    if reference.shape != hypothesis.shape:
        raise ValueError(f"{len(reference)} reference rows, but {len(hypothesis)} of the hypothesis")
    if uncertain not in ("positive", "negative", "ignore"):
        raise ValueError(f"uncertain={uncertain!r}; there are positive, negative, ignore")

    true, given = _positive(reference, uncertain), _positive(hypothesis, uncertain)  # [N, 14]
    counts = f1.outcomes(given, true).astype(np.int8)
    if uncertain == "ignore":
        counts[(reference == UNCERTAIN) | (hypothesis == UNCERTAIN)] = 0
    return counts


def f1_of_counts(counts: np.ndarray, supported: np.ndarray) -> dict[str, np.ndarray]:
    """The precisions, recalls and F1 of `clinical_f1` from counts that are already summed over reports.

    Args:
      counts: `[..., 14, 3]`: how often a finding was hit, falsely given and missed.
      supported: bool `[14]`, which findings the macro means are over: those of the full reference set, whichever
        reports the counts are of.

    Returns:
      The names of `clinical_f1`, each float64 `[...]`.
    """
    figures: dict[str, np.ndarray] = {}
    for size, columns in _SIZES.items():
        some = counts[..., columns, :]
        macro = f1.mean_of_defined(f1.scores(some), supported[columns])
        for average, values in (("micro", f1.scores(some.sum(-2))), ("macro", macro)):
            for kind, value in zip(("precision", "recall", "f1"), values, strict=True):
                figures[f"clinical_{average}_{kind}_{size}"] = value
    return figures


def absent_counts(counts: np.ndarray, supported: np.ndarray) -> dict[str, float]:
    """What the macro means leave out, arguments as in `f1_of_counts` with counts `[14, 3]` of all reports.

    Returns:
      `clinical_absent_{14,5}`, how many findings no reference has, and `clinical_absent_false_alarms_{14,5}`, how often
      these were given.
    """
    figures: dict[str, float] = {}
    for size, columns in _SIZES.items():
        number, alarms = f1.absent(counts[columns], supported[columns])
        figures |= {f"clinical_absent_{size}": number, f"clinical_absent_false_alarms_{size}": alarms}
    return figures


def _positive(labels: np.ndarray, uncertain: Uncertain) -> np.ndarray:
    return np.isin(labels, (POSITIVE, UNCERTAIN) if uncertain == "positive" else (POSITIVE,))
