"""Output heads: masked language modelling over gathered positions, image-text matching."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from medvill_jax.models.bert import BertConfig, layer_norm, linear
from medvill_jax.models.precision import Embed, Linear, letters, product

_ROW = 128


class _ShortRows(Linear):
    """Adds the products in rows of `_ROW` terms if there are whole ones.

    XLA for CPUs adds all terms of a product with so few columns one after the other, torch does not.
    """

    def multiply(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """`[..., I]` by `[I, O]`, float32 `[..., O]`."""
        rows = kernel.reshape(-1, _ROW if len(kernel) % _ROW == 0 else len(kernel), kernel.shape[1])
        many = letters(x.ndim - 1)
        x = x.reshape(*x.shape[:-1], *rows.shape[:2])
        return product(f"{many}xy,xyz->x{many}z", x, rows, jnp.dtype(self.dtype)).sum(0)


class MlmHead(nnx.Module):
    """Linear, GELU, LayerNorm(1e-5), then the word embeddings as output weights plus a bias (docs/spec.md#heads)."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dense = linear(config.hidden_size, config.hidden_size, config, dtype=dtype, rngs=rngs)
        self.layer_norm = layer_norm(config.hidden_size, 1e-5, dtype=dtype, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))

    @jax.named_scope("mlm_head")
    def __call__(self, hidden: jax.Array, word_embeddings: Embed) -> jax.Array:
        """`[..., H]` hidden states -> float32 `[..., V]` logits."""
        x = self.layer_norm(jax.nn.gelu(self.dense(hidden), approximate=False))
        return word_embeddings.attend(x) + self.bias[...]


class ItmHead(nnx.Module):
    """Linear to two classes; class 1 means that image and text belong together."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.linear = linear(config.hidden_size, 2, config, dtype=dtype, rngs=rngs, kind=_ShortRows)

    @jax.named_scope("itm_head")
    def __call__(self, summary: jax.Array) -> jax.Array:
        """`[B, H]` -> float32 `[B, 2]` logits."""
        return self.linear(summary).astype(jnp.float32)
