"""Greedy and nucleus decoding of one text per example, and the rules that all decoders keep."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.decoding.rules import Rules
from medvill_jax.decoding.single import nucleus
from tests.decoding import slow
from tests.decoding.test_beam import agrees
from tests.decoding.toy import Toy, run_greedy, run_nucleus

WORDS = 7


@pytest.mark.parametrize(
    ("end_bias", "rules"),
    [
        (-1.0, Rules(end_id=0, max_len=8, min_len=4, banned=(3,), no_repeat_ngram=2)),
        (1.0, Rules(end_id=0, max_len=8, no_repeat_ngram=9)),
        (9.0, Rules(end_id=0, max_len=8, min_len=8, no_repeat_ngram=1)),
    ],
)
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 10_000))
def test_greedy_is_its_definition(end_bias: float, rules: Rules, seed: int) -> None:
    toy = Toy.random(seed, batch=3, vocabulary=WORDS, end_bias=end_bias)
    found = run_greedy(toy, rules)
    for example in range(3):
        agrees(found, example, slow.greedy(toy.follow(example), rules), rules)


def test_a_text_may_be_empty_and_a_text_with_no_way_on_ends() -> None:
    toy = Toy.random(0, batch=2, vocabulary=4, end_bias=50.0)
    empty = run_greedy(toy, Rules(end_id=0, max_len=5))
    assert empty.lengths.tolist() == [0, 0]
    assert empty.ended.all()
    np.testing.assert_allclose(empty.log_probs, 0.0, atol=1e-5)
    # Three words, none twice: the fourth slot has nothing left, though min_len asks for more.
    rules = Rules(end_id=0, max_len=9, min_len=9, no_repeat_ngram=1)
    stuck = run_greedy(toy, rules)
    assert stuck.lengths.tolist() == [3, 3]
    assert [sorted(row[:3]) for row in stuck.tokens.tolist()] == [[1, 2, 3]] * 2


def test_a_narrow_nucleus_is_greedy_and_a_wide_one_follows_the_probabilities() -> None:
    toy = Toy.random(3, batch=2, vocabulary=WORDS)
    rules = Rules(end_id=0, max_len=6)
    likeliest = run_greedy(toy, rules)
    narrow = run_nucleus(toy, rules, np.array([1, 2]), top_p=1e-6)
    np.testing.assert_array_equal(narrow.tokens, likeliest.tokens)
    np.testing.assert_allclose(narrow.log_probs, likeliest.log_probs, rtol=0, atol=1e-5)

    one = toy.rows([0] * 4000)
    probs = np.exp(toy.follow(0)(()))
    for top_p, temperature in ((1.0, 1.0), (0.7, 1.0), (1.0, 0.5), (0.8, 2.0)):
        scaled = probs ** (1 / temperature) / (probs ** (1 / temperature)).sum()
        order = np.argsort(-scaled)
        before = np.cumsum(scaled[order]) - scaled[order]
        expected = np.zeros(WORDS)
        expected[order[before < top_p]] = scaled[order[before < top_p]]
        drawn = run_nucleus(one, Rules(end_id=0, max_len=1), np.arange(4000), top_p=top_p, temperature=temperature)
        share = np.bincount(np.asarray(drawn.tokens[:, 0]), minlength=WORDS) / 4000
        np.testing.assert_allclose(share, expected / expected.sum(), atol=0.03)
        assert (share[expected == 0] == 0).all()
        # What is reported is the network's own probability, not that of the drawing.
        np.testing.assert_allclose(drawn.log_probs, np.log(probs)[np.asarray(drawn.tokens[:, 0])], atol=1e-5)


def test_a_drawing_depends_on_the_seed_and_nothing_else() -> None:
    toy = Toy.random(4, batch=4, vocabulary=WORDS, end_bias=-2.0)
    rules = Rules(end_id=0, max_len=8)
    seeds = np.array([7, 8, 9, 7])
    whole = run_nucleus(toy, rules, seeds)
    np.testing.assert_array_equal(run_nucleus(toy, rules, seeds).tokens, whole.tokens)
    assert (np.asarray(run_nucleus(toy, rules, seeds + 100).tokens) != np.asarray(whole.tokens)).any()
    for order in ([3, 1, 0, 2], [2]):
        part = run_nucleus(toy.rows(order), rules, seeds[order])
        np.testing.assert_array_equal(part.tokens, whole.tokens[np.array(order)])
    texts = {tuple(row) for row in run_nucleus(toy.rows([0] * 20), rules, np.arange(20)).tokens.tolist()}
    assert len(texts) > 5


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"max_len": 0}, "max_len=0 leaves no room"),
        ({"min_len": 6}, r"min_len=6 is not in 0\.\.max_len, which is 5"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram=-1 is negative"),
        ({"banned": (3, 0)}, "end of text, 0, is among the banned"),
    ],
)
def test_rules_that_leave_no_text(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(Rules(end_id=0, max_len=5), **change)


@pytest.mark.parametrize(("change", "match"), [({"top_p": 0.0}, "top_p=0.0"), ({"temperature": 0.0}, "temperature=0")])
def test_drawings_that_make_no_sense(change: dict[str, float], match: str) -> None:
    toy = Toy.random(0, batch=1, vocabulary=WORDS)
    rules, live, seeds = Rules(end_id=0, max_len=2), jnp.ones(1, bool), jnp.zeros(1, int)
    with pytest.raises(ValueError, match=match):
        nucleus(toy.step, toy.cache(1), rules, live=live, seeds=seeds, **change)
