"""Beam search against its definition, against enumeration, and against itself in other batches."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.decoding.beam import beam_search
from medvill_jax.decoding.rules import Decoded, Rules
from tests.decoding import slow
from tests.decoding.toy import Toy, run_beam, run_greedy

WORDS = 7


def agrees(found: Decoded, example: int, expected: slow.Result, rules: Rules) -> None:
    text, total, _ = expected
    words = slow.words(text, rules)
    length = int(found.lengths[example])
    assert tuple(found.tokens[example, :length].tolist()) == words
    assert (np.asarray(found.tokens[example, length:]) == rules.end_id).all()
    assert bool(found.ended[example]) == (text[-1] == rules.end_id)
    assert abs(float(found.log_probs[example]) - total) <= 1e-4


CASES = (
    (1, 0.7, 0, Rules(end_id=0, max_len=8, min_len=3, banned=(2, 5), no_repeat_ngram=3)),
    (2, 0.0, 0, Rules(end_id=0, max_len=8, no_repeat_ngram=2)),
    (4, 0.7, 1, Rules(end_id=0, max_len=8, banned=(2, 5))),
    (4, -0.4, -1, Rules(end_id=0, max_len=8, min_len=3, no_repeat_ngram=1)),
    (3, 0.0, -1, Rules(end_id=0, max_len=2, no_repeat_ngram=3)),
)


@pytest.mark.parametrize(("beams", "penalty", "end_bias", "rules"), CASES)
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 10_000))
def test_beam_search_is_its_definition(beams: int, penalty: float, end_bias: float, rules: Rules, seed: int) -> None:
    toy = Toy.random(seed, batch=3, vocabulary=WORDS, end_bias=end_bias)
    found = run_beam(toy, rules, beams, penalty)
    for example in range(3):
        agrees(found, example, slow.beam(toy.follow(example), rules, beams, penalty), rules)


@pytest.mark.parametrize("penalty", [0.0, 0.5, -0.5])
@pytest.mark.parametrize(("max_len", "beams"), [(2, WORDS), (3, WORDS**2)])
def test_a_beam_that_holds_every_text_finds_the_best_one(max_len: int, beams: int, penalty: float) -> None:
    rules = Rules(end_id=0, max_len=max_len)
    for seed in range(2):
        toy = Toy.random(seed, batch=2, vocabulary=WORDS)
        found = run_beam(toy, rules, beams, penalty)
        for example in range(2):
            best = slow.exhaustive(toy.follow(example), rules, WORDS, penalty)
            agrees(found, example, best, rules)


def test_a_beam_as_wide_as_the_vocabulary_finds_the_best_longer_texts_too() -> None:
    # Beyond two words nothing guarantees it; with these weights it holds.
    rules = Rules(end_id=0, max_len=6)
    for seed in range(4):
        toy = Toy.random(seed, batch=2, vocabulary=4)
        toy = dataclasses.replace(toy, recur=np.zeros_like(toy.recur))
        found = run_beam(toy, rules, 4)
        for example in range(2):
            agrees(found, example, slow.exhaustive(toy.follow(example), rules, 4), rules)


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 10_000), penalty=st.sampled_from([0.0, 1.0]))
def test_a_beam_of_one_is_greedy(seed: int, penalty: float) -> None:
    toy = Toy.random(seed, batch=4, vocabulary=WORDS)
    rules = Rules(end_id=0, max_len=9, no_repeat_ngram=3)
    one = run_beam(toy, rules, 1, penalty)
    two = run_greedy(toy, rules)
    for field in dataclasses.fields(Decoded):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))


@pytest.mark.parametrize("beams", [1, 3])
def test_neighbours_and_places_do_not_matter(beams: int) -> None:
    toy = Toy.random(5, batch=5, vocabulary=WORDS, end_bias=0.5)
    rules = Rules(end_id=0, max_len=9)
    whole = run_beam(toy, rules, beams)
    for order in ([4, 2, 0, 1, 3], [3], [1, 1, 4]):
        part = run_beam(toy.rows(order), rules, beams)
        np.testing.assert_array_equal(part.tokens, whole.tokens[np.array(order)])
        np.testing.assert_allclose(part.log_probs, whole.log_probs[np.array(order)], rtol=0, atol=1e-5)
    filled = run_beam(toy, rules, beams, live=np.arange(5) < 3)
    np.testing.assert_array_equal(filled.tokens[:3], whole.tokens[:3])


def test_equals_go_to_the_lower_word_and_the_earlier_end() -> None:
    toy = Toy.random(0, batch=1, vocabulary=4)
    flat = dataclasses.replace(toy, out=np.zeros_like(toy.out))
    # Every word is as likely as the end. Without a penalty the end at once is best.
    assert int(run_beam(flat, Rules(end_id=0, max_len=3), 4).lengths[0]) == 0
    assert run_beam(flat, Rules(end_id=3, max_len=3, min_len=3), 4).tokens[0].tolist() == [0, 0, 0]
    assert run_beam(flat, Rules(end_id=0, max_len=3), 4, 9.0).tokens[0].tolist() == [1, 1, 0]


def test_it_stops_when_nothing_can_change() -> None:
    rules = Rules(end_id=0, max_len=1000)
    toy = Toy.random(1, batch=2, vocabulary=WORDS, end_bias=2.0)
    steps = []

    def counted(tokens: jax.Array, index: jax.Array, cache: Any) -> Any:
        jax.debug.callback(lambda i: steps.append(int(i)), index)
        return toy.step(tokens, index, cache)

    found = beam_search(counted, toy.cache(3), rules, live=jnp.ones(2, bool), beams=3)
    jax.effects_barrier()
    assert int(found.lengths.max()) < 20
    assert max(steps) < 100
    with pytest.raises(ValueError, match="at least one beam"):
        beam_search(toy.step, toy.cache(1), rules, live=jnp.ones(2, bool), beams=0)
