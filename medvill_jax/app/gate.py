"""Looks whether pixels are an upright frontal chest film, before a network answers about them.

A network without notion of "no chest film" answers anyway, so what asks it must look first. The judge here is a
network of one hidden layer over the edges of a picture of 32 x 32 pixels; docs/gate.md says what it was trained on and
how often it errs.
"""

from __future__ import annotations

import functools
from importlib import resources

import cv2
import numpy as np
from safetensors.numpy import load

FRONTAL = "frontal"
# What the network tells apart, in the order of its outputs; a sentence for each that is no upright frontal film.
WARNINGS = {
    "inverted": "the film looks inverted, with white lungs: invert its gray values",
    "lateral": "the film looks like a lateral view: the model reads frontal views",
    "clockwise": "the film looks turned clockwise by a quarter: turn it upright",
    "upside_down": "the film looks upside down: turn it upright",
    "anticlockwise": "the film looks turned anticlockwise by a quarter: turn it upright",
    "other": "this does not look like a frontal chest film: what the model says about it means nothing",
}
KINDS = (FRONTAL, *WARNINGS)
WEIGHTS = "gate.safetensors"
SIDE = 32
_COARSE = 64
_CELL, _ORIENTATIONS = 4, 8
_BANDS, _AXES = 4, 5
FEATURES = (SIDE // _CELL) ** 2 * _ORIENTATIONS + (SIDE // 2) ** 2 + _BANDS
_BLANK = 4.0  # deviation of gray values in a row or column that shows nothing


def check(pixels: np.ndarray) -> tuple[str, ...]:
    """What keeps a film from being read: nothing, or one sentence of `WARNINGS`.

    Args:
        pixels: uint8 `[H, W]`, bone white and air black, as `films.decode` gives them.
    """
    return check_pictures(picture(pixels)[None])[0]


def check_pictures(pictures: np.ndarray) -> list[tuple[str, ...]]:
    """`check` of many films as `picture` makes them, uint8 `[N, SIDE, SIDE]`: a fraction of the time for each."""
    weights = _weights()
    found = odds(logits(weights, features(pictures)))
    shown = pictures.std((1, 2)) > _BLANK
    passes, best = shown & (found[:, 0] >= weights["passed"]), 1 + found[:, 1:].argmax(1)
    kinds = np.where(shown, best, KINDS.index("other"))
    return [() if passed else (WARNINGS[KINDS[kind]],) for passed, kind in zip(passes, kinds, strict=True)]


def picture(pixels: np.ndarray) -> np.ndarray:
    """A film uint8 `[H, W]` -> uint8 `[SIDE, SIDE]`: blank margins cut off, the rest fitted into a square."""
    coarse = cv2.resize(pixels, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)
    gray = coarse.astype(np.int32)
    coarse = coarse[_shown(gray), _shown(gray.T)]
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def features(pictures: np.ndarray) -> np.ndarray:
    """What the network sees of pictures uint8 `[N, SIDE, SIDE]`: float32 `[N, FEATURES]`, the same for any exposure.

    Histograms of oriented gradients (Dalal and Triggs 2005) with signed orientations, so that black on white differs
    from white on black, each normalised by the 3 x 3 cells around it; the standardised gray values, coarsely; and how
    alike left and right are.
    """
    gray = pictures.astype(np.float32)
    gray -= gray.mean((1, 2), keepdims=True)
    gray = np.clip(gray / np.maximum(gray.std((1, 2), keepdims=True), 1.0), -3, 3)
    edged = np.pad(gray, ((0, 0), (1, 1), (1, 1)), mode="edge")
    along_y, along_x = edged[:, 2:, 1:-1] - edged[:, :-2, 1:-1], edged[:, 1:-1, 2:] - edged[:, 1:-1, :-2]
    turns = np.arange(_ORIENTATIONS, dtype=np.float32) * np.float32(2 * np.pi / _ORIENTATIONS)
    least = np.float32(0.7) * np.sqrt(along_x**2 + along_y**2)
    # Each gradient goes to the orientations that it points along, the nearest most: [N, cells, cells, orientations].
    shares = (
        along_x * along + along_y * across - least for along, across in zip(np.cos(turns), np.sin(turns), strict=True)
    )
    votes = np.stack([_pooled(np.maximum(share, 0), _CELL) for share in shares], -1)
    energy = np.pad(votes.sum(-1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    cells = votes.shape[1]
    around = np.mean([energy[:, i : i + cells, j : j + cells] for i in range(3) for j in range(3)], 0)
    votes = np.minimum(votes / (around[..., None] + np.float32(0.02)), 1)
    parts = (votes, 0.5 * _pooled(gray, 2), _symmetry(gray))
    return np.concatenate([part.reshape(len(gray), -1) for part in parts], 1)


def logits(weights: dict[str, np.ndarray], seen: np.ndarray) -> np.ndarray:
    """Log odds `[N, len(KINDS)]` of features `[N, FEATURES]`: one hidden layer of rectified units."""
    # Not `@`: the threads of its library keep cores busy for a while after each product, which the model needs.
    hidden = np.maximum(np.einsum("nf,fh->nh", seen, weights["hidden.weight"]) + weights["hidden.bias"], 0)
    return np.einsum("nh,hk->nk", hidden, weights["kinds.weight"]) + weights["kinds.bias"]


def odds(logits: np.ndarray) -> np.ndarray:
    """Log odds `[N, K]` -> probabilities."""
    found = np.exp(logits - logits.max(1, keepdims=True))
    return found / found.sum(1, keepdims=True)


def _symmetry(gray: np.ndarray) -> np.ndarray:
    """How alike left and right of `[N, SIDE, SIDE]` are, `[N, _BANDS]`: correlations in bands, about the best axes."""
    found = []
    for shift in range(-_AXES, _AXES + 1):
        around = gray[:, :, max(0, shift) : SIDE + min(0, shift)]
        bands = (around * around[:, :, ::-1], around**2)
        alike, power = (band.reshape(len(gray), _BANDS, -1).mean(-1) for band in bands)
        found.append(alike / (power + np.float32(0.05)))
    return np.max(found, 0)


def _pooled(fields: np.ndarray, cell: int) -> np.ndarray:
    """Means over squares of `cell` pixels of `[N, H, W]`."""
    number, height, width = fields.shape
    size = (width // cell, number * height // cell)
    means = cv2.resize(fields.reshape(-1, width), size, interpolation=cv2.INTER_AREA)
    return means.reshape(number, height // cell, width // cell)


def _shown(gray: np.ndarray) -> slice:
    """From the first to the last line, of int `[lines, pixels]`, that shows something; all if less than a third do."""
    count, pixels = gray.shape
    variance = pixels * (gray**2).sum(1) - gray.sum(1) ** 2  # times pixels**2
    lines = np.flatnonzero(variance > (_BLANK * pixels) ** 2)
    if len(lines) == 0 or lines[-1] - lines[0] < count // 3:
        return slice(None)
    return slice(int(lines[0]), int(lines[-1]) + 1)


@functools.cache
def _weights() -> dict[str, np.ndarray]:
    stored = load((resources.files("medvill_jax.app") / WEIGHTS).read_bytes())
    return {name: value.astype(np.float32) for name, value in stored.items()}
