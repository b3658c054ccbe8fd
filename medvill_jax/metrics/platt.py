"""Probabilities from scores by a logistic curve (Platt 1999), and how well the scores rank at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvill_jax.metrics import bootstrap
from medvill_jax.metrics.classification import auroc

_STEPS = 100


@dataclass(frozen=True)
class Curve:
    """A calibration of scores.

    Attributes:
        slope, intercept: the log-odds of a score s are `slope * s + intercept`; both 0 if nothing could be fitted.
        auroc: of the scores; None without a right and a wrong example.
        auroc_ci95: low and high, by resampling clusters; None likewise.
        examples, right: how many it was fitted to, and how many of these were right.
    """

    slope: float
    intercept: float
    auroc: float | None
    auroc_ci95: tuple[float, float] | None
    examples: int
    right: int

    @property
    def tells(self) -> bool:
        """Whether the scores rank right examples above wrong ones: the interval of the AUROC lies above 0.5."""
        return self.auroc_ci95 is not None and self.auroc_ci95[0] > 0.5

    def probability(self, score: float) -> float:
        """The probability that an example of this score is right."""
        return float(0.5 * (1 + np.tanh(0.5 * (self.slope * score + self.intercept))))


def fit(scores: np.ndarray, right: np.ndarray, *, clusters: bootstrap.Clusters = None, seed: int = 0) -> Curve:
    """Fits the curve by maximum likelihood, with Platt's targets, under which no data are separable.

    Args:
        scores: float `[n]`.
        right: bool `[n]`.
        clusters: an identifier for each example; those with the same are resampled together.
        seed: of the resampling.

    Raises:
        ValueError: lengths that differ.
    """
    scores, right = np.asarray(scores, np.float64), np.asarray(right, bool)
    if scores.shape != right.shape or scores.ndim != 1:
        raise ValueError(f"scores {scores.shape} and right {right.shape} are to be of one length")
    good = int(right.sum())
    if not 0 < good < len(right):
        return Curve(0.0, 0.0, None, None, len(right), good)
    numbers = bootstrap.numbered(clusters, len(right))
    interval = bootstrap.interval_of_weights(
        lambda drawn: np.asarray(auroc(scores, right, drawn[:, numbers])).reshape(-1, 1),
        int(numbers.max()) + 1,
        seed=seed,
    )
    low, high = interval[:, 0].tolist()
    slope, intercept = _newton(scores, right)
    return Curve(slope, intercept, float(auroc(scores, right)), (low, high), len(right), good)


def _newton(scores: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the logistic curve through scores, of which some are right and some are not."""
    good, bad = right.sum(), (~right).sum()
    targets = np.where(right, (good + 1) / (good + 2), 1 / (bad + 2))
    center, scale = scores.mean(), scores.std() or 1.0
    columns = np.stack([(scores - center) / scale, np.ones(len(scores))], 1)  # [n, 2]

    def loss(weights: np.ndarray) -> float:
        logits = columns @ weights
        return float(np.sum(np.logaddexp(0, logits) - targets * logits))

    weights = np.zeros(2)
    for _ in range(_STEPS):
        found = 0.5 * (1 + np.tanh(0.5 * (columns @ weights)))
        gradient = columns.T @ (found - targets)
        curvature = (columns * (found * (1 - found))[:, None]).T @ columns + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        # Halved until it descends: far from the optimum a whole step may overshoot.
        size = next((size for size in 0.5 ** np.arange(30) if loss(weights - size * step) <= loss(weights)), 0.0)
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    return float(weights[0] / scale), float(weights[1] - weights[0] * center / scale)
