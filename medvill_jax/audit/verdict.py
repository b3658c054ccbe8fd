"""What the figures say: it looks, it does not look, or it cannot be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medvill_jax.audit.conditions import ANOTHER, BLACK, WORDS
from medvill_jax.audit.scoring import Compared

LOOKS, BLIND, OPEN = "looks", "does not look", "cannot be told"
# Conditions that decide.
DECISIVE = (ANOTHER, BLACK)
# A bootstrap of fewer patients says little.
FEWEST = 20
MARGIN = 0.05


@dataclass(frozen=True)
class Verdict:
    """One of `LOOKS`, `BLIND` and `OPEN`, and why in a sentence."""

    verdict: str
    why: str


def verdict(figure: str, compared: Mapping[str, Compared], *, margin: float) -> Verdict:
    """The verdict.

    It looks if the figure is higher with the true film than with another patient's and with a black one: the 95 %
    intervals of both differences lie above zero. It does not look if the interval of one of them does not, and ends
    below `margin`: whatever a film adds is less than that. Otherwise, or if one of them compares answers of fewer than
    `FEWEST` patients, it cannot be told.

    Args:
        figure: its name.
        compared: of this figure, by condition; a condition that has no answers at all is not there.
        margin: in units of the figure.
    """
    if ANOTHER not in compared:
        return Verdict(OPEN, f"no request has an answer with {WORDS[ANOTHER]}")
    numbers = {
        name: f"with {compared[name].films:,} films of {compared[name].patients:,} patients"
        for name in DECISIVE
        if name in compared
    }
    if few := [name for name in numbers if compared[name].patients < FEWEST]:
        return Verdict(
            OPEN,
            f"answers can be compared with those for {WORDS[few[0]]} {numbers[few[0]]}; at least {FEWEST} patients are "
            "needed",
        )
    decisive = {name: compared[name].difference for name in numbers}
    told = {
        name: f"{one.value:+z.3f} ({one.low:+z.3f} to {one.high:+z.3f}) against {WORDS[name]}"
        for name, one in decisive.items()
    }
    if undefined := [name for name, one in decisive.items() if np.isnan(one.low)]:
        return Verdict(OPEN, f"{figure} is not defined for {WORDS[undefined[0]]} {numbers[undefined[0]]}")
    if all(one.low > 0 for one in decisive.values()):
        return Verdict(LOOKS, f"{figure} is higher with the true film: {', '.join(told.values())}")
    if blind := [name for name, one in decisive.items() if one.low <= 0 and one.high < margin]:
        names = " and ".join(told[name] for name in blind)
        return Verdict(BLIND, f"whatever the true film adds to {figure} is less than {margin:g}: {names}")
    wide = [name for name, one in decisive.items() if one.low <= 0]
    return Verdict(
        OPEN, f"{numbers[wide[0]]} the interval is too wide: {figure} {', '.join(told[name] for name in wide)}"
    )
