"""The pre-training network as pure functions, and the names and shapes of its arrays."""

from __future__ import annotations

import functools

import jax.numpy as jnp

from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import Medvill, MedvillConfig
from medvill_jax.trees import flatten


@functools.lru_cache(maxsize=4)
def functional(config: MedvillConfig, dtype: str = "float32") -> Functional[Medvill]:
    """The pre-training network of a configuration as pure functions; cached."""
    return Functional(lambda rngs: Medvill(config, dtype=jnp.dtype(dtype), rngs=rngs))


def expected(config: MedvillConfig) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes by name of all parameters and of all batch statistics; all are float32."""
    model = functional(config, "float32")  # as callers spell it, or the cache would hold the same network twice
    params, stats = (
        {name: tuple(leaf.shape) for name, leaf in flatten(tree).items()}
        for tree in (
            model.abstract_params,
            model.abstract_stats,
        )
    )
    return params, stats
