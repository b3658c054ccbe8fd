"""Which film takes the place of which, and what is done to pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvill_jax.audit import conditions
from medvill_jax.audit.errors import AuditError


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.integers(0, 3))
def test_every_film_gets_another_patients(patients: list[int], seed: int) -> None:
    names = [f"p{number}" for number in patients]
    if max(names.count(name) for name in names) * 2 > len(names):
        with pytest.raises(AuditError, match="not every film has another patient's"):
            conditions.others(names, seed)
        return
    other = conditions.others(names, seed)
    assert sorted(other) == list(range(len(names)))
    assert all(names[one] != names[place] for place, one in enumerate(other))
    assert np.array_equal(other, conditions.others(names, seed))


def test_the_exchange_is_drawn() -> None:
    names = [f"p{number}" for number in range(50)]
    assert not np.array_equal(conditions.others(names, 0), conditions.others(names, 1))
    # Places say nothing of who takes them: a correlation of 50 pairs stays below 0.4 but for one seed of two hundred.
    places = np.concatenate([np.stack([np.arange(50), conditions.others(names, seed)]) for seed in range(20)], 0)
    found = [abs(np.corrcoef(places[2 * seed], places[2 * seed + 1])[0, 1]) for seed in range(20)]
    assert np.mean(found) < 0.25


def test_films_are_drawn_once_and_stay_in_order() -> None:
    assert conditions.chosen(5, None, 0).tolist() == [0, 1, 2, 3, 4] == conditions.chosen(5, 9, 0).tolist()
    some = conditions.chosen(100, 30, 0)
    assert len({*some.tolist()}) == 30
    assert some.tolist() == sorted(some.tolist())
    assert some.tolist() == conditions.chosen(100, 30, 0).tolist() != conditions.chosen(100, 30, 1).tolist()


def test_the_control_changes_as_much_elsewhere() -> None:
    film = np.full((40, 60), 100, np.uint8)
    film[2:8, 3:12] = 160
    erased = np.full((40, 60), 100, np.uint8)
    control, kept = conditions.moved(film, erased)
    assert kept == 1
    assert (control[2:8, 3:12] == 160).all(), "the finding is still there"
    changed = control.astype(int) - film
    assert (changed == -60).sum() == 6 * 9
    assert (changed != 0).sum() == 6 * 9
    control, kept = conditions.moved(film, film)
    assert np.array_equal(control, film)
    assert kept == 0, "there is no change"


def test_the_control_is_where_the_film_can_take_the_change() -> None:
    film = np.full((40, 64), 5, np.uint8)  # nothing can be darkened by 60
    film[2:8, 3:12] = 160
    film[20:30, 40:60] = 90  # but here
    erased = film.copy()
    erased[2:8, 3:12] = 100
    control, kept = conditions.moved(film, erased)
    assert kept == 1
    assert ((control.astype(int) - film)[20:30, 40:60] == -60).sum() == 6 * 9
    film[20:30, 40:60] = erased[20:30, 40:60] = 35
    assert conditions.moved(film, erased)[1] == 35 / 60
