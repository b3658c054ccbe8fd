"""Dropout with explicit PRNG keys; None instead of a key means evaluation."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout; the identity when `key` is None or `rate` is 0."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)


def fold(key: jax.Array | None, number: int) -> jax.Array | None:
    """`jax.random.fold_in`; None stays None."""
    return None if key is None else jax.random.fold_in(key, number)
