"""The rule of the verdict, and the sentence that gives its reason."""

import math

import pytest

from medvill_jax.audit.conditions import ANOTHER, BLACK
from medvill_jax.audit.scoring import Compared, Measured
from medvill_jax.audit.verdict import BLIND, LOOKS, OPEN, verdict

NOTHING = Measured(math.nan, math.nan, math.nan)


def of(patients: int = 50, **differences: tuple[float, float]) -> dict[str, Compared]:
    return {
        name: Compared(NOTHING, NOTHING, Measured((low + high) / 2, low, high), NOTHING, 2 * patients, patients)
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
    found = verdict("accuracy", of(**{ANOTHER: another, BLACK: black}), margin=0.05)
    assert found.verdict == wanted
    assert "accuracy" in found.why


def test_few_patients_tell_nothing() -> None:
    clear = {ANOTHER: (0.5, 0.6), BLACK: (0.5, 0.6)}
    assert verdict("accuracy", of(20, **clear), margin=0.05).verdict == LOOKS
    found = verdict("accuracy", of(19, **clear), margin=0.05)
    assert found.verdict == OPEN
    assert found.why == (
        "answers can be compared with those for another patient's film with 38 films of 19 patients; at least 20 "
        "patients are needed"
    )


@pytest.mark.parametrize("few", [ANOTHER, BLACK])
@pytest.mark.parametrize("patients", [0, 19])
def test_few_patients_of_one_condition_tell_nothing(few: str, patients: int) -> None:
    other = BLACK if few == ANOTHER else ANOTHER
    for low, high in ((0.5, 0.6), (0.0, 0.01)):
        compared = of(**{other: (low, high)}) | of(patients, **{few: (low, high)})
        assert verdict("accuracy", compared, margin=0.05).verdict == OPEN


def test_without_black_films_the_others_decide() -> None:
    assert verdict("f1", of(**{ANOTHER: (0.5, 0.6)}), margin=0.05).verdict == LOOKS
    assert verdict("f1", of(**{BLACK: (0.5, 0.6)}), margin=0.05).verdict == OPEN
    undefined = {ANOTHER: Compared(NOTHING, NOTHING, NOTHING, NOTHING, 60, 50)}
    assert verdict("f1", undefined, margin=0.05).verdict == OPEN
