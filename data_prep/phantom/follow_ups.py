"""Follow-up studies: the findings of the study before, each of which improves, stays or worsens.

What a study changed since the one before is `Study.changes`, so that films and report cannot disagree.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data_prep.phantom.findings import SEVERITIES, Sign, Study, in_sight

IMPROVED, UNCHANGED, WORSE = "improved", "unchanged", "worse"
WORDS = (IMPROVED, UNCHANGED, WORSE)
# Findings whose size films show; fractures, scars and devices stay, and reports say nothing about it.
CHANGING = frozenset(
    {
        *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Lung Lesion"),
        *("Lung Opacity", "Pleural Effusion", "Pneumonia", "Pneumothorax"),
    }
)
_NO_FINDINGS_SECTION = 0.08
# Draws until no finding hides another; then all stay.
_DRAWS = 50


def follow_up(before: Study, rng: np.random.Generator) -> Study:
    """The next study of a patient.

    Every finding of `CHANGING` that is certain has a size drawn anew, uniformly, and all others are as they were, so
    that a third of the changing findings is unchanged.
    """
    sizes = {sign.finding: sign.severity for sign in before.signs if _changes(sign)}
    findings_section = bool(rng.random() >= _NO_FINDINGS_SECTION)
    drawn, signs = dict(sizes), before.signs
    for _ in range(_DRAWS):
        new = {finding: SEVERITIES[int(rng.integers(len(SEVERITIES)))] for finding in sizes}
        candidates = tuple(replace(sign, severity=new.get(_sized_as(sign), sign.severity)) for sign in before.signs)
        if tuple(in_sight(list(candidates))) == candidates:
            drawn, signs = new, candidates
            break
    changes = tuple((finding, change(size, drawn[finding])) for finding, size in sizes.items())
    return replace(before, signs=signs, findings_section=findings_section, changes=changes)


def change(before: str, after: str) -> str:
    """The word for what became of a finding, given its sizes."""
    steps = SEVERITIES.index(after) - SEVERITIES.index(before)
    return UNCHANGED if not steps else WORSE if steps > 0 else IMPROVED


def _changes(sign: Sign) -> bool:
    return sign.finding in CHANGING and not sign.uncertain and _sized_as(sign) == sign.finding


def _sized_as(sign: Sign) -> str:
    """The finding whose size a sign has: of the opacity that reports describe beside a pneumonia, the pneumonia."""
    return "Pneumonia" if sign.finding == "Lung Opacity" and sign.kind == "pneumonia" else sign.finding
