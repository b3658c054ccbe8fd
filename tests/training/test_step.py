"""The train step on a tiny linear "task": what is divided by what, and what moves."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medvill_jax.training.sharding import make_mesh, tree_shardings
from medvill_jax.training.step import Objective, init_state, make_step


def init(key: jax.Array) -> tuple[dict, dict]:
    return {"first": {"kernel": jax.random.normal(key, (3, 3))}, "second": {"kernel": jnp.ones((3, 1))}}, {
        "count": jnp.zeros(())
    }


def sums(params: dict, stats: dict, batch: dict, key: jax.Array) -> tuple[dict, dict]:
    error = (batch["x"] @ params["first"]["kernel"] @ params["second"]["kernel"])[:, 0] - batch["y"]
    return {"square": jnp.sum(error**2 * batch["weights"])}, {"count": stats["count"] + 1}


OBJECTIVE = Objective(sums, lambda batch: {"square": jnp.sum(batch["weights"])}, {"square": 1.0})
RNG = np.random.default_rng(0)
BATCH = {
    "x": RNG.normal(size=(8, 3)).astype(np.float32),
    "y": RNG.normal(size=8).astype(np.float32),
    "weights": np.array([1, 1, 0, 1, 1, 1, 0, 0], np.float32),
}


def step_of(state: dict, frozen: frozenset[str], accumulate: int = 1, objective: Objective = OBJECTIVE) -> Callable:
    shardings = tree_shardings(make_mesh(), state["params"])
    return make_step(objective, optax.sgd(0.1), shardings=shardings, frozen=frozen, accumulate=accumulate, seed=0)


def step_once(accumulate: int = 1, frozen: frozenset[str] = frozenset()) -> tuple[dict, dict, dict]:
    optimizer = optax.sgd(0.1)
    state = init_state(init, optimizer, frozen, 0)
    new, figures = jax.jit(step_of(state, frozen, accumulate))(state, BATCH)
    return state, new, figures


def test_the_loss_is_the_mean_over_weights() -> None:
    state, _, figures = step_once()
    params = jax.device_get(state["params"])
    error = (BATCH["x"] @ params["first"]["kernel"] @ params["second"]["kernel"])[:, 0] - BATCH["y"]
    expected = (error**2 * BATCH["weights"]).sum() / 5
    assert float(figures["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_microbatches_change_nothing(accumulate: int) -> None:
    _, whole, figures = step_once()
    _, parts, part_figures = step_once(accumulate)
    assert float(part_figures["loss"]) == pytest.approx(float(figures["loss"]), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole["params"], parts["params"])
    assert float(parts["stats"]["count"]) == accumulate


@pytest.mark.parametrize("accumulate", [1, 4])
def test_every_step_and_every_microbatch_draws_anew(accumulate: int) -> None:
    draws = 3 * accumulate

    def noted(params: dict, stats: dict, batch: dict, key: jax.Array) -> tuple[dict, dict]:
        found, _ = sums(params, {"count": 0}, batch, key)
        return found, {"drawn": jnp.roll(stats["drawn"], 1).at[0].set(jax.random.uniform(key))}

    state = init_state(lambda key: (init(key)[0], {"drawn": jnp.zeros(draws)}), optax.sgd(0.1), frozenset(), 0)
    objective = Objective(noted, OBJECTIVE.weights, OBJECTIVE.coefficients)
    step = jax.jit(step_of(state, frozenset(), accumulate, objective))
    for _ in range(3):
        state, _ = step(state, BATCH)
    assert len(set(state["stats"]["drawn"].tolist())) == draws


def test_frozen_parameters_stay_and_are_not_differentiated() -> None:
    frozen = frozenset({"first/kernel"})
    state, new, _ = step_once(frozen=frozen)
    np.testing.assert_array_equal(new["params"]["first"]["kernel"], state["params"]["first"]["kernel"])
    assert (new["params"]["second"]["kernel"] != state["params"]["second"]["kernel"]).all()
    optimizer = optax.sgd(0.1)

    def matmuls(names: frozenset[str]) -> int:
        state = init_state(init, optimizer, names, 0)
        return str(jax.make_jaxpr(step_of(state, names))(state, BATCH)).count("dot_general")

    assert matmuls(frozen) == matmuls(frozenset()) - 2
