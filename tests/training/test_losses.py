"""Weighted sums of losses against torch, and of right answers by hand."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from medvill_jax.training.losses import binary_cross_entropy, correct_sum, cross_entropy_sum

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 5, (4, 6, 9)).astype(np.float32)
LABELS = RNG.integers(0, 9, (4, 6))
WEIGHTS = RNG.choice([0.0, 0.5, 1.0], (4, 6)).astype(np.float32)


def test_cross_entropy_equals_torch() -> None:
    each = functional.cross_entropy(torch.from_numpy(LOGITS).movedim(-1, 1), torch.from_numpy(LABELS), reduction="none")
    ours = cross_entropy_sum(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(WEIGHTS))
    assert float(ours) == pytest.approx(float((each * torch.from_numpy(WEIGHTS)).sum()), rel=1e-5)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_binary_cross_entropy_equals_torch(array: Callable) -> None:
    logits = np.array([-200.0, -3.0, -0.5, 0.0, 0.5, 3.0, 200.0], np.float32)[:, None]
    logits, targets = np.broadcast_arrays(logits, np.array([0.0, 0.3, 1.0], np.float32))
    theirs = functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits.copy()), torch.from_numpy(targets.copy()), reduction="none"
    )
    ours = binary_cross_entropy(array(logits), array(targets))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_a_positive_weight_is_that_of_the_positive_term(array: Callable) -> None:
    logits = np.array([-30.0, -2.0, 0.0, 0.7, 30.0], np.float32)[:, None]
    logits, targets = np.broadcast_arrays(logits, np.array([0.0, 0.5, 1.0], np.float32))
    weights = np.array([3.0, 4.0, 0.5], np.float32)
    theirs = functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits.copy()),
        torch.from_numpy(targets.copy()),
        reduction="none",
        pos_weight=torch.from_numpy(weights),
    )
    ours = binary_cross_entropy(array(logits), array(targets), weights)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-7)
    # At a logit of 0 either term is log 2, so a target of one half with weight 4 costs (4 + 1) / 2 of it.
    assert ours[2, 1] == pytest.approx(2.5 * np.log(2), rel=1e-6)


def test_right_answers_count_their_weights() -> None:
    logits = jnp.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert float(correct_sum(logits, jnp.array([1, 0, 0, 0]), jnp.array([0.5, 1.0, 1.0, 0.0]))) == 1.5
