"""Decoding as its definition reads: whole texts in plain Python, nothing cached, nothing stopped early.

`Follow` is the network: the log-probabilities of every word after a text, computed from that text alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from medvill_jax.decoding.rules import Rules

Text = tuple[int, ...]
Follow = Callable[[Text], np.ndarray]
Result = tuple[Text, float, float]  # text with its end, log-probability, score


def allowed(follow: Follow, text: Text, rules: Rules) -> np.ndarray:
    """Log-probabilities with minus infinity where the rules forbid."""
    own = np.asarray(follow(text), np.float64)
    values = own.copy()
    values[list(rules.banned)] = -np.inf
    if len(text) < rules.min_len:
        values[rules.end_id] = -np.inf
    size = rules.no_repeat_ngram
    if size:
        grams = {text[i : i + size] for i in range(len(text) - size + 1)}
        for word in range(len(values)):
            if len(text) >= size - 1 and text[len(text) - size + 1 :] + (word,) in grams:
                values[word] = -np.inf
    if np.isneginf(values).all():
        values[rules.end_id] = own[rules.end_id]
    return values


def greedy(follow: Follow, rules: Rules) -> Result:
    text, total = (), 0.0
    while len(text) < rules.max_len and (not text or text[-1] != rules.end_id):
        values = allowed(follow, text, rules)
        word = int(np.argmax(values))
        text, total = text + (word,), total + values[word]
    return text, total, total


def beam(follow: Follow, rules: Rules, beams: int, length_penalty: float = 0.0) -> Result:
    live: list[tuple[Text, float]] = [((), 0.0)]
    complete: list[Result] = []
    while live:
        found = []
        for text, total in live:
            for word, gain in enumerate(allowed(follow, text, rules)):
                if gain > -np.inf:
                    found.append((text + (word,), total + gain))
        found.sort(key=lambda pair: -pair[1])
        live = []
        for text, total in found[:beams]:
            if text[-1] == rules.end_id or len(text) == rules.max_len:
                complete.append((text, total, total + length_penalty * len(text)))
            else:
                live.append((text, total))
    return max(complete, key=lambda result: result[2])


def exhaustive(follow: Follow, rules: Rules, vocabulary: int, length_penalty: float = 0.0) -> Result:
    """The best of all texts that there are."""
    best: Result = ((), -np.inf, -np.inf)
    for length in range(1, rules.max_len + 1):
        for text in itertools.product(range(vocabulary), repeat=length):
            if rules.end_id in text[:-1] or (text[-1] != rules.end_id and length < rules.max_len):
                continue
            total = sum(allowed(follow, text[:i], rules)[text[i]] for i in range(length))
            if total + length_penalty * length > best[2]:
                best = text, float(total), total + length_penalty * length
    return best


def words(text: Text, rules: Rules) -> Text:
    """A text without its end."""
    return text[:-1] if text[-1] == rules.end_id else text
