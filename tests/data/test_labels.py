"""What labels ask of a classifier, and which records are alike."""

import numpy as np
import pytest

from medvill_jax.data.labels import label_groups, positive_weights, targets
from medvill_jax.errors import ConfigError

LABELS = np.array([[1, 0], [-1, -2]], np.int8)


@pytest.mark.parametrize(
    ("uncertain", "absent", "target", "weight"),
    [
        ("ignore", "negative", [[1, 0], [0, 0]], [[1, 1], [0, 1]]),
        ("positive", "negative", [[1, 0], [1, 0]], [[1, 1], [1, 1]]),
        ("negative", "ignore", [[1, 0], [0, 0]], [[1, 1], [1, 0]]),
        ("soft", "ignore", [[1, 0], [0.5, 0]], [[1, 1], [1, 0]]),
    ],
)
def test_policies(uncertain: str, absent: str, target: list, weight: list) -> None:
    found = targets(LABELS, uncertain=uncertain, absent=absent)
    np.testing.assert_array_equal(found[0], target)
    np.testing.assert_array_equal(found[1], weight)


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(ConfigError, match=r"labels\.uncertain='perhaps'; there are positive"):
        targets(LABELS, uncertain="perhaps", absent="negative")
    with pytest.raises(ConfigError, match=r"labels\.absent='no'; there are negative, ignore"):
        targets(LABELS, uncertain="ignore", absent="no")


def test_positive_weights_balance_each_class() -> None:
    given = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]], np.float32)
    weights = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1]], np.float32)
    # Masked labels do not count; a class with one side only keeps weight 1.
    np.testing.assert_allclose(positive_weights(given, weights), [2, 1, 1])


def test_label_sets_are_their_positive_findings() -> None:
    labels = np.array([[1, 0, -2], [1, -1, 0], [1, 1, 0], [-2, -2, -2]], np.int8)
    groups = label_groups(labels)
    assert groups[0] == groups[1]
    assert len(np.unique(groups)) == 3
