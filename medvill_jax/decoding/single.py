"""One text per example: the likeliest word each time, or a word drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.decoding.rules import Cache, Decoded, Rules, Step, log_probs

# float32 [B, V] log-probabilities of allowed words, int32 scalar slot -> int32 [B] words.
Choose = Callable[[jax.Array, jax.Array], jax.Array]


def greedy(step: Step, cache: Cache, rules: Rules, *, live: jax.Array) -> Decoded:
    """The likeliest allowed word each time; among equally likely ones that with the lowest id.

    Args:
        step: the network.
        cache: its state before the first word, for K = 1.
        rules: what a text may be.
        live: bool `[B]`: rows to write at all. The others fill the batch up; their results mean nothing.
    """
    return _write(step, cache, rules, live, lambda allowed, _: jnp.argmax(allowed, axis=-1))


def nucleus(
    step: Step,
    cache: Cache,
    rules: Rules,
    *,
    live: jax.Array,
    seeds: jax.Array,
    top_p: float = 0.9,
    temperature: float = 1.0,
) -> Decoded:
    """Words drawn from the nucleus (Holtzman et al., ICLR 2020): the likeliest words that together have `top_p`.

    What is drawn for an example is a function of its own seed and its own probabilities: neither its place in the batch
    nor its neighbours matter.

    Args:
        step, cache, rules, live: as for `greedy`.
        seeds: int32 `[B]`.
        top_p: in (0, 1]; the likeliest word is always in the nucleus.
        temperature: above 0; divides the logits before the nucleus is taken. `log_probs` of the result are without it.

    Raises:
        ValueError: `top_p` or `temperature` out of range.
    """
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p={top_p} is not in (0, 1]")
    if not temperature > 0.0:
        raise ValueError(f"temperature={temperature} is not above 0; greedy decoding is its limit at 0")
    keys = jax.vmap(jax.random.key)(seeds)  # [B]

    def choose(allowed: jax.Array, index: jax.Array) -> jax.Array:
        scaled = jax.nn.log_softmax(allowed / temperature, axis=-1)  # [B, V]
        ordered, words = jax.lax.top_k(scaled, scaled.shape[-1])  # [B, V], equal ones by id
        probs = jnp.exp(ordered)
        before = jnp.cumsum(probs, axis=-1) - probs  # of all words that are likelier
        kept = jnp.where((before < top_p).at[:, 0].set(True), ordered, -jnp.inf)
        drawn = jax.vmap(lambda key, row: jax.random.categorical(jax.random.fold_in(key, index), row))(keys, kept)
        return jnp.take_along_axis(words, drawn[:, None], axis=-1)[:, 0]

    return _write(step, cache, rules, live, choose)


def _write(step: Step, cache: Cache, rules: Rules, live: jax.Array, choose: Choose) -> Decoded:
    batch = live.shape[0]

    def goes_on(state: dict[str, Any]) -> jax.Array:
        return (state["index"] < rules.max_len) & jnp.any(state["live"])

    def write_one(state: dict[str, Any]) -> dict[str, Any]:
        index, live, tokens = state["index"], state["live"], state["tokens"]
        previous = jax.lax.dynamic_index_in_dim(tokens, jnp.maximum(index - 1, 0), axis=1)  # [B, 1]
        logits, cache = step(previous, index, state["cache"])  # [B, 1, V]
        allowed = log_probs(logits, tokens[:, None], index, rules)[:, 0]  # [B, V]
        word = choose(allowed, index).astype(jnp.int32)  # [B]
        gain = jnp.take_along_axis(allowed, word[:, None], axis=-1)[:, 0]
        word = jnp.where(live, word, rules.end_id)
        return {
            "index": index + 1,
            "live": live & (word != rules.end_id),
            "tokens": jax.lax.dynamic_update_index_in_dim(tokens, word, index, axis=1),
            "log_probs": state["log_probs"] + jnp.where(live, gain, 0.0),
            "cache": cache,
        }

    state = jax.lax.while_loop(
        goes_on,
        write_one,
        {
            "index": jnp.int32(0),
            "live": live,
            "tokens": jnp.full((batch, rules.max_len), rules.end_id, jnp.int32),
            "log_probs": jnp.zeros(batch, jnp.float32),
            "cache": cache,
        },
    )
    lengths = jnp.sum(state["tokens"] != rules.end_id, axis=1, dtype=jnp.int32)
    return Decoded(state["tokens"], lengths, state["log_probs"], ~state["live"])
