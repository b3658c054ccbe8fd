"""Decoders of one text per example: greedy decoding and nucleus sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.decoding.rules import Cache, Decoded, Rules, Step, log_probs
from medvill_jax.errors import ConfigError

# float32 [B, V] log-probabilities of the allowed tokens, int32 scalar slot -> int32 [B] tokens.
Choose = Callable[[jax.Array, jax.Array], jax.Array]


def greedy(step: Step, cache: Cache, rules: Rules, *, live: jax.Array) -> Decoded:
    """Writes the likeliest allowed token in every slot; of equally likely ones that with the lowest id.

    Args:
        step: the network.
        cache: its cache before the first token, for K = 1.
        rules: the rules for a text.
        live: bool `[B]`: rows to decode. The others are padding, and their results are undefined.
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
    """Samples every token from the nucleus (Holtzman et al., ICLR 2020), the likeliest tokens of total mass `top_p`.

    The samples of an example are a function of its seed and its probabilities; its place in the batch and the other
    examples have no effect.

    Args:
        step, cache, rules, live: as for `greedy`.
        seeds: int32 `[B]`.
        top_p: in (0, 1]; the likeliest token is always in the nucleus.
        temperature: above 0; divides the logits before the nucleus is taken, but not in `log_probs` of the result.

    Raises:
        ConfigError: `top_p` or `temperature` out of range.
    """
    if not 0.0 < top_p <= 1.0:
        raise ConfigError(f"top_p={top_p} is not in (0, 1]")
    if not temperature > 0.0:
        raise ConfigError(f"temperature={temperature} is not above 0; greedy decoding is its limit at 0")
    keys = jax.vmap(jax.random.key)(seeds)  # [B]

    def choose(allowed: jax.Array, index: jax.Array) -> jax.Array:
        scaled = jax.nn.log_softmax(allowed / temperature, axis=-1)  # [B, V]
        ordered, ranked_tokens = jax.lax.top_k(scaled, scaled.shape[-1])  # [B, V], equally likely ones by id
        probs = jnp.exp(ordered)
        before = jnp.cumsum(probs, axis=-1) - probs  # mass of all likelier tokens
        kept = jnp.where((before < top_p).at[:, 0].set(True), ordered, -jnp.inf)
        rank = jax.vmap(lambda key, row: jax.random.categorical(jax.random.fold_in(key, index), row))(keys, kept)
        return jnp.take_along_axis(ranked_tokens, rank[:, None], axis=-1)[:, 0]

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
        token = choose(allowed, index).astype(jnp.int32)  # [B]
        gain = jnp.take_along_axis(allowed, token[:, None], axis=-1)[:, 0]
        token = jnp.where(live, token, rules.end_id)
        return {
            "index": index + 1,
            "live": live & (token != rules.end_id),
            "tokens": jax.lax.dynamic_update_index_in_dim(tokens, token, index, axis=1),
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
