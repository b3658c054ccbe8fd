"""The rule of the verdict, and the sentence that gives its reason."""

import math

import pytest

from medvill_jax.audit.conditions import ANOTHER, BLACK
from medvill_jax.audit.scoring import Compared, Measured
from medvill_jax.audit.verdict import BLIND, LOOKS, OPEN, verdict

NOTHING = Measured(math.nan, math.nan, math.nan)


def of(**differences: tuple[float, float]) -> dict[str, Compared]:
    return {
        name: Compared(NOTHING, NOTHING, Measured((low + high) / 2, low, high), NOTHING)
        for name, (low, high) in differences.items()
    }


@pytest.mark.parametrize(
    ("another", "black", "wanted"),
    [
        ((0.01, 0.2), (0.1, 0.2), LOOKS),
        ((0.0, 0.0), (0.0, 0.0), BLIND),
        ((-0.1, 0.04), (0.1, 0.2), BLIND),
        # Better than with another's film, but not than with none at all.
        ((0.1, 0.2), (-0.01, 0.04), BLIND),
        ((-0.01, 0.06), (0.1, 0.2), OPEN),
        ((0.1, 0.2), (-0.3, 0.3), OPEN),
        ((-0.2, -0.1), (-0.2, -0.1), BLIND),
    ],
)
def test_the_rule(another: tuple[float, float], black: tuple[float, float], wanted: str) -> None:
    found = verdict("accuracy", of(**{ANOTHER: another, BLACK: black}), patients=50, films=60, margin=0.05)
    assert found.verdict == wanted
    assert "accuracy" in found.why


def test_few_patients_tell_nothing() -> None:
    clear = of(**{ANOTHER: (0.5, 0.6), BLACK: (0.5, 0.6)})
    assert verdict("accuracy", clear, patients=20, films=20, margin=0.05).verdict == LOOKS
    found = verdict("accuracy", clear, patients=19, films=40, margin=0.05)
    assert (found.verdict, found.why) == (OPEN, "with 40 films of 19 patients; at least 20 patients are needed")


def test_without_black_films_the_others_decide() -> None:
    assert verdict("f1", of(**{ANOTHER: (0.5, 0.6)}), patients=50, films=60, margin=0.05).verdict == LOOKS
    assert verdict("f1", of(**{BLACK: (0.5, 0.6)}), patients=50, films=60, margin=0.05).verdict == OPEN
    undefined = {ANOTHER: Compared(NOTHING, NOTHING, NOTHING, NOTHING)}
    assert verdict("f1", undefined, patients=50, films=60, margin=0.05).verdict == OPEN
