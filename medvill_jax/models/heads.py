"""Output heads: masked language modelling over gathered positions, image-text matching."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from medvill_jax.models.bert import BertConfig, layer_norm, linear


class MlmHead(nnx.Module):
    """Linear, GELU, LayerNorm(1e-5), then the word embeddings as output weights plus a bias (docs/spec.md#heads)."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dense = linear(config.hidden_size, config.hidden_size, config, dtype=dtype, rngs=rngs)
        self.layer_norm = layer_norm(config.hidden_size, 1e-5, dtype=dtype, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))

    def __call__(self, hidden: jax.Array, word_embeddings: nnx.Embed) -> jax.Array:
        """`[..., H]` hidden states -> float32 `[..., V]` logits."""
        x = self.layer_norm(jax.nn.gelu(self.dense(hidden), approximate=False))
        return word_embeddings.attend(x).astype(jnp.float32) + self.bias[...]


class ItmHead(nnx.Module):
    """Linear to two classes; class 1 means that image and text belong together."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.linear = linear(config.hidden_size, 2, config, dtype=dtype, rngs=rngs)

    def __call__(self, summary: jax.Array) -> jax.Array:
        """`[B, H]` -> float32 `[B, 2]` logits."""
        return self.linear(summary).astype(jnp.float32)
