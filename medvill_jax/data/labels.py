"""From labels to targets: what an uncertain and an unmentioned finding count as (Irvin et al. 2019).

See docs/spec.md#labels.
"""

from __future__ import annotations

import numpy as np

from medvill_jax.errors import ConfigError
from medvill_jax.findings import ABSENT, NEGATIVE, POSITIVE, UNCERTAIN

# Policy -> (target, weight).
UNCERTAIN_POLICIES = {"positive": (1.0, 1.0), "negative": (0.0, 1.0), "soft": (0.5, 1.0), "ignore": (0.0, 0.0)}
ABSENT_POLICIES = {"negative": (0.0, 1.0), "ignore": (0.0, 0.0)}


def targets(labels: np.ndarray, *, uncertain: str, absent: str) -> tuple[np.ndarray, np.ndarray]:
    """What each label asks of a classifier, and whether it asks anything.

    Args:
        labels: int8 `[n, C]`: 1, 0, -1 uncertain, -2 not mentioned.
        uncertain: of `UNCERTAIN_POLICIES`; "soft" is a target of one half.
        absent: of `ABSENT_POLICIES`, for labels that are not mentioned.

    Returns:
        Targets float32 `[n, C]` in 0..1, and weights float32 `[n, C]`, 0 where the label is masked out.

    Raises:
        ConfigError: unknown policy.
    """
    for name, value, known in (
        ("uncertain", uncertain, UNCERTAIN_POLICIES),
        ("absent", absent, ABSENT_POLICIES),
    ):
        if value not in known:
            raise ConfigError(f"labels.{name}={value!r}; there are {', '.join(known)}")
    table = {
        POSITIVE: (1.0, 1.0),
        NEGATIVE: (0.0, 1.0),
        UNCERTAIN: UNCERTAIN_POLICIES[uncertain],
        ABSENT: ABSENT_POLICIES[absent],
    }
    target, weight = np.zeros(labels.shape, np.float32), np.zeros(labels.shape, np.float32)
    for value, (asked, counts) in table.items():
        target[labels == value], weight[labels == value] = asked, counts
    return target, weight


def positive_weights(targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Negatives per positive of each class, float32 `[C]`, by which their term weighs more.

    1 for a class that has no positive or no negative. Arguments as `targets` returns them. See
    docs/spec.md#classification.
    """
    positive, negative = (targets * weights).sum(0), ((1 - targets) * weights).sum(0)
    both = (positive > 0) & (negative > 0)
    return np.where(both, negative / np.maximum(positive, 1e-6), 1.0).astype(np.float32)


def label_groups(labels: np.ndarray) -> np.ndarray:
    """int32 `[n]`: the same number for the same set of positive findings, from labels int8 `[n, C]`."""
    return np.unique(labels == POSITIVE, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)
