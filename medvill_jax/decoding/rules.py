"""What the decoders share: the step they call, the rules a text obeys, and what they return.

Sizes: B examples, K beams (1 where there is one text per example), V vocabulary, T the longest text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.errors import ConfigError

# A dict of arrays. Every leaf under "beams" has the leading axes [B, K] and follows its beam when beams are dropped or
# doubled; everything else is the network's own business.
Cache = dict[str, Any]

# tokens int32 [B, K]: the words in slot index - 1 (without effect at index 0); index: int32 scalar, 0, 1, 2...
# -> logits float32 [B, K, V] of the words in slot index, and the cache for the next step.
Step = Callable[[jax.Array, jax.Array, Cache], tuple[jax.Array, Cache]]


@dataclass(frozen=True)
class Rules:
    """What a text may be.

    Attributes:
        end_id: the word that ends a text, [SEP].
        max_len: the most words, `end_id` included; a text that reaches it without `end_id` is cut there.
        min_len: the fewest words before `end_id`.
        banned: words that are never written.
        no_repeat_ngram: no run of that many words occurs twice in a text; 0 allows it.

    Raises:
        ConfigError: lengths that leave no text.
    """

    end_id: int
    max_len: int
    min_len: int = 0
    banned: tuple[int, ...] = ()
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        if self.max_len < 1:
            raise ConfigError(f"max_len={self.max_len} leaves no room for a word")
        if not 0 <= self.min_len <= self.max_len:
            raise ConfigError(f"min_len={self.min_len} is not in 0..max_len, which is {self.max_len}")
        if self.no_repeat_ngram < 0:
            raise ConfigError(f"no_repeat_ngram={self.no_repeat_ngram} is negative")
        if self.end_id in self.banned:
            raise ConfigError(f"the end of text, {self.end_id}, is among the banned words")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decoded:
    """One text per example.

    Attributes:
        tokens: int32 `[B, T]`: words, then `end_id` in every slot that is left.
        lengths: int32 `[B]`: words, `end_id` not counted.
        log_probs: float32 `[B]`: sum of the network's own log-probabilities of the words and of the `end_id` after
            them, if the text has one; normalised over the whole vocabulary, before any rule.
        ended: bool `[B]`: the text ends by `end_id` rather than by being cut.
    """

    tokens: jax.Array
    lengths: jax.Array
    log_probs: jax.Array
    ended: jax.Array


def log_probs(logits: jax.Array, tokens: jax.Array, index: jax.Array, rules: Rules) -> jax.Array:
    """The network's log-probabilities of the next word, minus infinity for words that the rules forbid.

    A text that no word may continue may always end, whatever its length.

    Args:
        logits: `[B, K, V]`.
        tokens: int32 `[B, K, T]`, the texts so far; slots from `index` on mean nothing.
        index: int32 scalar, the slot that the next word goes to.

    Returns:
        float32 `[B, K, V]`.
    """
    # Rounding can lift a certain word above 0, and beam search counts on log-probabilities that only fall.
    own = jnp.minimum(jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1), 0.0)
    end = own[..., rules.end_id]  # [B, K]
    result = own.at[..., jnp.array(rules.banned, jnp.int32)].set(-jnp.inf) if rules.banned else own
    if rules.min_len:
        result = result.at[..., rules.end_id].set(jnp.where(index < rules.min_len, -jnp.inf, end))
    if rules.no_repeat_ngram:
        result = _without_repeats(result, tokens, index, rules.no_repeat_ngram)
    stuck = jnp.all(jnp.isneginf(result), axis=-1)  # [B, K]
    return result.at[..., rules.end_id].set(jnp.where(stuck, end, result[..., rules.end_id]))


def _without_repeats(values: jax.Array, tokens: jax.Array, index: jax.Array, size: int) -> jax.Array:
    """Forbids the last word of every n-gram in `tokens` whose first words are the last ones written."""
    length = tokens.shape[-1]
    if size > length:
        return values
    offset = jnp.arange(size - 1)
    last = jnp.take(tokens, index - (size - 1) + offset, axis=-1, mode="clip")  # [B, K, n-1]
    starts = jnp.arange(length - size + 1)  # [S]: where an n-gram may begin
    heads = tokens[..., starts[:, None] + offset]  # [B, K, S, n-1]
    tails = tokens[..., starts + size - 1]  # [B, K, S]
    repeats = jnp.all(heads == last[..., None, :], axis=-1) & (starts + size - 1 < index)  # [B, K, S]
    limit = jnp.where(repeats, -jnp.inf, jnp.inf)
    batch, beam = jnp.ogrid[: tokens.shape[0], : tokens.shape[1]]
    return values.at[batch[..., None], beam[..., None], tails].min(limit)
