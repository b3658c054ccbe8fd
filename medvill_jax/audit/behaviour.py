"""How answers follow the film: whether they change with it, change sides with it, and lose what is erased."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medvill_jax.audit.answers import Answer
from medvill_jax.audit.conditions import CONTROL, ERASED, KEPT
from medvill_jax.audit.folder import Request
from medvill_jax.audit.scoring import Figures, same
from medvill_jax.findings import CHEXPERT_FINDINGS, POSITIVE, UNCERTAIN
from medvill_jax.metrics import clinical, text

SIDES = ("left", "right")
# What an erased finding takes from an answer, by task.
LOSSES = {
    "findings": "how much the probability of the finding falls",
    "report": "how often a finding that the report states is no longer stated",
    "ask": "how often the answer changes",
}
# Rows of a table of findings with fewer pairs have no interval.
_FEWEST = 10


def unchanged(
    figures: Figures, task: str, true: Mapping[int, Answer], other: Mapping[int, Answer]
) -> dict[str, Any] | None:
    """The share of answers that are the same in two conditions; None without a common answer."""
    rows = [row for row in true if row in other]
    if not rows:
        return None
    [share] = figures.mean([[same(true[row], other[row], task)] for row in rows], rows)
    return {"requests": len(rows), **share.to_dict()}


def sides(figures: Figures, true: Mapping[int, Answer], mirrored: Mapping[int, Answer]) -> dict[str, Any] | None:
    """Of answers that name one side, how many name only the other, or only the same, when the film is mirrored."""
    named = {row: side for row, answer in true.items() if (side := _side(answer)) and row in mirrored}
    if not named:
        return None
    values = []
    for row, side in named.items():
        [other] = (one for one in SIDES if one != side)
        now = _side(mirrored[row])
        values.append([now == other, now == side])
    swapped, kept = figures.mean(values, [*named])
    return {"requests": len(named), "swapped": swapped.to_dict(), "kept": kept.to_dict()}


def losses(
    figures: Figures, task: str, true: Mapping[int, Answer], planned: Mapping[str, Sequence[Request]], answers: Any
) -> dict[str, Any] | None:
    """What answers lose when a finding is erased, and when the same change is made elsewhere; None without an answer.

    Args:
        figures: of the audit.
        task: a key of `LOSSES`.
        true: answers by row.
        planned: the requests of both conditions, if there are any.
        answers: condition -> the answers by the identifiers of its requests.
    """
    labels = {row: _stated(str(answer)) for row, answer in true.items()} if task == "report" else {}
    found: list[tuple[str, int, list[float]]] = []
    for request in planned.get(ERASED, ()):
        both = [answers[name].get(request.id) for name in (ERASED, CONTROL)]
        if request.row not in true or None in both:
            continue
        if task == "findings":
            before: Any = true[request.row]
            if any(request.finding not in one for one in (before, *both)):
                continue
            lost = [before[request.finding] - one[request.finding] for one in both]
        elif task == "report":
            if request.finding not in labels[request.row]:
                continue
            lost = [float(request.finding not in _stated(str(one))) for one in both]
        else:
            lost = [float(not same(true[request.row], one, task)) for one in both]
        erased, control = lost
        found.append((request.finding, request.row, [erased, control, erased - control, _more(erased, control)]))
    if not found:
        return None
    names = sorted({name for name, _, _ in found})
    by_finding = {name: [one for one in found if one[0] == name] for name in names}
    return {
        "is": LOSSES[task],
        **_told(figures, found),
        "findings": {name: _told(figures, rows) for name, rows in by_finding.items() if len(rows) >= _FEWEST},
    }


def controls(kept: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """How much of the change controls make: of each film, findings and the shares that theirs keep."""
    shares = [share for one in kept for share in one.values()]
    used = [share for share in shares if share >= KEPT]
    return {"films": len(used), "left_out": len(shares) - len(used), "kept": float(np.mean(used)) if used else None}


def _told(figures: Figures, found: Sequence[tuple[str, int, list[float]]]) -> dict[str, Any]:
    measured = figures.mean([values for _, _, values in found], [row for _, row, _ in found])
    names = ("erased", "control", "difference", "erased_more")
    told = {name: one.to_dict() for name, one in zip(names, measured, strict=True)}
    return {"pairs": len(found), **told}


def _more(one: float, other: float) -> float:
    """Whether one is more than the other; equal ones count half."""
    return 0.5 * (1 + np.sign(one - other))


def _side(answer: Answer) -> str | None:
    """The side that an answer names, if it names one alone."""
    words = {*text.tokens(answer)} if isinstance(answer, str) else set()
    named = [side for side in SIDES if side in words]
    return named[0] if len(named) == 1 else None


def _stated(report: str) -> set[str]:
    """The findings that a report states or suspects."""
    [row] = clinical.label_batch([report])
    return {name for name, value in zip(CHEXPERT_FINDINGS, row, strict=True) if value in (POSITIVE, UNCERTAIN)}
