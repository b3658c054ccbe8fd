"""Clinical F1: agreement of the labels of generated reports with those of reference reports.

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

    Macro means are over the findings that are positive in some reference (`f1` says why), micro metrics over all.

    Args:
      reference: int8 `[N, 14]` as from `clinical.label_batch`: 1, 0, -1 uncertain, -2 not mentioned.
      hypothesis: likewise, of the generated reports; not mentioned counts as negative on both sides.
      uncertain: what -1 counts as; "ignore" leaves out a finding of a report that is uncertain on either side.

    Returns:
      `clinical_{micro,macro}_{precision,recall,f1}_{14,5}` in [0, 1], NaN where no report has a positive (macro: no
      reference has one), and the counts of `absent_counts`.

    Raises:
      ValueError: shapes that differ or are not `[N, 14]`, another value in them, or an unknown `uncertain`.
    """
    counts = f1_counts(reference, hypothesis, uncertain=uncertain).sum(0)
    in_references = supported(reference, uncertain)
    metrics = {name: float(value) for name, value in f1_of_counts(counts, in_references).items()}
    return metrics | absent_counts(counts, in_references)


def supported(reference: np.ndarray, uncertain: Uncertain = "positive") -> np.ndarray:
    """bool `[14]`: which findings are positive in some reference, int8 `[N, 14]`."""
    return _positive(reference, uncertain).sum(0) > 0


def f1_counts(
    reference: np.ndarray,
    hypothesis: np.ndarray,
    *,
    uncertain: Uncertain = "positive",
) -> np.ndarray:
    """What each report adds to the counts behind `clinical_f1`; arguments and errors are the same.

    Returns:
      int8 `[N, 14, 3]`: 1 for a hit, a false alarm, a miss.
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

    true, predicted = _positive(reference, uncertain), _positive(hypothesis, uncertain)  # [N, 14]
    counts = f1.outcomes(predicted, true).astype(np.int8)
    if uncertain == "ignore":
        counts[(reference == UNCERTAIN) | (hypothesis == UNCERTAIN)] = 0
    return counts


def f1_of_counts(counts: np.ndarray, supported: np.ndarray) -> dict[str, np.ndarray]:
    """The precisions, recalls and F1 of `clinical_f1` from counts that are already summed over reports.

    Args:
      counts: `[..., 14, 3]`: hits, false alarms and misses of each finding.
      supported: bool `[14]`, the findings of the macro means: `supported` of all references, even if the counts are
        those of a resample.

    Returns:
      The names of `clinical_f1`, each float64 `[...]`.
    """
    metrics: dict[str, np.ndarray] = {}
    for size, columns in _SIZES.items():
        selected = counts[..., columns, :]
        macro = f1.mean_of_defined(f1.scores(selected), supported[columns])
        for average, values in (("micro", f1.scores(selected.sum(-2))), ("macro", macro)):
            for metric, value in zip(("precision", "recall", "f1"), values, strict=True):
                metrics[f"clinical_{average}_{metric}_{size}"] = value
    return metrics


def absent_counts(counts: np.ndarray, supported: np.ndarray) -> dict[str, float]:
    """What the macro means leave out; arguments as in `f1_of_counts`, with counts `[14, 3]` of all reports.

    Returns:
      `clinical_absent_{14,5}`, how many findings are positive in no reference, and
      `clinical_absent_false_alarms_{14,5}`, how often hypotheses have these.
    """
    metrics: dict[str, float] = {}
    for size, columns in _SIZES.items():
        number, alarms = f1.absent(counts[columns], supported[columns])
        metrics |= {f"clinical_absent_{size}": number, f"clinical_absent_false_alarms_{size}": alarms}
    return metrics


def _positive(labels: np.ndarray, uncertain: Uncertain) -> np.ndarray:
    return np.isin(labels, (POSITIVE, UNCERTAIN) if uncertain == "positive" else (POSITIVE,))
