"""Beam search: extends K texts per example in parallel and returns the best complete one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.decoding.rules import Cache, Decoded, Rules, Step, log_probs
from medvill_jax.errors import ConfigError

State = dict[str, Any]


def beam_search(
    step: Step, cache: Cache, rules: Rules, *, live: jax.Array, beams: int, length_penalty: float = 0.0
) -> Decoded:
    """The best text that a beam search of width K finds (docs/spec.md#beam).

    In every slot, the K likeliest of all continuations of all beams are kept. Those that end leave the beam, and the
    best of them so far is stored; the others are the beams of the next slot. Texts that have not ended at `max_len` are
    cut there and compete as they are. The score is the sum of log-probabilities plus `length_penalty` times the number
    of tokens, `end_id` included. An example is done as soon as none of its beams can exceed its best score.

    Of equal scores, the text that was complete earlier wins, then the lower beam, then the lower token id. One beam is
    greedy decoding, whatever the penalty.

    Args:
        step, cache, rules, live: as for `single.greedy`, with a cache for K = `beams`.
        beams: K.
        length_penalty: above 0 favours long texts, below 0 short ones.

    Raises:
        ConfigError: `beams` below 1.
    """
    if beams < 1:
        raise ConfigError(f"a beam search needs at least one beam, not {beams}")
    batch, length, end = live.shape[0], rules.max_len, rules.end_id

    def goes_on(state: State) -> jax.Array:
        return (state["index"] < length) & jnp.any(jnp.isfinite(state["log_probs"]))

    def extend(state: State) -> State:
        index, tokens, before = state["index"], state["tokens"], state["log_probs"]
        previous = jax.lax.dynamic_index_in_dim(tokens, jnp.maximum(index - 1, 0), axis=2, keepdims=False)  # [B, K]
        logits, cache = step(previous, index, state["cache"])  # [B, K, V]
        total = before[..., None] + log_probs(logits, tokens, index, rules)  # [B, K, V]

        vocabulary = total.shape[-1]
        taken, place = jax.lax.top_k(total.reshape(batch, -1), beams)  # [B, K]
        parent, token = place // vocabulary, (place % vocabulary).astype(jnp.int32)  # [B, K]
        tokens = jnp.take_along_axis(tokens, parent[..., None], axis=1)  # [B, K, T]
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, token, index, axis=2)
        moved = jax.tree.map(lambda leaf: _rearranged(leaf, parent), cache["beams"])

        # A log-probability of -inf marks an empty beam: it was empty before, or has no allowed continuation.
        complete = (token == end) | (index + 1 == length)
        scores = jnp.where(complete, taken + length_penalty * (index + 1), -jnp.inf)  # [B, K]
        winner = jnp.argmax(scores, axis=1)  # [B]
        row = jnp.arange(batch)
        better = scores[row, winner] > state["best_score"]
        best = {
            "best_score": jnp.where(better, scores[row, winner], state["best_score"]),
            "best_log_prob": jnp.where(better, taken[row, winner], state["best_log_prob"]),
            "best_tokens": jnp.where(better[:, None], tokens[row, winner], state["best_tokens"]),
        }

        # Sums of log-probabilities never increase, and the penalty is largest at the next or at the last length.
        penalty = jnp.maximum(length_penalty * (index + 2), length_penalty * length)
        hopeless = taken + penalty <= best["best_score"][:, None]
        return {
            "index": index + 1,
            "tokens": tokens,
            "log_probs": jnp.where(complete | hopeless, -jnp.inf, taken),
            "cache": {**cache, "beams": moved},
            **best,
        }

    # Only one beam is live at first: K equal ones would find every continuation K times.
    first = (jnp.arange(beams) == 0) & live[:, None]  # [B, K]
    state = jax.lax.while_loop(
        goes_on,
        extend,
        {
            "index": jnp.int32(0),
            "tokens": jnp.full((batch, beams, length), end, jnp.int32),
            "log_probs": jnp.where(first, 0.0, -jnp.inf).astype(jnp.float32),
            "cache": cache,
            "best_score": jnp.full(batch, -jnp.inf, jnp.float32),
            "best_log_prob": jnp.full(batch, -jnp.inf, jnp.float32),
            "best_tokens": jnp.full((batch, length), end, jnp.int32),
        },
    )
    tokens = state["best_tokens"]
    lengths = jnp.sum(tokens != end, axis=1, dtype=jnp.int32)
    return Decoded(tokens, lengths, state["best_log_prob"], lengths < length)


def _rearranged(leaf: jax.Array, parent: jax.Array) -> jax.Array:
    """`leaf[b, parent[b, k], ...]` for a leaf `[B, K, ...]`."""
    index = parent.reshape(*parent.shape, *(1,) * (leaf.ndim - 2))
    return jnp.take_along_axis(leaf, index, axis=1)
