"""Turns NNX modules into pure functions over nested dicts of arrays, for `jax.jit` and `jax.grad`."""

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

    Attributes:
        abstract_params, abstract_stats: nested dicts of shapes and dtypes.

    Args:
        build: builds the module from an `nnx.Rngs`.
    """

    def __init__(self, build: Callable[[nnx.Rngs], M]):
        self._build = build
        self._graph, params, stats = nnx.split(
            nnx.eval_shape(lambda: build(nnx.Rngs(params=0))), nnx.Param, nnx.BatchStat
        )
        self.abstract_params: Tree = nnx.to_pure_dict(params)
        self.abstract_stats: Tree = nnx.to_pure_dict(stats)

    def init(self, key: jax.Array) -> tuple[Tree, Tree]:
        """Random float32 parameters and initial batch statistics, as nested dicts. Can be jitted."""
        _, params, stats = nnx.split(self._build(nnx.Rngs(params=key)), nnx.Param, nnx.BatchStat)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def bind(self, params: Tree, stats: Tree) -> M:
        """The module over these arrays. Calling it changes only its batch statistics, which `stats_of` returns."""
        # A statistic that is a numpy array would be updated in place, in the caller's tree.
        return nnx.merge(self._graph, *(jax.tree.map(jnp.asarray, tree) for tree in (params, stats)))

    @staticmethod
    def stats_of(module: nnx.Module) -> Tree:
        """The batch statistics of a bound module after its calls."""
        return nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
