import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medvill_jax.errors import ConfigError
from medvill_jax.training.optimizer import OptimizerConfig, adamw, schedule
from medvill_jax.training.policy import frozen_names, resolve
from medvill_jax.trees import tree_names

PARAMS = {
    "layer": {
        0: {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)},
        1: {"kernel": jnp.ones((2, 2))},
    }
}


def one_update(config: OptimizerConfig, grads: dict) -> dict:
    optimizer = adamw(config, 10, tree_names(PARAMS))
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    return updates


def test_first_match_wins_and_all_is_covered() -> None:
    names = ["a/kernel", "a/bias", "b/bias"]
    assert resolve([(r"a/.*", 1), (r".*bias", 2)], names) == {"a/kernel": 1, "a/bias": 1, "b/bias": 2}
    with pytest.raises(ConfigError, match="no rule covers: a/kernel, b/bias"):
        resolve([(r"a/bias", 1)], names)
    with pytest.raises(ConfigError, match="not a valid regular expression"):
        resolve([(r"(", 1)], names)


def test_a_freeze_rule_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'image/\.\*' matches no parameter"):
        frozen_names([r"image/.*"], ["layer/0/kernel"])


def test_decay_spares_biases_and_scales_and_rates_multiply() -> None:
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    updates = one_update(OptimizerConfig(0.1, weight_decay=0.5), zero)["layer"]
    np.testing.assert_allclose(updates[0]["kernel"], -0.05)
    np.testing.assert_allclose(updates[0]["bias"], 0.0)
    np.testing.assert_allclose(updates[0]["scale"], 0.0)
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    slow = OptimizerConfig(0.1, eps=0.0, rate_policy=((r"layer/1/.*", 0.1), (r".*", 1.0)))
    updates = one_update(slow, ones)["layer"]
    np.testing.assert_allclose(updates[0]["kernel"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(updates[1]["kernel"], -0.01, rtol=1e-5)


@pytest.mark.parametrize(("given", "seen"), [(3.0, 1.0), (0.5, 0.5)])
def test_adam_sees_gradients_of_at_most_the_clipped_norm(given: float, seen: float) -> None:
    size = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    config = OptimizerConfig(0.1, eps=1.0, clip_norm=math.sqrt(size))
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, given), PARAMS)
    # Adam's first update is g / (|g| + eps).
    for update in jax.tree.leaves(one_update(config, grads)):
        np.testing.assert_allclose(update, -0.1 * seen / (seen + 1), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "rates"), [("constant", (0, 0.5, 1, 1)), ("linear", (0, 0.5, 1, 0)), ("cosine", (0, 0.5, 1, 0))]
)
def test_schedules(name: str, rates: tuple[float, ...]) -> None:
    rate = schedule(OptimizerConfig(1.0, schedule=name, warmup_steps=10), 100)
    assert [float(rate(step)) for step in (0, 5, 10, 100)] == pytest.approx(rates, abs=1e-6)


def test_unknown_schedule_is_an_error() -> None:
    with pytest.raises(ConfigError, match="unknown schedule 'step'"):
        schedule(OptimizerConfig(1.0, schedule="step"), 10)
