"""The train step: a pure function `(state, batch) -> (state, metrics)`, jitted with explicit shardings and donation.

A task provides the loss as *sums*, and separately the weights to divide them by. The weights are computed from the
whole global batch before any microbatch, so the result does not depend on how the batch is split into microbatches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medvill_jax import programs
from medvill_jax.batch import AbstractBatch, Batch
from medvill_jax.training import sharding
from medvill_jax.trees import Tree, merge, select, tree_names

# (params, stats, batch, key) -> (sums by name, new stats); the loss terms are among the sums.
SumsFn = Callable[[Tree, Tree, Batch, jax.Array], tuple[dict[str, jax.Array], Tree]]
# batch -> the weight of each sum.
WeightsFn = Callable[[Batch], dict[str, jax.Array]]


@dataclass(frozen=True)
class Objective:
    """What a task minimises.

    Attributes:
        sums: computes differentiable sums over a batch or microbatch, and the new batch statistics.
        weights: computes the divisor of each sum from the whole batch; the same names as `sums`.
        coefficients: the loss is the sum of coefficient * sum / weight over these names; other sums are metrics only.
    """

    sums: SumsFn
    weights: WeightsFn
    coefficients: Mapping[str, float]

    def divisors(self, batch: Batch) -> dict[str, jax.Array]:
        """The weights of a whole batch, so that a sum over nothing has a mean of zero."""
        return jax.tree.map(lambda weight: jnp.maximum(weight, 1e-9), self.weights(batch))

    def loss(
        self, moving: Tree, fixed: Tree, stats: Tree, part: Batch, divisors: dict[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Tree]]:
        """The part of the loss that comes from a microbatch.

        Args:
            moving: the parameters to differentiate by.
            fixed: the others.
            stats: batch statistics.
            part: a microbatch, or the batch.
            divisors: of the batch.
            key: of this microbatch.

        Returns:
            The loss, and with it the means of all sums and the new statistics.
        """
        sums, stats = self.sums(merge(moving, fixed), stats, part, key)
        means = {name: sums[name] / divisors[name] for name in sums}
        loss = sum((by * means[name] for name, by in self.coefficients.items()), start=jnp.zeros(()))
        return loss, (means | {"loss": loss}, stats)


def init_state(
    init: Callable[[jax.Array], tuple[Tree, Tree]], optimizer: Any, frozen: frozenset[str], seed: int
) -> Tree:
    """Fresh training state: `params`, `stats`, `opt` (of the trained parameters), `step` int32 `[]`. Can be jitted."""
    params, stats = init(jax.random.key(seed))
    return {
        "params": params,
        "stats": stats,
        "opt": optimizer.init(trainable(params, frozen)),
        "step": jnp.zeros((), jnp.int32),
    }


def trainable(params: Tree, frozen: frozenset[str]) -> Tree:
    """The parameters that are not frozen."""
    return select(params, frozenset(jax.tree.leaves(tree_names(params))) - frozen)


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    shardings: Tree,
    frozen: frozenset[str],
    accumulate: int,
    seed: int,
) -> Callable[[Tree, Batch], tuple[Tree, dict[str, jax.Array]]]:
    """The step function, not yet jitted.

    Randomness comes from `fold_in(key(seed), step)`. Frozen parameters are constants of the differentiation, so no
    layer below the first trainable one is differentiated. Sharded parameters are gathered once, before the first
    microbatch, and the gradients of every microbatch are summed into the same shards; in between, each device computes
    with its rows only.

    Args:
        objective: see `Objective`.
        optimizer: over the trainable parameters.
        shardings: `NamedSharding`s of all parameters.
        frozen: names of the parameters that do not train.
        accumulate: microbatches per step; 1 does not split the batch. The gradient is that of the whole batch if the
            loss is a sum over examples. BatchNorm's statistics and in-batch negatives come from one microbatch, and
            random samples (dropout, cells) differ from those of the whole batch.
        seed: of dropout, cell sampling and mixed masks.

    Returns:
        `step(state, batch) -> (state, metrics)`; metrics are float32 `[]`: the mean of every sum, `loss`, `grad_norm`.
    """

    def step(state: Tree, batch: Batch) -> tuple[Tree, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state["step"])
        params = sharding.whole(state["params"], shardings)
        moving, fixed = trainable(params, frozen), select(params, frozen)
        divisors = objective.divisors(batch)

        def gradient(moving: Tree, stats: Tree, part: Batch, key: jax.Array) -> tuple[Tree, tuple[dict, Tree]]:
            grads, rest = jax.grad(objective.loss, has_aux=True)(moving, fixed, stats, part, divisors, key)
            return jax.lax.with_sharding_constraint(grads, trainable(shardings, frozen)), rest

        if accumulate == 1:
            grads, (means, stats) = gradient(moving, state["stats"], batch, key)
        else:

            def body(carry: tuple, part_and_index: tuple) -> tuple[tuple, None]:
                part, index = part_and_index
                grads, means, stats = carry
                part_grads, (part_means, stats) = gradient(moving, stats, part, jax.random.fold_in(key, index))
                total = jax.tree.map(jnp.add, (grads, means), (part_grads, part_means))
                return (*total, stats), None

            # A microbatch is every accumulate-th row, so that no row has to move to another device.
            parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), dict(batch))
            part = jax.tree.map(lambda x: x[0], parts)
            shapes = jax.eval_shape(gradient, moving, state["stats"], part, key)
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[0], shapes[1][0]))
            (grads, means, stats), _ = jax.lax.scan(body, (*zeros, state["stats"]), (parts, jnp.arange(accumulate)))
        trained = trainable(state["params"], frozen)
        with jax.named_scope("optimizer"):
            updates, opt = optimizer.update(grads, state["opt"], trained)
            trained = optax.apply_updates(trained, updates)
        new = {
            "params": merge(trained, select(state["params"], frozen)),
            "stats": stats,
            "opt": opt,
            "step": state["step"] + 1,
        }
        return new, means | {"grad_norm": optax.tree.norm(grads)}

    return step


def compile_step(step: Callable, state_shardings: Any, spec: AbstractBatch, mesh: jax.sharding.Mesh, dtype: str) -> Any:
    """`step`, compiled: batches are split over all devices, the old state is donated, metrics are replicated."""
    rows = jax.tree.map(lambda _: sharding.batch_sharding(mesh), spec)
    return programs.jit(
        step,
        dtype=dtype,
        platform=mesh.devices.flat[0].platform,
        in_shardings=(state_shardings, rows),
        out_shardings=(state_shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )
