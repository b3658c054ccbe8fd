"""A network small enough to enumerate: a recurrent one, so that every word of a text matters, and whose state must
follow its beam."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.decoding.beam import beam_search
from medvill_jax.decoding.rules import Decoded, Rules
from medvill_jax.decoding.single import greedy, nucleus
from tests.decoding.slow import Follow, Text

SIZE = 6


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Toy:
    """`state_(t+1) = tanh(A state_t + E[word_t])`, `logits = U state_(t+1) + end`; one first state per example."""

    first: np.ndarray  # [B, SIZE]
    recur: np.ndarray  # [SIZE, SIZE]
    embed: np.ndarray  # [V, SIZE]
    out: np.ndarray  # [SIZE, V]
    bias: np.ndarray  # [V]

    @classmethod
    def random(cls, seed: int, *, batch: int, vocabulary: int, end_bias: float = 0.0) -> Toy:
        rng = np.random.default_rng(seed)
        bias = np.zeros(vocabulary)
        bias[0] = end_bias
        shapes = ((batch, SIZE), (SIZE, SIZE), (vocabulary, SIZE), (SIZE, vocabulary))
        return cls(*(rng.normal(size=shape).astype(np.float32) for shape in shapes), bias.astype(np.float32))

    def cache(self, beams: int) -> dict[str, Any]:
        state = jnp.repeat(jnp.asarray(self.first)[:, None], beams, axis=1)  # [B, K, SIZE]
        return {"beams": {"state": state}, "steps": jnp.int32(0)}

    def step(self, tokens: jax.Array, index: jax.Array, cache: dict[str, Any]) -> tuple[jax.Array, dict[str, Any]]:
        state = cache["beams"]["state"]  # [B, K, SIZE]
        next_state = jnp.tanh(state @ self.recur + jnp.asarray(self.embed)[tokens])
        state = jnp.where(index > 0, next_state, state)
        return state @ self.out + self.bias, {"beams": {"state": state}, "steps": cache["steps"] + 1}

    def follow(self, example: int) -> Follow:
        def log_probs(text: Text) -> np.ndarray:
            state = self.first[example].astype(np.float64)
            for word in text:
                state = np.tanh(state @ self.recur + self.embed[word])
            logits = state @ self.out + self.bias
            return logits - np.log(np.exp(logits).sum())

        return log_probs

    def rows(self, order: list[int]) -> Toy:
        """The same network for other examples."""
        return Toy(self.first[order], self.recur, self.embed, self.out, self.bias)


@partial(jax.jit, static_argnames=("rules", "beams", "length_penalty"))
def run_beam(toy: Toy, rules: Rules, beams: int, length_penalty: float = 0.0, live: Any = None) -> Decoded:
    live = jnp.ones(len(toy.first), bool) if live is None else live
    return beam_search(toy.step, toy.cache(beams), rules, live=live, beams=beams, length_penalty=length_penalty)


@partial(jax.jit, static_argnames="rules")
def run_greedy(toy: Toy, rules: Rules) -> Decoded:
    return greedy(toy.step, toy.cache(1), rules, live=jnp.ones(len(toy.first), bool))


@partial(jax.jit, static_argnames=("rules", "top_p", "temperature"))
def run_nucleus(toy: Toy, rules: Rules, seeds: Any, top_p: float = 0.9, temperature: float = 1.0) -> Decoded:
    live = jnp.ones(len(toy.first), bool)
    return nucleus(toy.step, toy.cache(1), rules, live=live, seeds=seeds, top_p=top_p, temperature=temperature)
