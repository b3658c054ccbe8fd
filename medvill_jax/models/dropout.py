"""Dropout with explicit PRNG keys; None instead of a key means evaluation.

A cryptographic generator for every number would cost more than all else that the vector units of a TPU do in a step. So
JAX's own draws two words for each row, and a hash of the two and of the column decides about each number of the row.
Like the words it depends on nothing but the key and the place, so it is the same on every mesh; and it is cheap enough
to be computed again for the gradient, for which only the words are kept.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# A step of 2**32 over the golden ratio, and the multipliers of MurmurHash3's last step (Appleby, public domain).
GOLDEN, MULTIPLIERS = 0x9E3779B9, (0x85EBCA6B, 0xC2B2AE35)

Words = tuple[jax.Array, jax.Array]


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout of `[..., C]`; the identity when `key` is None or `rate` is 0."""
    return drop(x, rate, words(key, rate, x.shape[:-1]))


def words(key: jax.Array | None, rate: float, rows: tuple[int, ...]) -> Words | None:
    """Two random words for every row, uint32 `rows`; None when `key` is None or `rate` is 0."""
    if key is None or rate == 0.0:
        return None
    first, second = jax.random.bits(key, (2, *rows), jnp.uint32)
    return first, second


def drop(x: jax.Array, rate: float, of_rows: Words | None) -> jax.Array:
    """`dropout` of `[..., C]` with the words of its rows, or of some of the rows with theirs."""
    return x if of_rows is None else _dropped(rate, x, *of_rows)


def fold(key: jax.Array | None, number: int) -> jax.Array | None:
    """`jax.random.fold_in`; None stays None."""
    return None if key is None else jax.random.fold_in(key, number)


def hashed(first: jax.Array, second: jax.Array, columns: int) -> jax.Array:
    """A uniformly distributed number for every column of every row.

    Args:
        first, second: uint32 `[...]`, random words of each row. One would do but for their number: of the rows of a
            large step many pairs would have words so close that both get the same numbers, some columns apart.
        columns: their number C.

    Returns:
        uint32 `[..., C]`.
    """
    column = jax.lax.iota(jnp.uint32, columns) * jnp.uint32(GOLDEN)
    x = first[..., None] + column
    x = (x ^ (x >> 16)) * jnp.uint32(MULTIPLIERS[0]) ^ second[..., None]
    return (x ^ (x >> 13)) * jnp.uint32(MULTIPLIERS[1])


def _drop(rate: float, x: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    keep = hashed(first, second, x.shape[-1]) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    return jnp.where(keep, x / (1.0 - rate), 0.0).astype(x.dtype)


_dropped = jax.custom_vjp(_drop, nondiff_argnums=(0,))


def _forward(
    rate: float, x: jax.Array, first: jax.Array, second: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _drop(rate, x, first, second), (first, second)


def _backward(rate: float, words: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, None, None]:
    return _drop(rate, gradient, *words), None, None


_dropped.defvjp(_forward, _backward)
