"""The difficulty of films: what makes a film hard to read.

A `standard` film shows every finding clearly. A `hard` film has smaller findings, is blended with the healthy chest of
the same patient, so that findings are faint, and has shadows unrelated to findings, uneven exposure and more noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data_prep.phantom.anatomy import SIGN, Body
from data_prep.phantom.canvas import Canvas, Field, curve
from data_prep.phantom.findings import Study
from medvill_jax.data.records import DataError

STANDARD, HARD = "standard", "hard"
DIFFICULTIES = (STANDARD, HARD)
_SMALLER = {"large": "moderate", "moderate": "small", "small": "small"}


@dataclass(frozen=True)
class Range:
    """A uniform distribution between two bounds."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """A sample."""
        return float(rng.uniform(self.low, self.high))


# Probability that a finding becomes one size smaller.
SMALLER_CHANCE = 0.6
# Factor on the contrast of findings.
CONTRAST = Range(0.30, 0.70)
# Factor on the contrast of the whole film, for scattered radiation.
SCATTER = Range(0.60, 0.95)
GAMMA, GAIN, OFFSET = Range(0.75, 1.70), Range(0.68, 1.15), Range(-0.05, 0.10)
NOISE = Range(0.02, 0.06)
# Brightness of overlapping soft tissue, coarse and fine.
COARSE, FINE = Range(0.02, 0.06), Range(0.01, 0.03)


def check(difficulty: str) -> None:
    """Raises `DataError` if `difficulty` is not in `DIFFICULTIES`."""
    if difficulty not in DIFFICULTIES:
        raise DataError(f"phantom difficulty {difficulty!r}: there are {', '.join(DIFFICULTIES)}")


def smaller(study: Study, rng: np.random.Generator) -> Study:
    """The study with most of its findings one size smaller, but none of them removed."""
    signs = tuple(
        replace(sign, severity=_SMALLER[sign.severity]) if rng.random() < SMALLER_CHANCE else sign
        for sign in study.signs
    )
    return replace(study, signs=signs)


def exposed(body: Body) -> Body:
    """The body with the exposure and noise of a badly exposed film."""
    rng = _rng(body, 0)
    return replace(body, gamma=GAMMA.draw(rng), gain=GAIN.draw(rng), offset=OFFSET.draw(rng), noise=NOISE.draw(rng))


def veiled(canvas: Canvas, body: Body, field: Field, healthy: Field) -> Field:
    """The brightness of a film with faint findings and shadows unrelated to them, `[rows, columns]`.

    Args:
        canvas, body: of the film.
        field: brightness `[rows, columns]` with the findings.
        healthy: brightness `[rows, columns]` without them.
    """
    rng = _rng(body, 1)
    field = healthy + np.float32(CONTRAST.draw(rng)) * (field - healthy)
    field = field + np.float32(COARSE.draw(rng)) * canvas.noise(rng, 0.35)
    field = field + np.float32(FINE.draw(rng)) * canvas.noise(rng, 0.12)
    for _ in range(rng.integers(0, 3)):
        field = field + np.float32(rng.uniform(0.03, 0.08)) * _fold(canvas, rng)
    for side in ("left", "right"):
        s, lift = SIGN[side], rng.uniform(-0.05, 0.05)
        blade = curve([(s * 0.70, -0.75 + lift), (s * 0.58, -0.42 + lift), (s * 0.66, -0.02 + lift)])
        field = field + np.float32(rng.uniform(0.0, 0.10)) * canvas.lines([(blade, 0.09, 1.0)], blur=0.012)
        if rng.random() < 0.4:
            x, y = s * rng.uniform(0.38, 0.60), rng.uniform(0.05, 0.30)
            radius = rng.uniform(0.035, 0.06)
            field = field + np.float32(rng.uniform(0.05, 0.14)) * canvas.blob(x, y, radius, radius, 0, 2.5)
    left = np.float32(SCATTER.draw(rng))
    mean = field.mean()
    return np.maximum(mean + left * (field - mean), 0)


def _fold(canvas: Canvas, rng: np.random.Generator) -> Field:
    """A skin fold over one lung, 0 to 1: sharp at its edge, fading away from it."""
    s = rng.choice((-1.0, 1.0))
    x = s * rng.uniform(0.30, 0.70)
    edge = curve([(x + rng.normal(0, 0.10), -0.9), (x + rng.normal(0, 0.06), -0.3), (x + rng.normal(0, 0.10), 0.4)])
    back = edge[::-1] + (s * rng.uniform(0.15, 0.3), 0.0)
    inside = canvas.fill(np.concatenate([edge, back]), blur=0.006)
    return inside * canvas.blurred(inside, 0.06)


def _rng(body: Body, purpose: int) -> np.random.Generator:
    return np.random.default_rng([body.tree_seed, 1000 + purpose])
