"""Losses and counts as sums over examples; whoever calls divides once, by a weight summed over the whole batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cross_entropy_sum(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted sum of softmax cross entropies in nats.

    Args:
        logits: float32 `[..., C]`.
        labels: int `[...]`.
        weights: float32 `[...]`.

    Returns:
        float32 scalar.
    """
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jnp.sum((jax.nn.logsumexp(logits, axis=-1) - chosen) * weights)


def correct_sum(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted count of the places where the arg-max is the label; shapes as in `cross_entropy_sum`."""
    return jnp.sum((jnp.argmax(logits, axis=-1) == labels) * weights)
