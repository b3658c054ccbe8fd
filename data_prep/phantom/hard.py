"""What makes films hard to read: small and faint findings, shadows that mean nothing, uneven exposure, noise.

A `standard` film shows every finding plainly. Over a `hard` one the same patient's healthy chest is laid, so that a
part of what a finding changes is left, and shadows that have nothing to do with findings are added.
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
    """A uniform draw between two bounds."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """One number."""
        return float(rng.uniform(self.low, self.high))


# Chance that a finding is one size smaller than it would have been.
SMALLER_CHANCE = 0.6
# Share of what a finding changes in the film that is left.
CONTRAST = Range(0.30, 0.70)
# Share of the film's own contrast that scattered radiation leaves.
SCATTER = Range(0.60, 0.95)
GAMMA, GAIN, OFFSET = Range(0.75, 1.70), Range(0.68, 1.15), Range(-0.05, 0.10)
NOISE = Range(0.02, 0.06)
# Brightness of soft tissue that overlaps, coarse and fine.
COARSE, FINE = Range(0.02, 0.06), Range(0.01, 0.03)


def check(difficulty: str) -> None:
    """`DataError` if there is no such difficulty."""
    if difficulty not in DIFFICULTIES:
        raise DataError(f"phantom difficulty {difficulty!r}: there are {', '.join(DIFFICULTIES)}")


def smaller(study: Study, rng: np.random.Generator) -> Study:
    """The study with most of its findings one size smaller; which ones there are stays the same."""
    signs = tuple(
        replace(sign, severity=_SMALLER[sign.severity]) if rng.random() < SMALLER_CHANCE else sign
        for sign in study.signs
    )
    return replace(study, signs=signs)


def exposed(body: Body) -> Body:
    """The body on a badly exposed film."""
    rng = _rng(body, 0)
    return replace(body, gamma=GAMMA.draw(rng), gain=GAIN.draw(rng), offset=OFFSET.draw(rng), noise=NOISE.draw(rng))


def veiled(canvas: Canvas, body: Body, field: Field, healthy: Field) -> Field:
    """A film on which findings are faint, under shadows that mean nothing.

    Args:
        canvas, body: of the film.
        field: brightness `[rows, columns]` with the findings.
        healthy: the same without them.
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
    """A fold of skin: an edge across one lung, bright on one side and fading away from it, 0 to 1."""
    s = rng.choice((-1.0, 1.0))
    x = s * rng.uniform(0.30, 0.70)
    edge = curve([(x + rng.normal(0, 0.10), -0.9), (x + rng.normal(0, 0.06), -0.3), (x + rng.normal(0, 0.10), 0.4)])
    back = edge[::-1] + (s * rng.uniform(0.15, 0.3), 0.0)
    inside = canvas.fill(np.concatenate([edge, back]), blur=0.006)
    return inside * canvas.blurred(inside, 0.06)


def _rng(body: Body, purpose: int) -> np.random.Generator:
    return np.random.default_rng([body.tree_seed, 1000 + purpose])
