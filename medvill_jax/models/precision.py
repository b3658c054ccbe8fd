"""Computing in a narrow type, such as bfloat16: what is multiplied and kept is narrow, what is added up is float32.

A bfloat16 has eight significant bits, so a sum that is kept in one stops growing once its terms are 256 times smaller
than it is. Here products, and the sums over rows that make the gradients of biases and embeddings, are added up in
float32 and rounded once. In float32 all of this computes what Flax's own layers do, to the last bit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

# Names of what policies of rematerialisation keep, see `models.remat`.
WEIGHTED, CONVOLVED, ATTENDED = "weighted", "convolved", "attended"


def product(spec: str, a: jax.Array, b: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """An `einsum` of two arrays in float32, or one of them rounded to `dtype` whose terms are added in float32.

    Args:
        spec: with explicit letters, each in two or all of the three parts, and no letter twice in a part.
        a, b: in any floating type; the gradients are of their types, so that of a float32 weight is never rounded.
        dtype: that both are rounded to, and in the gradient what comes back.

    Returns:
        float32.
    """
    if dtype == jnp.float32:
        return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)
    return _narrow(spec, dtype, a, b)


def letters(axes: int) -> str:
    """So many of the alphabet's first letters, for axes in a `spec` beside those that it names from x on."""
    return "abcdefghijklmnopqrstuvw"[:axes]


def _einsum(spec: str, dtype: jnp.dtype, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


# JAX's own derivative of a product with float32 sums multiplies in float32.
_narrow = jax.custom_vjp(_einsum, nondiff_argnums=(0, 1))


def _forward(spec: str, dtype: jnp.dtype, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _einsum(spec, dtype, a, b), (a, b)


def _backward(
    spec: str, dtype: jnp.dtype, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    a, b = kept
    parts, result = spec.split("->")
    first, second = parts.split(",")
    by_a = _einsum(f"{result},{second}->{first}", dtype, gradient, b)
    by_b = _einsum(f"{first},{result}->{second}", dtype, a, gradient)
    return by_a.astype(a.dtype), by_b.astype(b.dtype)


_narrow.defvjp(_forward, _backward)


def softmax(logits: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The softmax of float32 logits over the last axis, computed in float32 and rounded to `dtype`.

    For the gradient only the rounded probabilities are kept.
    """
    return jax.nn.softmax(logits, axis=-1) if dtype == jnp.float32 else _rounded(dtype, logits)


def _softmax(dtype: jnp.dtype, logits: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits, axis=-1).astype(dtype)


_rounded = jax.custom_vjp(_softmax, nondiff_argnums=(0,))


def _softmax_forward(dtype: jnp.dtype, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    probs = _softmax(dtype, logits)
    return probs, probs


def _softmax_backward(dtype: jnp.dtype, probs: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    del dtype
    weighted = probs.astype(jnp.float32) * gradient.astype(jnp.float32)
    return (weighted - probs * weighted.sum(-1, keepdims=True),)


_rounded.defvjp(_softmax_forward, _softmax_backward)


class Linear(nnx.Linear):
    """A linear map with bias of `[..., I]` to `[..., O]`, rounded to its `dtype` once, after the bias."""

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.multiply(x, self.kernel[...]) + self.bias[...]  # pyright: ignore[reportOptionalSubscript]
        return checkpoint_name(y.astype(self.dtype), WEIGHTED)

    def multiply(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """`[..., I]` by `[I, O]`, float32 `[..., O]`."""
        rows = letters(x.ndim - 1)
        return product(f"{rows}x,xy->{rows}y", x, kernel, jnp.dtype(self.dtype))


class Embed(nnx.Embed):
    """A table of vectors `[V, H]`, from which float32 ones are looked up."""

    def __call__(self, ids: jax.Array) -> jax.Array:
        """int32 `[...]` -> float32 `[..., H]`."""
        return jnp.take(self.embedding[...], ids, axis=0)

    def attend(self, query: jax.Array) -> jax.Array:
        """The product of each vector with `[..., H]`, float32 `[..., V]`."""
        rows = letters(query.ndim - 1)
        return product(f"{rows}x,yx->{rows}y", query, self.embedding[...], jnp.dtype(self.dtype))
