"""Beam search: K texts per example grow side by side, and the best one that was met is returned."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.decoding.rules import Cache, Decoded, Rules, Step, log_probs

State = dict[str, Any]


def beam_search(
    step: Step, cache: Cache, rules: Rules, *, live: jax.Array, beams: int, length_penalty: float = 0.0
) -> Decoded:
    """The best text found by a beam of K (docs/spec.md#beam).

    Every slot, the K likeliest of all continuations of all beams are taken. Those that end leave the beam and are
    remembered if they score best so far; the others are the beams of the next slot. What has not ended at `max_len` is
    cut there and competes as it is. The score is the sum of log-probabilities plus `length_penalty` times the number of
    words, the end counted. An example is done as soon as none of its beams can still beat its best text.

    Between equals the order is: the text that was complete earlier, then the lower beam, then the lower word id. With
    one beam this is greedy decoding, whatever the penalty.

    Args:
        step, cache, rules, live: as for `single.greedy`, the cache being for K = `beams`.
        beams: K.
        length_penalty: above 0 favours long texts, below 0 short ones.

    Raises:
        ValueError: `beams` below 1.
    """
    if beams < 1:
        raise ValueError(f"a beam search needs at least one beam, not {beams}")
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
        parent, word = place // vocabulary, (place % vocabulary).astype(jnp.int32)  # [B, K]
        tokens = jnp.take_along_axis(tokens, parent[..., None], axis=1)  # [B, K, T]
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, word, index, axis=2)
        moved = jax.tree.map(lambda leaf: _rearranged(leaf, parent), cache["beams"])

        # -inf stands for no beam: none was there, or no continuation is allowed.
        complete = (word == end) | (index + 1 == length)
        scores = jnp.where(complete, taken + length_penalty * (index + 1), -jnp.inf)  # [B, K]
        which = jnp.argmax(scores, axis=1)  # [B]
        row = jnp.arange(batch)
        better = scores[row, which] > state["best_score"]
        best = {
            "best_score": jnp.where(better, scores[row, which], state["best_score"]),
            "best_log_prob": jnp.where(better, taken[row, which], state["best_log_prob"]),
            "best_tokens": jnp.where(better[:, None], tokens[row, which], state["best_tokens"]),
        }

        # Log-probabilities only fall. The most that the penalty can still add is at one of the two ends.
        still = jnp.maximum(length_penalty * (index + 2), length_penalty * length)
        hopeless = taken + still <= best["best_score"][:, None]
        return {
            "index": index + 1,
            "tokens": tokens,
            "log_probs": jnp.where(complete | hopeless, -jnp.inf, taken),
            "cache": {**cache, "beams": moved},
            **best,
        }

    # One beam at first: K equal ones would find every continuation K times.
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
    words = jnp.sum(tokens != end, axis=1, dtype=jnp.int32)
    return Decoded(tokens, words, state["best_log_prob"], words < length)


def _rearranged(leaf: jax.Array, parent: jax.Array) -> jax.Array:
    """`leaf[b, parent[b, k], ...]` for a leaf `[B, K, ...]`."""
    index = parent.reshape(*parent.shape, *(1,) * (leaf.ndim - 2))
    return jnp.take_along_axis(leaf, index, axis=1)
