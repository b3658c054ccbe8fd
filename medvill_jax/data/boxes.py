"""Where on a film something is: boxes, the cells of the network that they cover, and maps of cells on the film.

Boxes are float `[n, 4]`: left, top, right, bottom in 0..1 of the sides of a film or of a window of it. Maps on the film
are rasters of its sides, whatever their ratio: areas, overlaps and order are the same as in pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from medvill_jax.data.transforms import Window

# Sides of a film in a raster.
RASTER = 96


def in_window(boxes: np.ndarray, height: int, width: int, window: Window) -> np.ndarray:
    """Boxes of a film of `height` x `width` pixels as boxes of a window of it, without what lies outside; `[m, 4]`."""
    top, left, bottom, right = window
    pixels = np.asarray(boxes, np.float64).reshape(-1, 4) * (width, height, width, height)
    moved = (pixels - (left, top, left, top)) / (right - left, bottom - top, right - left, bottom - top)
    clipped = np.clip(moved, 0.0, 1.0)
    return clipped[(clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])]


def shares(boxes: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """How much of each cell of a grid the union of boxes covers, float32 `[rows, columns]` in 0..1, exactly."""
    boxes = np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0.0, 1.0)
    # Between all edges of cells and boxes, a patch is covered either wholly or not at all.
    lines = [np.arange(rows + 1) / rows, np.arange(columns + 1) / columns]
    ys = np.unique(np.concatenate([lines[0], boxes[:, 1], boxes[:, 3]]))
    xs = np.unique(np.concatenate([lines[1], boxes[:, 0], boxes[:, 2]]))
    covered = np.zeros((len(ys) - 1, len(xs) - 1))
    for left, top, right, bottom in boxes:
        spans = [np.searchsorted(edges, ends) for edges, ends in ((ys, (top, bottom)), (xs, (left, right)))]
        covered[slice(*spans[0]), slice(*spans[1])] = 1.0
    areas = covered * np.diff(ys)[:, None] * np.diff(xs)
    of_cells = np.add.reduceat(
        np.add.reduceat(areas, np.searchsorted(ys, lines[0][:-1]), 0), np.searchsorted(xs, lines[1][:-1]), 1
    )
    return np.clip(of_cells * rows * columns, 0.0, 1.0).astype(np.float32)


def mask(boxes: np.ndarray, side: int = RASTER) -> np.ndarray:
    """bool `[side, side]`: the places of a raster whose middle lies in a box; of a box too thin for one, its own."""
    left, top, right, bottom = np.asarray(boxes, np.float64).reshape(-1, 4).T
    in_rows, in_columns = _reached(top, bottom, side), _reached(left, right, side)
    return np.any(in_rows[:, :, None] & in_columns[:, None, :], axis=0)


def _reached(start: np.ndarray, end: np.ndarray, side: int) -> np.ndarray:
    """bool `[n, side]`, the places along one side that n stretches `[n]` of it cover, at least one each."""
    middles = (np.arange(side) + 0.5) / side
    reached = (start[:, None] <= middles) & (middles < end[:, None])
    own = np.clip((start + end) / 2 * side, 0, side - 1).astype(int)
    reached[np.arange(len(own)), own] |= ~reached.any(axis=1)
    return reached


def on_film(
    cells: np.ndarray, height: int, width: int, window: Window, side: int = RASTER, *, smooth: bool = True
) -> np.ndarray:
    """A map of the cells of a window, on the whole film.

    Args:
        cells: float `[rows, columns]`.
        height, width: of the film, pixels.
        window: what the network saw of the film.
        side: of the result.
        smooth: linear between the middles of cells, and beyond the outermost ones as in them; or each place as its
            cell.

    Returns:
        float32 `[side, side]`.
    """
    top, left, bottom, right = window
    spread = [
        _weights(side, of_film, start, end, count, smooth)
        for of_film, start, end, count in (
            (height, top, bottom, cells.shape[0]),
            (width, left, right, cells.shape[1]),
        )
    ]
    return (spread[0] @ np.asarray(cells, np.float64) @ spread[1].T).astype(np.float32)


def _weights(side: int, film: int, start: int, end: int, cells: int, smooth: bool) -> np.ndarray:
    """Weights `[side, cells]` of the cells at the places of a raster, along one side."""
    places = (np.arange(side) + 0.5) / side * film  # pixels
    at = np.clip((places - start) / (end - start) * cells - 0.5, 0, cells - 1)
    at = at if smooth else np.round(at)
    before = np.minimum(at.astype(int), max(cells - 2, 0))
    weights = np.zeros((side, cells))
    rows = np.arange(side)
    weights[rows, before] = 1 - (at - before)
    weights[rows, np.minimum(before + 1, cells - 1)] += at - before
    return weights


def scaled(heat: np.ndarray) -> np.ndarray:
    """A map on any scale from 0, its least value, to 1, its highest; a map of one value is 1 everywhere."""
    low, high = float(heat.min()), float(heat.max())
    return (heat - low) / (high - low) if high > low else np.ones_like(heat)


def box_of(heat: np.ndarray, threshold: float) -> np.ndarray:
    """The box of a map on a film, float32 `[4]`.

    It is the smallest one around all places that reach `threshold` on the scale of `scaled` and hang together with the
    highest place, by sides or corners; of several highest places with the first.
    """
    high = (scaled(heat) >= threshold).astype(np.uint8)
    parts = cv2.connectedComponents(high, connectivity=8)[1]
    rows, columns = np.nonzero(parts == parts.flat[int(np.argmax(heat))])
    sides = heat.shape[1], heat.shape[0]
    return np.array(
        [columns.min() / sides[0], rows.min() / sides[1], (columns.max() + 1) / sides[0], (rows.max() + 1) / sides[1]],
        np.float32,
    )
