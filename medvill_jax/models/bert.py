"""BERT (Devlin et al., NAACL 2019): embeddings, post-LayerNorm encoder, pooler. Names mirror Hugging Face `BertModel`.

See docs/spec.md#encoder.

Randomness is explicit: a call with dropout takes `key`, a PRNG key, or None for evaluation. Every use of dropout folds
a different number into the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from medvill_jax.errors import ConfigError
from medvill_jax.models import attention
from medvill_jax.models import remat as rematerialisation
from medvill_jax.models.dropout import dropout, fold
from medvill_jax.models.precision import Embed, Linear


@dataclass(frozen=True)
class BertConfig:
    """Sizes and constants of the encoder; the defaults are BERT-base.

    Raises:
        ConfigError: the hidden size is not a positive multiple of the number of heads, or a rate of dropout is no rate.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 512
    token_types: int = 2
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if min(self.hidden_size, self.num_heads) < 1 or self.hidden_size % self.num_heads:
            raise ConfigError(f"hidden size {self.hidden_size} is not a multiple of {self.num_heads} heads")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout:g}; it must be at least 0 and below 1")


# Slots of a sequence that a layer computes: so many, the last ones; the indices int32 `[B, Q]`; None: all.
Wanted = int | jax.Array | None


def _taken(x: jax.Array, slots: Wanted, axis: int) -> jax.Array:
    """The slots of `[B, ...]` along an axis; an axis of size 1 stands for all of them, and is kept."""
    if slots is None or x.shape[axis] == 1:
        return x
    if isinstance(slots, int):
        return jax.lax.slice_in_dim(x, x.shape[axis] - slots, None, axis=axis)
    shape = [len(slots)] + [1] * (x.ndim - 1)
    shape[axis] = slots.shape[1]
    return jnp.take_along_axis(x, slots.reshape(shape), axis=axis)


def linear(
    in_size: int, out_size: int, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs, kind: type[Linear] = Linear
) -> Linear:
    """A Linear layer with BERT's initialisation: normal with standard deviation `initializer_range`."""
    init = nnx.initializers.normal(config.initializer_range)
    return kind(in_size, out_size, dtype=dtype, kernel_init=init, rngs=rngs)


