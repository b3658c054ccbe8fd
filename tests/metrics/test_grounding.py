"""Metrics of phrase grounding against values by hand and against loops over places."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.data import boxes
from medvill_jax.metrics import grounding

# 2 x 3 places; the two on the right of the first row are in the box.
HEAT = np.array([[0.0, 0.9, 0.5], [0.2, 0.4, 0.0]])
INSIDE = np.array([[False, True, True], [False, False, False]])


def measured(heat: np.ndarray, inside: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    scaled = boxes.scaled(heat)
    box = boxes.mask(boxes.box_of(heat, threshold), len(heat)) if heat.shape[0] == heat.shape[1] else scaled >= 0.5
    return dict(zip(grounding.MEASURES, grounding.measured(heat, scaled, inside, box).tolist(), strict=True))


def test_values_by_hand() -> None:
    found = measured(HEAT, INSIDE)
    assert found["pointing"] == 1.0
    # Scaled: 0, 1, 5/9, 2/9, 4/9, 0. At 0.1 and 0.2 four places, two of them right; at 0.3 and 0.4 three; at 0.5 two.
    assert found["miou"] == pytest.approx((2 / 4 + 2 / 4 + 2 / 3 + 2 / 3 + 2 / 2) / 5)
    # Inside 0.9 and 0.5: mean 0.7, variance 0.04; outside 0, 0.2, 0.4, 0: mean 0.15, variance 0.0275.
    assert found["cnr"] == pytest.approx((0.7 - 0.15) / math.sqrt(0.04 + 0.0275))
    assert found["box_iou"] == 1.0


def test_a_map_that_is_low_in_the_box() -> None:
    found = measured(-HEAT, INSIDE)
    assert found["pointing"] == 0.0
    assert found["cnr"] == -found["cnr_absolute"] < 0


def test_a_map_of_one_value_is_chance() -> None:
    found = measured(np.full((4, 4), 0.3), np.eye(4, dtype=bool))
    assert found["pointing"] == found["miou"] == found["box_iou"] == pytest.approx(4 / 16)
    assert found["cnr"] == 0.0


def test_what_is_not_defined() -> None:
    assert all(math.isnan(value) for value in measured(HEAT, np.zeros_like(INSIDE)).values())
    everywhere = measured(HEAT, np.ones_like(INSIDE))
    assert everywhere["pointing"] == 1.0
    assert math.isnan(everywhere["cnr"])
    assert measured(INSIDE.astype(float), INSIDE)["cnr"] == math.inf


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_loops_over_places_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heat, inside = rng.integers(0, 5, (5, 5)) / 4.0, rng.random((5, 5)) < 0.4
    if not inside.any() or inside.all():
        return
    found = measured(heat, inside)
    places = [(row, column) for row in range(5) for column in range(5)]
    top = max(heat[place] for place in places)
    best = [place for place in places if heat[place] == top]
    assert found["pointing"] == pytest.approx(sum(bool(inside[place]) for place in best) / len(best))
    low, overlaps = min(heat[place] for place in places), []
    for threshold in grounding.THRESHOLDS:
        chosen = {place for place in places if top == low or (heat[place] - low) / (top - low) >= threshold}
        true = {place for place in places if inside[place]}
        overlaps.append(len(chosen & true) / len(chosen | true))
    assert found["miou"] == pytest.approx(sum(overlaps) / len(overlaps))


def test_means_by_category_and_their_intervals() -> None:
    rows = np.array([[1, 0.5, 1.0, 1.0, 0.2], [0, 0.1, -1.0, 1.0, 0.4], [1, 0.3, math.nan, math.nan, 0.6]])
    found = grounding.score(rows, ["Edema", "Edema", "Lung Opacity"], clusters=["a", "b", "b"], seed=1)
    assert found["phrases"] == 3
    assert found["pointing"] == pytest.approx(2 / 3)
    assert found["cnr"] == 0.0  # of two: the third is not defined
    assert found["pointing/edema"] == 0.5
    assert found["miou/lung_opacity"] == pytest.approx(0.3)
    assert np.isnan(found["cnr/lung_opacity"])
    assert found["resampled_subjects"] == 2
    # Only three resamples of two patients differ: a alone, b alone, or each once.
    assert found["pointing_ci95"] == [0.5, 1.0]


def test_infinite_contrasts_do_not_count() -> None:
    rows = np.array([[1, 1, math.inf, math.inf, 1], [1, 1, 2.0, 2.0, 1]])
    assert grounding.score(rows, ["", ""], resamples=0)["cnr"] == 2.0


def test_gain_over_an_infinite_contrast_does_not_count() -> None:
    own, other = np.ones((2, 5)), np.zeros((2, 5))
    own[0, 2] = other[0, 2] = np.inf
    assert grounding.gain(own, other, resamples=10)["cnr"] == 1.0


def test_gain_is_phrase_by_phrase() -> None:
    rng = np.random.default_rng(0)
    own, other = rng.random((40, 5)), rng.random((40, 5))
    found = grounding.gain(own, other, resamples=200)
    assert found["miou"] == pytest.approx((own - other).mean(0)[1])
    low, high = np.array(found["miou_ci95"])
    assert low < np.array(found["miou"]) < high
    assert grounding.gain(own, own)["box_iou_ci95"] == [0.0, 0.0]


def test_the_best_threshold_is_found() -> None:
    inside = [INSIDE]
    best, reached = grounding.best_threshold(lambda t: [boxes.scaled(HEAT) >= t], inside, (0.1, 0.5, 0.99))
    assert best == 0.5
    assert reached == {0.1: 0.5, 0.5: 1.0, 0.99: 0.5}


@pytest.mark.parametrize("rows", [np.zeros((0, 5)), np.zeros((2, 4)), np.zeros(5)])
def test_wrong_shapes(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="measures of shape"):
        grounding.score(rows, [""] * len(rows))
    with pytest.raises(ValueError, match="2 phrases, but 1 categories"):
        grounding.score(np.zeros((2, 5)), [""])
