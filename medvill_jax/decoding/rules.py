"""The parts that all decoders share: the step that they call, the rules for a text, and the result.

Sizes: B examples, K beams (1 for decoders of one text per example), V vocabulary, T the longest text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.errors import ConfigError

# A dict of arrays. Every leaf under "beams" has the leading axes [B, K] and is rearranged with the beams; a decoder
# leaves all other entries as they are.
Cache = dict[str, Any]

# tokens int32 [B, K] of slot index - 1 (ignored at index 0); index int32 scalar 0, 1, 2...; cache
# -> logits float32 [B, K, V] of the tokens in slot index, and the cache for the next step.
Step = Callable[[jax.Array, jax.Array, Cache], tuple[jax.Array, Cache]]


@dataclass(frozen=True)
class Rules:
    """The rules for a text.

    Attributes:
        end_id: the token that ends a text, [SEP].
        max_len: the most tokens, `end_id` included; a text that reaches it without `end_id` is cut there.
        min_len: the fewest tokens before `end_id`.
        banned: tokens that are never written.
        no_repeat_ngram: no n-gram of that many tokens occurs twice in a text; 0 sets no limit.

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
            raise ConfigError(f"max_len={self.max_len} leaves no room for a token")
        if not 0 <= self.min_len <= self.max_len:
            raise ConfigError(f"min_len={self.min_len} is not in 0..max_len, which is {self.max_len}")
        if self.no_repeat_ngram < 0:
            raise ConfigError(f"no_repeat_ngram={self.no_repeat_ngram} is negative")
        if self.end_id in self.banned:
            raise ConfigError(f"the end of text, {self.end_id}, is among the banned tokens")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decoded:
    """One text per example.

    Attributes:
        tokens: int32 `[B, T]`: the tokens of the text, then `end_id` in every further slot.
        lengths: int32 `[B]`: number of tokens without `end_id`.
        log_probs: float32 `[B]`: sum of the network's log-probabilities of the tokens and, if the text has one, of the
            `end_id` after them; normalised over the whole vocabulary, before any rule.
        ended: bool `[B]`: whether the text ends with `end_id`; otherwise it was cut.
    """

    tokens: jax.Array
    lengths: jax.Array
    log_probs: jax.Array
    ended: jax.Array


def log_probs(logits: jax.Array, tokens: jax.Array, index: jax.Array, rules: Rules) -> jax.Array:
    """The network's log-probabilities of the next token, minus infinity for tokens that the rules forbid.

    If the rules forbid every token, `end_id` is allowed at any length.

    Args:
        logits: `[B, K, V]`.
        tokens: int32 `[B, K, T]`, the texts so far; slots from `index` on are ignored.
        index: int32 scalar, the slot of the next token.
        rules: the rules for a text.

    Returns:
        float32 `[B, K, V]`.
    """
    # Rounding can lift a log-probability above 0, but beam search relies on sums that never increase.
    normalised = jnp.minimum(jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1), 0.0)
    end = normalised[..., rules.end_id]  # [B, K]
    allowed = normalised.at[..., jnp.array(rules.banned, jnp.int32)].set(-jnp.inf) if rules.banned else normalised
    if rules.min_len:
        allowed = allowed.at[..., rules.end_id].set(jnp.where(index < rules.min_len, -jnp.inf, end))
    if rules.no_repeat_ngram:
        allowed = _without_repeats(allowed, tokens, index, rules.no_repeat_ngram)
    stuck = jnp.all(jnp.isneginf(allowed), axis=-1)  # [B, K]
    return allowed.at[..., rules.end_id].set(jnp.where(stuck, end, allowed[..., rules.end_id]))


def _without_repeats(values: jax.Array, tokens: jax.Array, index: jax.Array, size: int) -> jax.Array:
    """Forbids the last token of every n-gram in `tokens` whose other tokens are the last ones written."""
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
