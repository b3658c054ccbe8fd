"""The shell around NNX: modules inside, plain nested dicts of arrays outside.

`Functional` turns a module into pure functions for `jax.jit` and `jax.grad`; nothing outside `models/` touches NNX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from medvill_jax.trees import Tree

M = TypeVar("M", bound=nnx.Module)


class Functional(Generic[M]):
    """A module's structure without its arrays.

    Args:
        build: makes the module from an `nnx.Rngs`.
    """

    def __init__(self, build: Callable[[nnx.Rngs], M]):
        self._build = build
        self._graph, params, stats = nnx.split(
            nnx.eval_shape(lambda: build(nnx.Rngs(params=0))), nnx.Param, nnx.BatchStat
        )
        self.abstract_params: Tree = nnx.to_pure_dict(params)
        self.abstract_stats: Tree = nnx.to_pure_dict(stats)

    def init(self, key: jax.Array) -> tuple[Tree, Tree]:
        """Fresh float32 parameters and batch statistics, as nested dicts. Can be jitted."""
        _, params, stats = nnx.split(self._build(nnx.Rngs(params=key)), nnx.Param, nnx.BatchStat)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def bind(self, params: Tree, stats: Tree) -> M:
        """The module over these arrays; calling it is pure but for the batch statistics, read by `stats_of`."""
        # A statistic held as a numpy array would be updated in place, in the caller's own tree.
        return nnx.merge(self._graph, *(jax.tree.map(jnp.asarray, tree) for tree in (params, stats)))

    @staticmethod
    def stats_of(module: nnx.Module) -> Tree:
        """The batch statistics of a bound module after its calls."""
        return nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