def layer_norm(size: int, eps: float, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm with the two-pass variance, which float32 parity with torch needs."""
    return nnx.LayerNorm(size, epsilon=eps, dtype=dtype, use_fast_variance=False, rngs=rngs)


class Embeddings(nnx.Module):
    """Word (or any content) + position + token type, LayerNorm, dropout. Image and text share one instance.

    See docs/spec.md#embeddings.
    """

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        size, init = config.hidden_size, nnx.initializers.normal(config.initializer_range)
        self.rate = config.dropout
        self.word_embeddings = Embed(config.vocab_size, size, embedding_init=init, dtype=dtype, rngs=rngs)
        self.position_embeddings = Embed(config.max_positions, size, embedding_init=init, dtype=dtype, rngs=rngs)
        self.token_type_embeddings = Embed(config.token_types, size, embedding_init=init, dtype=dtype, rngs=rngs)
        self.layer_norm = layer_norm(size, config.layer_norm_eps, dtype=dtype, rngs=rngs)

    @jax.named_scope("embeddings")
    def __call__(
        self, content: jax.Array, positions: jax.Array, token_types: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        """Args:
            content: `[B, L, H]` word embeddings or projected visual features.
            positions, token_types: int32, broadcastable to `[B, L]`.
            key: PRNG key for dropout, or None.

        Returns:
            `[B, L, H]`.
        """
        x = content + self.position_embeddings(positions) + self.token_type_embeddings(token_types)
        return dropout(self.layer_norm(x), self.rate, key)

    def word(self, token: int, batch: int) -> jax.Array:
        """The word embedding of one token for every row, `[B, 1, H]`."""
        # One look-up for all rows, so that devices sum the gradient of one embedding, not of the whole vocabulary.
        word = self.word_embeddings(jnp.full((1, 1), token))
        return jnp.broadcast_to(word, (batch, *word.shape[1:]))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Memory:
    """Keys and values of one layer's attention, each `[B, heads, S, D]`."""

    keys: jax.Array
    values: jax.Array

    def write(self, new: Memory, start: jax.Array | int) -> Memory:
        """This memory with the slots from `start` on replaced by those of `new`, `[B, heads, L, D]`, L <= S."""
        at = (0, 0, start, 0)
        return Memory(
            jax.lax.dynamic_update_slice(self.keys, new.keys, at),
            jax.lax.dynamic_update_slice(self.values, new.values, at),
        )


class SelfAttention(nnx.Module):
    """Multi-head self-attention with an additive mask."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        size = config.hidden_size
        self.heads = config.num_heads
        self.rate = config.dropout
        self.query = linear(size, size, config, dtype=dtype, rngs=rngs)
        self.key = linear(size, size, config, dtype=dtype, rngs=rngs)
        self.value = linear(size, size, config, dtype=dtype, rngs=rngs)
        self.output = linear(size, size, config, dtype=dtype, rngs=rngs)

    @jax.named_scope("attention")
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        key: jax.Array | None,
        memory: Memory | None = None,
        start: jax.Array | int = 0,
        slots: Wanted = None,
    ) -> tuple[jax.Array, Memory]:
        """Args:
            x: `[B, L, H]`, the queries.
            mask: additive, broadcastable to `[B, heads, L, S]`.
            key: PRNG key for dropout, or None.
            memory: keys and values of S slots, into which those of `x` are written from slot `start` on before the
                queries attend to them; None attends to `x` alone, S = L.
            start: slot of the first position of `x` in `memory`.
            slots: those of `x` that are queries, Q in number.

        Returns:
            `[B, Q, H]`, and the memory that was attended to.
        """
        batch, _, size = x.shape
        split = (batch, -1, self.heads, size // self.heads)
        query_rows = _taken(x, slots, 1)
        q, k, v = (  # [B, heads, Q, D], [B, heads, L, D]
            project(rows).reshape(split).swapaxes(1, 2)
            for project, rows in ((self.query, query_rows), (self.key, x), (self.value, x))
        )
        new = Memory(k, v)
        memory = new if memory is None else memory.write(new, start)
        mixed = attention.attend(q, memory.keys, memory.values, _taken(mask, slots, -2), self.rate, key)
        return self.output(mixed.swapaxes(1, 2).reshape(query_rows.shape)), memory


class Layer(nnx.Module):
    """One encoder layer: attention and feed-forward, each with residual, then LayerNorm (post-LN)."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        size, eps = config.hidden_size, config.layer_norm_eps
        self.rate = config.dropout
        self.attention = SelfAttention(config, dtype=dtype, rngs=rngs)
        self.attention_layer_norm = layer_norm(size, eps, dtype=dtype, rngs=rngs)
        self.intermediate = linear(size, config.intermediate_size, config, dtype=dtype, rngs=rngs)
        self.output = linear(config.intermediate_size, size, config, dtype=dtype, rngs=rngs)
        self.output_layer_norm = layer_norm(size, eps, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        key: jax.Array | None,
        memory: Memory | None = None,
        start: jax.Array | int = 0,
        slots: Wanted = None,
    ) -> tuple[jax.Array, Memory]:
        """Arguments and results as for `SelfAttention`."""
        attended, memory = self.attention(x, mask, fold(key, 0), memory, start, slots)
        x = self.attention_layer_norm(_taken(x, slots, 1) + dropout(attended, self.rate, fold(key, 1)))
        with jax.named_scope("feed_forward"):
            hidden = jax.nn.gelu(self.intermediate(x), approximate=False)
            return self.output_layer_norm(x + dropout(self.output(hidden), self.rate, fold(key, 2))), memory


class Encoder(nnx.Module):
    """A stack of layers; the policy `remat` decides what each recomputes for its gradient (see `models.remat`)."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs, remat: str = ""):
        self.remat = rematerialisation.check_policy(remat)
        self.layer = nnx.List([Layer(config, dtype=dtype, rngs=rngs) for _ in range(config.num_layers)])

    def __call__(self, x: jax.Array, mask: jax.Array, key: jax.Array | None, slots: Wanted = None) -> jax.Array:
        """Args:
            x: `[B, L, H]` embeddings.
            mask: additive, `[B, 1, L, L]` (see `attention_masks.attention_mask`).
            key: PRNG key for dropout, or None.
            slots: those whose states are wanted, Q in number. The last layer computes no others, except where they are
                indices and attention is `watched`: who watches knows places by all slots.

        Returns:
            `[B, Q, H]` hidden states of the last layer.
        """
        final, whole = len(self.layer) - 1, isinstance(slots, jax.Array) and attention.is_watched()
        for index, layer in enumerate(self.layer):
            computed = slots if index == final and not whole else None
            with jax.named_scope(f"layer_{index}"):
                x, _ = rematerialisation.apply(self.remat, layer, x, mask, fold(key, index), slots=computed)
        return _taken(x, slots, 1) if whole else x

    def remember(
        self,
        x: jax.Array,
        mask: jax.Array,
        memories: Sequence[Memory] | None = None,
        start: jax.Array | int = 0,
    ) -> tuple[jax.Array, tuple[Memory, ...]]:
        """Runs the layers without dropout, and keeps their keys and values for later calls.

        Args:
            x: `[B, L, H]` embeddings of the new slots.
            mask: additive, broadcastable to `[B, heads, L, S]`.
            memories: of every layer, with S slots; None attends to the new slots alone, S = L.
            start: slot of the first position of `x` in the memories.

        Returns:
            `[B, L, H]` hidden states of the last layer, and the memories with the new slots written.
        """
        after = []
        for index, layer in enumerate(self.layer):
            with jax.named_scope(f"layer_{index}"):
                x, memory = layer(x, mask, None, memories[index] if memories is not None else None, start)
            after.append(memory)
        return x, tuple(after)


class Pooler(nnx.Module):
    """tanh(Linear(h_[CLS]))."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dense = linear(config.hidden_size, config.hidden_size, config, dtype=dtype, rngs=rngs)

    @jax.named_scope("pooler")
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """`[B, L, H]` -> `[B, H]`."""
        return jnp.tanh(self.dense(hidden[:, 0]))
