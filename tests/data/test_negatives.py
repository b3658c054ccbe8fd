import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.data.negatives import Negatives, other_images
from medvill_jax.data.records import DataError

GROUPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=2, max_size=25)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    array = np.array(pairs)
    # Four label sets of two findings; what is negated or not mentioned makes no difference.
    positive = np.stack([array[:, 0] & 1, array[:, 0] >> 1], axis=1)
    unsaid = -2 * (array[:, 1:] % 2) * (1 - positive)
    return (positive + unsaid).astype(np.int8), array[:, 1].astype(np.uint64)


@settings(deadline=None)
@given(pairs=GROUPS, seed=st.integers(0, 1000))
def test_a_negative_differs_in_labels_and_text_wherever_one_exists(pairs: list[tuple[int, int]], seed: int) -> None:
    labels, texts = columns(pairs)
    if len(set(texts.tolist())) == 1:
        with pytest.raises(DataError, match="two different texts"):
            Negatives(labels, texts)
        return
    negatives = Negatives(labels, texts)
    rng = np.random.default_rng(seed)
    for record in range(len(pairs)):
        both = ((labels == 1) != (labels[record] == 1)).any(axis=1) & (texts != texts[record])
        allowed = set(np.flatnonzero(both if both.any() else texts != texts[record]).tolist())
        if not allowed:
            continue
        assert negatives.draw(record, rng) in allowed


def test_draws_are_uniform_over_what_qualifies() -> None:
    labels, texts = columns([(0, 0), (0, 1), (1, 0), (1, 2), (2, 3), (2, 0), (3, 4), (3, 5)])
    negatives, rng = Negatives(labels, texts), np.random.default_rng(0)
    counts = np.bincount([negatives.draw(0, rng) for _ in range(8000)], minlength=8)
    assert counts[[0, 1, 2, 5]].sum() == 0
    assert counts[[3, 4, 6, 7]] == pytest.approx(2000, abs=200)


def test_one_label_set_falls_back_to_another_text() -> None:
    labels, texts = columns([(0, 0), (0, 0), (0, 1)])
    negatives, rng = Negatives(labels, texts), np.random.default_rng(0)
    assert {negatives.draw(0, rng) for _ in range(20)} == {2}
    assert {negatives.draw(2, rng) for _ in range(50)} == {0, 1}


@given(texts=st.lists(st.integers(0, 6), min_size=2, max_size=40), seed=st.integers(0, 100))
def test_shuffled_images_come_from_other_reports(texts: list[int], seed: int) -> None:
    partner = other_images(np.array(texts), seed)
    assert sorted(partner) == list(range(len(texts)))
    if max(np.bincount(texts)) * 2 <= len(texts):
        assert all(texts[partner[i]] != texts[i] for i in range(len(texts)))
