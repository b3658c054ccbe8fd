"""Renders the findings of a study as the pixels of a film: view, exposure, noise, side marker."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from data_prep.phantom import anatomy, frontal, hard, lateral
from data_prep.phantom.canvas import Canvas, Field
from data_prep.phantom.findings import Sign

VIEWS = ("AP", "PA", "LATERAL")


def render(
    seed: int | list[int],
    view: str,
    signs: tuple[Sign, ...],
    *,
    image_size: int,
    sex: str = "M",
    difficulty: str = hard.STANDARD,
    hidden: str = "",
    taken: int | None = None,
) -> npt.NDArray[np.float32]:
    """One film, float32 `[rows, columns]` in 0 (air) to 1 (bone, metal); the short side has `image_size` pixels.

    Body, pose and noise depend on `seed`, `view`, `sex` and `difficulty` only: two films that differ in `signs` show
    one patient with and without a finding. The finding `hidden` is left out, and the others stay where they are. With
    the seed `taken`, position, exposure and noise depend on it instead: of one patient on another day.
    """
    rng = np.random.default_rng(seed)
    body = anatomy.body(rng, view, sex)
    if taken is not None:
        body = anatomy.retaken(body, anatomy.body(np.random.default_rng(taken), view, sex))
    ratio = float(rng.uniform(0.85, 1.2))
    shape = (image_size, round(image_size / ratio)) if ratio < 1 else (round(image_size * ratio), image_size)
    canvas = Canvas(shape, body.pose)
    if view == "LATERAL":
        field = lateral.draw(canvas, body, signs, hidden)
    else:
        field = frontal.draw(canvas, body, tuple(sign for sign in signs if sign.finding != hidden))
    if difficulty == hard.HARD:
        draw = lateral.draw if view == "LATERAL" else frontal.draw
        field = hard.veiled(canvas, body, field, draw(canvas, body, ()))
        body = hard.exposed(body)
    return _expose(canvas, body, field)


def eight_bit(film: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """A film as an 8-bit gray image, uint8 `[rows, columns]`."""
    return np.round(film * 255).astype(np.uint8)


def _expose(canvas: Canvas, body: anatomy.Body, field: Field) -> npt.NDArray[np.float32]:
    field = canvas.blurred(field, 0.0025)
    field = np.clip(field * np.float32(body.gain) + np.float32(body.offset), 0.0, None)
    # Soft saturation at the bright end keeps metal brighter than bone.
    field = np.tanh(field ** np.float32(body.gamma) * np.float32(1.15)) / np.float32(np.tanh(1.15))
    rng = np.random.default_rng(body.noise_seed)
    grain = rng.standard_normal(canvas.shape, dtype=np.float32)
    field = field + np.float32(body.noise) * grain
    rows, columns = canvas.shape
    if body.marker:
        _mark(field, body.marker, rng)
    left, top = round(columns * body.collimation[0]), round(rows * body.collimation[1])
    if left:
        field[:, :left] = 0.02
    if top:
        field[:top] = 0.02
    return np.clip(field, 0, 1).astype(np.float32)


def _mark(field: Field, letter: str, rng: np.random.Generator) -> None:
    rows, columns = field.shape
    size = min(rows, columns)
    x = columns * (0.90 if letter == "L" else 0.035) + rng.uniform(-0.01, 0.01) * size
    y = (0.10 + rng.uniform(0, 0.05)) * rows
    ink = np.zeros(field.shape, np.uint8)
    cv2.putText(
        ink, letter, (round(x), round(y)), cv2.FONT_HERSHEY_SIMPLEX, size / 420, (255,), max(1, round(size / 110))
    )
    np.maximum(field, ink.astype(np.float32) / 262, out=field)
