"""Losses and counts as weighted sums; the caller divides them once, by a weight summed over the whole batch.

See docs/spec.md#loss.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def cross_entropy_sum(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted sum of softmax cross entropies in nats.

    Args:
        logits: float32 `[..., C]`.
        labels: int `[...]`.
        weights: float32 `[...]`.

    Returns:
        float32 scalar.
    """
    return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits, labels) * weights)


def binary_cross_entropy(logits: Any, targets: Any, positive_weight: Any = 1.0) -> Any:
    """Binary cross entropies in nats, `[...]`, of logits against targets in 0..1; arrays of JAX or of numpy.

    `positive_weight` w broadcasts and scales the positive term only: w t (-log p) + (1 - t) (-log(1 - p)).
    """
    # optax's function takes neither numpy arrays nor a weight of the positive term, and its gradient rounds otherwise.
    xp = jnp if isinstance(logits, jax.Array) else np
    tail = xp.log1p(xp.exp(-xp.abs(logits)))
    positive, negative = xp.maximum(-logits, 0.0) + tail, xp.maximum(logits, 0.0) + tail
    return positive_weight * targets * positive + (1.0 - targets) * negative


def soft_dice(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The soft Dice loss of each row (Milletari et al., 3DV 2016), float32 `[B]` in 0..1.

    1 - (2 sum(p t) + 1) / (sum(p^2) + sum(t^2) + 1) over the N places; the ones keep it defined without target.

    Args:
        logits: float32 `[B, N]`, of which p is the sigmoid.
        targets: float32 `[B, N]`, t in 0..1.
    """
    p = jax.nn.sigmoid(logits)
    both = 2.0 * jnp.sum(p * targets, axis=-1) + 1.0
    return 1.0 - both / (jnp.sum(p * p, axis=-1) + jnp.sum(targets * targets, axis=-1) + 1.0)


def correct_sum(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted count of positions where the arg-max is the label; arguments as in `cross_entropy_sum`."""
    return jnp.sum((jnp.argmax(logits, axis=-1) == labels) * weights)
