"""Labels -> targets of a classifier, with policies for uncertain and unmentioned findings (Irvin et al. 2019).

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
    """The target of each label, and its weight in the loss.

    Args:
        labels: int8 `[n, C]`: 1 positive, 0 negative, -1 uncertain, -2 not mentioned.
        uncertain: a key of `UNCERTAIN_POLICIES`; "soft" is a target of one half.
        absent: a key of `ABSENT_POLICIES`, for findings that are not mentioned.

    Returns:
        Targets float32 `[n, C]` in 0..1, and weights float32 `[n, C]`, 0 for labels that are ignored.

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
    for value, (label_target, label_weight) in table.items():
        target[labels == value], weight[labels == value] = label_target, label_weight
    return target, weight


def positive_weights(targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weight of the positive term of each class, float32 `[C]`: its number of negatives per positive.

    It is 1 for a class without positives or without negatives. Arguments are the results of `targets`. See
    docs/spec.md#classification.
    """
    positive, negative = (targets * weights).sum(0), ((1 - targets) * weights).sum(0)
    both = (positive > 0) & (negative > 0)
    return np.where(both, negative / np.maximum(positive, 1e-6), 1.0).astype(np.float32)


def label_groups(labels: np.ndarray) -> np.ndarray:
    """Group number int32 `[n]` of each row of labels int8 `[n, C]`; rows with equal positive findings share one."""
    return np.unique(labels == POSITIVE, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)
