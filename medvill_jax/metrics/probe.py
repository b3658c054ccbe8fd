"""Quality of features without fine-tuning: the AUROC of a linear probe, and the effective rank."""

from __future__ import annotations

import numpy as np

from medvill_jax.metrics.classification import auroc

# Candidates for the ridge penalty, relative to the mean eigenvalue of the features' covariance.
PENALTIES = np.logspace(-3, 3, 13)
# A class needs this many positives and this many negatives, in training and in evaluation.
FEWEST = 3


def effective_rank(features: np.ndarray) -> float:
    """Participation ratio of the covariance's eigenvalues l, (sum l)^2 / sum l^2: 1 to `min(n, d)`.

    Args:
        features: float `[n, d]`.

    Returns:
        NaN if all rows are equal.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    eigenvalues = np.linalg.svd(centred, compute_uv=False) ** 2
    total = eigenvalues.sum()
    return float(total**2 / (eigenvalues**2).sum()) if total > 0 else float("nan")


def linear_auroc(features: np.ndarray, labels: np.ndarray, held_out: np.ndarray, held_out_labels: np.ndarray) -> float:
    """Macro AUROC of a ridge regression on standardised features; leave-one-out error selects the penalty.

    Args:
        features, held_out: float `[n, d]`, `[m, d]`.
        labels, held_out_labels: bool `[n, C]`, `[m, C]`.

    Returns:
        The mean over the classes with `FEWEST` positives and negatives in both sets; NaN if no class has them.
    """
    enough = _enough(labels) & _enough(held_out_labels)
    if not enough.any():
        return float("nan")
    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    varying = deviation > 1e-9 * max(float(deviation.max()), 1e-30)
    x, x_new = ((rows[:, varying] - mean[varying]) / deviation[varying] for rows in (features, held_out))
    y = labels[:, enough].astype(np.float64)
    y = y - y.mean(axis=0)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    uy = u.T @ y
    scores = np.empty((len(x_new), y.shape[1]))
    penalties = PENALTIES * (s**2).mean()
    shrink = s[:, None] ** 2 / (s[:, None] ** 2 + penalties)  # [d, P]
    leverage = u**2 @ shrink + 1 / len(x)  # [n, P]; 1 / n is the leverage of the mean
    for c in range(y.shape[1]):
        errors = (y[:, c, None] - u @ (shrink * uy[:, c, None])) / np.maximum(1 - leverage, 1e-6)
        best = np.argmin((errors**2).mean(axis=0))
        weights = vt.T @ (shrink[:, best] / np.maximum(s, 1e-12) * uy[:, c])
        scores[:, c] = x_new @ weights
    truth = held_out_labels[:, enough]
    return float(np.mean([auroc(scores[:, c], truth[:, c]) for c in range(truth.shape[1])]))


def _enough(labels: np.ndarray) -> np.ndarray:
    positive = labels.sum(axis=0)
    return (positive >= FEWEST) & (len(labels) - positive >= FEWEST)
