"""How well labels read from one set of reports agree with those read from another: clinical F1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from medvill_jax.metrics.clinical import FINDINGS
from medvill_jax.metrics.clinical_rules import ABSENT, NEGATIVE, POSITIVE, UNCERTAIN

# The findings of the CheXpert competition (Irvin et al. 2019).
COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def clinical_f1(
    reference: np.ndarray,
    hypothesis: np.ndarray,
    *,
    uncertain: Literal["positive", "negative", "ignore"] = "positive",
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
    hits = (true & given & counted).sum(0)  # int [14]
    false = (~true & given & counted).sum(0)
    missed = (true & ~given & counted).sum(0)

    figures: dict[str, float] = {}
    for size, names in ((14, FINDINGS), (5, COMPETITION)):
        columns = [FINDINGS.index(name) for name in names]
        figures |= _figures(hits[columns], false[columns], missed[columns], size)
    return figures


def _figures(hits: np.ndarray, false: np.ndarray, missed: np.ndarray, size: int) -> dict[str, float]:
    there = (hits + false + missed) > 0
    each = [_scores(h, f, m) for h, f, m in zip(hits[there], false[there], missed[there], strict=True)]
    micro = _scores(hits.sum(), false.sum(), missed.sum()) if each else (float("nan"),) * 3
    macro: Sequence[float] = np.mean(each, axis=0).tolist() if each else (float("nan"),) * 3
    kinds = ("precision", "recall", "f1")
    return {
        **{f"clinical_micro_{kind}_{size}": value for kind, value in zip(kinds, micro, strict=True)},
        **{f"clinical_macro_{kind}_{size}": value for kind, value in zip(kinds, macro, strict=True)},
        f"clinical_empty_{size}": float((~there).sum()),
    }


def _scores(hits: int, false: int, missed: int) -> tuple[float, float, float]:
    """Precision, recall, F1; a ratio without a denominator is 0, as something was missed or falsely given."""
    precision = hits / (hits + false) if hits + false else 0.0
    recall = hits / (hits + missed) if hits + missed else 0.0
    return float(precision), float(recall), float(2 * hits / (2 * hits + false + missed))
