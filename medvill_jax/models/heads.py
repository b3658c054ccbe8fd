"""Output heads: masked language modelling over gathered positions, image-text matching."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from medvill_jax.models.bert import BertConfig, layer_norm, linear

_ROW = 128


class MlmHead(nnx.Module):
    """Linear, GELU, LayerNorm(1e-5), then the word embeddings as output weights plus a bias (docs/spec.md#heads)."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dense = linear(config.hidden_size, config.hidden_size, config, dtype=dtype, rngs=rngs)
        self.layer_norm = layer_norm(config.hidden_size, 1e-5, dtype=dtype, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))

    @jax.named_scope("mlm_head")
    def __call__(self, hidden: jax.Array, word_embeddings: nnx.Embed) -> jax.Array:
        """`[..., H]` hidden states -> float32 `[..., V]` logits."""
        x = self.layer_norm(jax.nn.gelu(self.dense(hidden), approximate=False))
        return word_embeddings.attend(x).astype(jnp.float32) + self.bias[...]


class ItmHead(nnx.Module):
    """Linear to two classes; class 1 means that image and text belong together."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.linear = linear(config.hidden_size, 2, config, dtype=dtype, rngs=rngs, dot_general=_in_short_rows)

    @jax.named_scope("itm_head")
    def __call__(self, summary: jax.Array) -> jax.Array:
        """`[B, H]` -> float32 `[B, 2]` logits."""
        return self.linear(summary).astype(jnp.float32)


def _in_short_rows(x: jax.Array, kernel: jax.Array, dimensions: Any, **options: Any) -> jax.Array:
    """The product of `[..., H]` and `[H, C]`, added in rows of `_ROW` terms if H has whole ones; for `nnx.Linear`.

    XLA for CPUs adds all terms of a product with so few columns one after the other, torch does not.
    """
    del dimensions  # the last axis of x and the first of the kernel
    rows = kernel.reshape(-1, _ROW if len(kernel) % _ROW == 0 else len(kernel), kernel.shape[1])
    options["preferred_element_type"] = jnp.float32
    parts = jnp.einsum("...pr,prc->p...c", x.reshape(*x.shape[:-1], *rows.shape[:2]), rows, **options)
    return parts.sum(0).astype(x.dtype)
