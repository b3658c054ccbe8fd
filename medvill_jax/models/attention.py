"""Scaled dot-product attention (Vaswani et al., 2017): the only place that computes it, so a kernel takes one edit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from medvill_jax import programs
from medvill_jax.models import remat
from medvill_jax.models.dropout import Words, drop, words
from medvill_jax.models.precision import ATTENDED, letters, product, softmax

# Bytes of float32 logits up to which all heads are computed at once: about what the caches of a processor hold.
AT_ONCE = 8 * 2**20

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

    On CPUs heads take turns where logits are large, and compute theirs again for the gradient: so memory holds the
    logits of one head instead of those of all, except where rematerialisation keeps them, and the processor finds them
    in its caches.

    Args:
        queries: `[B, heads, Q, D]`.
        keys, values: `[B, heads, S, D]`.
        mask: additive, broadcastable to `[B, heads, Q, S]`.
        rate: of dropout on the attention probabilities.
        key: PRNG key for dropout, or None.

    Returns:
        `[B, heads, Q, D]`, in the dtype of the queries.
    """
    batch, heads, rows, _ = queries.shape
    mask = jax.lax.expand_dims(mask, range(4 - mask.ndim))
    of_rows = words(key, rate, (batch, heads, rows))
    large = 4 * batch * heads * rows * keys.shape[2] > AT_ONCE
    if not large or programs.platform() != "cpu" or is_watched() or remat.is_off():
        return _attend(queries, keys, values, mask, rate, of_rows)

    @jax.checkpoint  # pyright: ignore[reportPrivateImportUsage]
    def head(of_head: tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, Words | None]) -> jax.Array:
        q, k, v, m, w = of_head
        return _attend(q, k, v, mask[:, 0] if m is None else m, rate, w)

    own_masks = mask if mask.shape[1] > 1 else None
    turns = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (queries, keys, values, own_masks, of_rows))
    return checkpoint_name(jnp.moveaxis(jax.lax.map(head, turns), 0, 1), ATTENDED)


def _attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, rate: float, of_rows: Words | None
) -> jax.Array:
    """`attend` for `[..., Q, D]` and `[..., S, D]`, with the words of dropout of each row of the probabilities."""
    dtype, axes = queries.dtype, letters(queries.ndim - 2)
    logits = checkpoint_name(product(f"{axes}xz,{axes}yz->{axes}xy", queries, keys, dtype), ATTENDED)
    logits = logits / jnp.sqrt(queries.shape[-1]) + mask
    probs = drop(softmax(logits, dtype), rate, of_rows)  # [..., Q, S]
    if (watch := _watch.get()) is not None:
        probs = watch(probs)
    return checkpoint_name(product(f"{axes}xy,{axes}yz->{axes}xz", probs, values, dtype).astype(dtype), ATTENDED)
