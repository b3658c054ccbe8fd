"""The mask tables of docs/spec.md#masks, literally, and what holds for all sizes."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.models.attention_masks import KINDS, MASKED, attention_mask, visible
from tests.models.reference import mask_tables

# N=2 (image block of 4), S=4 of which the last is [PAD].
CAUSAL = ["11111000", "11111100", "11111110"]
RELEASED = {
    "bidirectional": ["11111110"] * 8,
    "s2s": ["11110000"] * 4 + CAUSAL + ["11111111"],
    "bar": ["11111111"] * 4 + CAUSAL + ["11111111"],
    "non_cross": ["11110000"] * 4 + ["00001111"] * 4,
}
CLEAN = {
    "bidirectional": ["11111110"] * 8,
    "s2s": ["11110000"] * 4 + CAUSAL + ["11111110"],
    "bar": ["11111110"] * 4 + CAUSAL + ["11111110"],
    "non_cross": ["11110000"] * 4 + ["00001110"] * 4,
}


def table(rows: list[str]) -> np.ndarray:
    return np.array([[cell == "1" for cell in row] for row in rows])


@pytest.mark.parametrize(("pad_visible", "tables"), [(False, CLEAN), (True, RELEASED)])
@pytest.mark.parametrize("kind", sorted(CLEAN))
def test_the_tables_of_the_specification(kind: str, pad_visible: bool, tables: dict[str, list[str]]) -> None:
    mask = visible(kind, 4, jnp.array([3]), 4, pad_visible=pad_visible)
    np.testing.assert_array_equal(mask[0], table(tables[kind]))


@pytest.mark.parametrize(("pad_visible", "tables"), [(False, CLEAN), (True, RELEASED)])
def test_mixed_is_one_table_or_the_other_per_example(pad_visible: bool, tables: dict[str, list[str]]) -> None:
    use_s2s = jnp.array([True, False, True])
    mask = visible("mixed", 4, jnp.array([3, 3, 3]), 4, use_s2s=use_s2s, pad_visible=pad_visible)
    for example, s2s in enumerate(use_s2s):
        np.testing.assert_array_equal(mask[example], table(tables["s2s" if s2s else "bidirectional"]))


def test_the_additive_mask_is_zero_or_far_below() -> None:
    mask = attention_mask("s2s", 4, jnp.array([3, 1]), 4)
    assert mask.shape == (2, 1, 8, 8)
    assert mask.dtype == jnp.float32
    np.testing.assert_array_equal(mask[:, 0] == 0, visible("s2s", 4, jnp.array([3, 1]), 4))
    np.testing.assert_array_equal(mask[:, 0] == np.float32(MASKED), ~visible("s2s", 4, jnp.array([3, 1]), 4))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="unknown attention kind 'full'"):
        visible("full", 4, jnp.array([3]), 4)
    with pytest.raises(ValueError, match="use_s2s"):
        visible("mixed", 4, jnp.array([3]), 4)
    with pytest.raises(ValueError, match="use_s2s"):
        visible("bar", 4, jnp.array([3]), 4, use_s2s=jnp.array([True]))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(KINDS), st.integers(2, 6), st.integers(1, 6), st.booleans(), st.data())
def test_any_size(kind: str, image_len: int, text_len: int, pad_visible: bool, data: st.DataObject) -> None:
    lens = data.draw(st.lists(st.integers(1, text_len), min_size=1, max_size=3))
    use_s2s = np.array(data.draw(st.lists(st.booleans(), min_size=len(lens), max_size=len(lens))))
    mask = np.asarray(
        visible(
            kind,
            image_len,
            jnp.array(lens),
            text_len,
            use_s2s=jnp.array(use_s2s) if kind == "mixed" else None,
            pad_visible=pad_visible,
        )
    )
    expected = mask_tables(kind, image_len, np.array(lens), text_len, use_s2s, pad_visible)
    np.testing.assert_array_equal(mask, expected)
    assert mask.any(axis=-1).all(), "a query that sees nothing has no softmax"
    if not pad_visible:
        for example, valid in enumerate(lens):
            assert not mask[example, :, image_len + valid :].any(), "a [PAD] key is visible"
