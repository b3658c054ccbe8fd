"""Probabilities from scores by a logistic curve (Platt 1999), and whether the scores tell right from wrong at all.

Some sentences are right more often than others whatever the film, so a score that never saw a film may rank well. The
control is the score of the same sentence with another film.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.special import expit

from medvill_jax.metrics import bootstrap
from medvill_jax.metrics.classification import auroc

# Clusters, such as patients, that have a right example, and as many that have a wrong one: of fewer the bootstrap makes
# intervals far too narrow.
LEAST = 20


@dataclass(frozen=True)
class Curve:
    """A calibration of scores.

    Attributes:
        slope, intercept: the log-odds of a score s are `slope * s + intercept`; both 0 if nothing could be fitted.
        auroc: of the scores; None without a right and a wrong example.
        auroc_ci95: low and high, by resampling clusters; None likewise.
        control: the AUROC of the control scores; None likewise.
        gain_ci95: low and high of the AUROC less that of the control; None likewise.
        examples, right: how many it was fitted to, and how many of these were right.
        right_clusters, wrong_clusters: how many clusters have a right example, and how many a wrong one.
    """

    slope: float
    intercept: float
    auroc: float | None
    auroc_ci95: tuple[float, float] | None
    control: float | None
    gain_ci95: tuple[float, float] | None
    examples: int
    right: int
    right_clusters: int
    wrong_clusters: int

    @property
    def enough(self) -> bool:
        """Whether there are examples of enough clusters, of either kind, to say whether scores tell anything."""
        return min(self.right_clusters, self.wrong_clusters) >= LEAST

    @property
    def tells(self) -> bool:
        """Whether scores rank right examples above wrong ones, and better than the control: both intervals say so.

        Neither of too few, nor with a curve that falls, as an outlier may make it.
        """
        return (
            self.enough
            and self.slope > 0
            and self.auroc_ci95 is not None
            and self.auroc_ci95[0] > 0.5
            and bool(self.gain_ci95 and self.gain_ci95[0] > 0)
        )

    def probability(self, score: float) -> float:
        """The probability that an example of this score is right."""
        return float(expit(self.slope * score + self.intercept))


def fit(
    scores: np.ndarray,
    right: np.ndarray,
    control: np.ndarray,
    *,
    clusters: bootstrap.Clusters = None,
    seed: int = 0,
) -> Curve:
    """Fits the curve by maximum likelihood, with Platt's targets, under which no data are separable.

    Args:
        scores: float `[n]`.
        right: bool `[n]`.
        control: float `[n]`, scores that do not depend on what decides whether an example is right.
        clusters: an identifier for each example; those with the same are resampled together.
        seed: of the resampling.

    Raises:
        ValueError: lengths that differ.
    """
    scores, control, right = np.asarray(scores, float), np.asarray(control, float), np.asarray(right, bool)
    if not scores.shape == right.shape == control.shape or scores.ndim != 1:
        raise ValueError(f"scores {scores.shape}, right {right.shape}, control {control.shape}: give one of each")
    numbers = bootstrap.numbered(clusters, len(right))
    counted = len(right), int(right.sum()), len(np.unique(numbers[right])), len(np.unique(numbers[~right]))
    if right.all() or not right.any():
        return Curve(0.0, 0.0, None, None, None, None, *counted)

    def statistic(drawn: np.ndarray) -> np.ndarray:
        own, other = (np.atleast_1d(auroc(values, right, drawn[:, numbers])) for values in (scores, control))
        return np.stack([own, own - other], 1)

    (low, low_gain), (high, high_gain) = bootstrap.interval_of_weights(
        statistic, int(numbers.max()) + 1, seed=seed
    ).tolist()
    return Curve(
        *_likeliest(scores, right),
        float(auroc(scores, right)),
        (low, high),
        float(auroc(control, right)),
        (low_gain, high_gain),
        *counted,
    )


def _likeliest(scores: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the logistic curve through scores, of which some are right and some are not."""
    good, bad = right.sum(), (~right).sum()
    targets = np.where(right, (good + 1) / (good + 2), 1 / (bad + 2))
    center, scale = scores.mean(), scores.std() or 1.0
    columns = np.stack([(scores - center) / scale, np.ones(len(scores))], 1)  # [n, 2]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        """The cross entropy, and its gradient."""
        logits = columns @ weights
        return float(np.sum(np.logaddexp(0, logits) - targets * logits)), columns.T @ (expit(logits) - targets)

    slope, intercept = optimize.minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    return float(slope / scale), float(intercept - slope * center / scale)
