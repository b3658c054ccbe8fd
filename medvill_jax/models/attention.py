"""Scaled dot-product attention (Vaswani et al., 2017): the only place that computes it, so a kernel takes one edit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from medvill_jax.models.dropout import dropout
from medvill_jax.models.precision import ATTENDED, product, softmax

Watch = Callable[[jax.Array], jax.Array]
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """A block in which `watch` sees the probabilities `[B, heads, Q, S]` of every call, and may replace them.

    It acts while a program is traced: a program that is traced outside of such a block has no trace of it.
    """
    before = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(before)


def is_watched() -> bool:
    """Whether this is inside of such a block."""
    return _watch.get() is not None


def attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, rate: float, key: jax.Array | None
) -> jax.Array:
    """The values, averaged with the softmax of the masked logits; the softmax runs in float32.

    Args:
        queries: `[B, heads, Q, D]`.
        keys, values: `[B, heads, S, D]`.
        mask: additive, broadcastable to `[B, heads, Q, S]`.
        rate: of dropout on the attention probabilities.
        key: PRNG key for dropout, or None.

    Returns:
        `[B, heads, Q, D]`, in the dtype of the queries.
    """
    dtype = queries.dtype
    logits = checkpoint_name(product("bhqd,bhkd->bhqk", queries, keys, dtype), ATTENDED)
    logits = logits / jnp.sqrt(queries.shape[-1]) + mask
    probs = dropout(softmax(logits, dtype), rate, key)  # [B, heads, Q, S]
    if (watch := _watch.get()) is not None:
        probs = watch(probs)
    return checkpoint_name(product("bhqk,bhkd->bhqd", probs, values, dtype).astype(dtype), ATTENDED)
