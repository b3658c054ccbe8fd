"""Boxes, cells and maps on films: exact shares, and the way of a box through crop and padding and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.data import boxes
from medvill_jax.data.transforms import Crop, seen_through, square_window

EDGES = st.integers(0, 24)
BOXES = st.lists(st.tuples(EDGES, EDGES, EDGES, EDGES), max_size=4).map(
    lambda drawn: np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in drawn]).reshape(-1, 4) / 24
)
# Grids that divide 24, so that 24 x 24 places decide every share exactly.
GRIDS = st.sampled_from((1, 2, 3, 4, 6, 8, 12))


@given(BOXES, GRIDS, GRIDS)
@settings(deadline=None)
def test_shares_are_those_of_counted_places(drawn: np.ndarray, rows: int, columns: int) -> None:
    counted = np.zeros((24, 24))
    for left, top, right, bottom in np.round(drawn * 24).astype(int):
        counted[top:bottom, left:right] = 1
    of_cells = counted.reshape(rows, 24 // rows, columns, 24 // columns).mean((1, 3))
    np.testing.assert_allclose(boxes.shares(drawn, rows, columns), of_cells, atol=1e-6)


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=4), GRIDS)
@settings(deadline=None)
def test_shares_add_up(drawn: list[tuple[float, ...]], rows: int) -> None:
    sorted_boxes = np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in drawn])
    found = boxes.shares(sorted_boxes, rows, 5)
    assert found.min() >= 0
    assert found.max() <= 1
    areas = np.prod(sorted_boxes[:, 2:] - sorted_boxes[:, :2], axis=1)
    total = found.mean()
    assert max(areas) - 1e-5 <= total <= areas.sum() + 1e-5
    # A box more never takes anything away.
    assert (boxes.shares(sorted_boxes[:1], rows, 5) <= found + 1e-6).all()


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (48, 48)])
@pytest.mark.parametrize("crop", [None, Crop((0.5, 0.6), (0.8, 1.2)), Crop((1.2, 1.3), (1.0, 1.0))])
def test_a_box_stays_on_what_it_surrounds(shape: tuple[int, int], crop: Crop | None) -> None:
    """A bright block in a film is where the network's input is bright, and the cells say so."""
    height, width = shape
    film = np.zeros(shape, np.uint8)
    film[10:26, 12:32] = 255
    box = np.array([[12 / width, 10 / height, 32 / width, 26 / height]])
    window = square_window(height, width, crop, np.random.default_rng(3))
    seen = seen_through(film, window, 60)
    shares = boxes.shares(boxes.in_window(box, height, width, window), 12, 12)
    bright = seen.reshape(12, 5, 12, 5).mean((1, 3)) / 255
    # One pixel of the film is more than one of the input, whose edges are interpolated.
    assert np.abs(shares - bright).mean() < 0.02
    assert np.abs(shares - bright).max() < 0.35


def test_a_box_between_two_middles_has_a_place() -> None:
    """A film of 4 x 4 places: their middles are at 1/8, 3/8, ..."""
    thin = np.array([[0.2, 0.2, 0.3, 0.24], [0.5, 0.9, 1.0, 1.0], [0.99, 0.0, 1.0, 0.5]])
    expected = np.zeros((3, 4, 4), bool)
    expected[0, 0, 1] = True  # 0.25 lies in the second place of its row
    expected[1, 3, 2:] = True
    expected[2, :2, 3] = True
    for box, places in zip(thin, expected, strict=True):
        np.testing.assert_array_equal(boxes.mask(box, 4), places)
    np.testing.assert_array_equal(boxes.mask(thin, 4), expected.any(0))
    assert not boxes.mask(np.zeros((0, 4)), 4).any()


def test_what_lies_outside_of_a_window_is_cut() -> None:
    corner = np.array([[0.0, 0.0, 0.25, 0.25], [0.75, 0.75, 1.0, 1.0]])
    found = boxes.in_window(corner, 100, 100, (0, 0, 50, 50))
    np.testing.assert_allclose(found, [[0.0, 0.0, 0.5, 0.5]])


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (48, 48)])
def test_a_map_returns_to_the_film(shape: tuple[int, int]) -> None:
    height, width = shape
    film_box = np.array([[0.25, 0.5, 0.5, 0.75]])
    window = square_window(height, width, None, np.random.default_rng(0))
    cells = boxes.shares(boxes.in_window(film_box, height, width, window), 32, 32)
    back = boxes.on_film(cells, height, width, window)
    inside = boxes.mask(film_box)
    assert ((back >= 0.5) != inside).mean() < 0.03
    np.testing.assert_allclose(boxes.box_of(back, 0.5), film_box[0], atol=0.04)


def test_a_cell_in_the_border_is_not_on_the_film() -> None:
    """A film of 24 x 48 pixels lies in the middle two of the four rows of cells; each place is that of its cell."""
    cells = np.arange(16.0).reshape(4, 4)
    found = boxes.on_film(cells, 24, 48, square_window(24, 48, None, np.random.default_rng(0)), 8, smooth=False)
    np.testing.assert_array_equal(found, np.repeat(np.repeat(cells[1:3], 4, 0), 2, 1))


def test_a_constant_map_is_the_same_on_the_film() -> None:
    np.testing.assert_allclose(boxes.on_film(np.full((3, 3), 0.3), 30, 50, (-10, 0, 40, 50)), 0.3, rtol=1e-6)


def test_the_box_surrounds_the_part_with_the_highest_place() -> None:
    heat = np.zeros((10, 20))
    heat[2:4, 3:8] = 0.8
    heat[4, 8] = 0.7  # hangs on by its corner
    heat[8, 15:19] = 0.75  # apart
    heat[3, 5] = 1.0
    np.testing.assert_allclose(boxes.box_of(heat, 0.6), [3 / 20, 2 / 10, 9 / 20, 5 / 10])
    np.testing.assert_allclose(boxes.box_of(heat, 0.9), [5 / 20, 3 / 10, 6 / 20, 4 / 10])
    np.testing.assert_allclose(boxes.box_of(np.zeros((4, 4)), 0.5), [0, 0, 1, 1])
