"""Dropout: which numbers fall is as good as independent, and what is kept for the gradient is small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medvill_jax.errors import ConfigError
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.dropout import GOLDEN, dropout, hashed

ROWS, COLUMNS, RATE = 1 << 15, 436, 0.1
KEY = jax.random.key(5)


@pytest.fixture(scope="module", params=[11, 12])
def fell(request: pytest.FixtureRequest) -> np.ndarray:
    """Which of `[ROWS, COLUMNS]` numbers fall, as float32 of mean 0 and variance 1 where they fall as they should."""
    kept = jax.jit(dropout, static_argnums=1)(jnp.ones((ROWS, COLUMNS)), RATE, jax.random.key(request.param)) > 0
    return (RATE - 1 + np.asarray(kept, np.float32)) / np.float32(np.sqrt(RATE * (1 - RATE)))


def standard(values: np.ndarray) -> float:
    """The distance of the mean of squares of standard normal numbers from 1, in its own standard deviations."""
    return float((np.mean(np.square(values, dtype=np.float64)) - 1) / np.sqrt(2 / values.size))


def correlations(rows: np.ndarray) -> np.ndarray:
    """Those of all pairs of rows, of variance 1 where they are independent."""
    return np.corrcoef(rows)[np.triu_indices(len(rows), 1)] * np.sqrt(rows.shape[1] - 1)


def test_the_rate_is_that_of_each_column(fell: np.ndarray) -> None:
    assert abs(fell.sum(dtype=np.float64)) < 4 * np.sqrt(fell.size)
    assert abs(standard(fell.sum(0) / np.sqrt(ROWS))) < 4


def test_rows_lose_as_many_as_independent_draws_would(fell: np.ndarray) -> None:
    assert abs(standard(fell.sum(1) / np.sqrt(COLUMNS))) < 4


def test_no_two_columns_fall_together(fell: np.ndarray) -> None:
    pairs = correlations(fell.T)
    assert abs(standard(pairs)) < 4
    assert np.abs(pairs).max() < 6


def test_no_two_rows_fall_together(fell: np.ndarray) -> None:
    pairs = correlations(fell[:4096])
    assert abs(standard(pairs)) < 4
    assert np.abs(pairs).max() < 10  # of rare events a few are far; two rows alike have 20


@pytest.mark.parametrize("steps", [(1, 2), (1, 3), (2, 5), (16, 48), (128, 256)])
def test_no_three_columns_fall_together(fell: np.ndarray, steps: tuple[int, int]) -> None:
    near, far = steps
    triples = fell[:, far:] * fell[:, near : near - far] * fell[:, :-far]
    assert abs(triples.sum(dtype=np.float64)) < 4 * np.sqrt(triples.size)


def test_rows_of_neighbouring_words_are_no_shifted_copies() -> None:
    first = jnp.array([7, 7 + GOLDEN], jnp.uint32)
    alike = hashed(first, jnp.array([3, 3], jnp.uint32), COLUMNS)
    apart = hashed(first, jnp.array([3, 4], jnp.uint32), COLUMNS)
    assert bool((alike[0, 1:] == alike[1, :-1]).all())
    assert not bool((apart[0, 1:] == apart[1, :-1]).any())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_what_stays_is_scaled_and_so_is_its_gradient(dtype: str, rate: float) -> None:
    x = jax.random.uniform(KEY, (3, 50, 64), dtype, 1.0, 2.0)
    y, backward = jax.vjp(lambda x: dropout(x, rate, KEY), x)
    assert y.dtype == x.dtype
    kept = np.asarray(y != 0)
    assert kept.mean() == pytest.approx(1 - rate, abs=4 * np.sqrt(rate * (1 - rate) / x.size))
    np.testing.assert_array_equal(y, jnp.where(kept, x / (1 - rate), 0))
    np.testing.assert_array_equal(backward(x)[0], y)


def test_nothing_falls_without_a_key_or_a_rate() -> None:
    x = jnp.ones((2, 3))
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, KEY) is x


def test_keys_and_rows_differ() -> None:
    x = jnp.ones((4, 8, 64))
    masks = [np.asarray(dropout(x, 0.5, jax.random.key(seed))).reshape(-1, 64) for seed in (1, 2)]
    assert len(np.unique(np.concatenate(masks), axis=0)) == 2 * 4 * 8
    np.testing.assert_array_equal(masks[0], np.asarray(dropout(x, 0.5, jax.random.key(1))).reshape(-1, 64))


def test_two_words_of_each_row_are_all_that_is_kept_for_the_gradient() -> None:
    shape = (8, 32, 256)
    kept = jax.eval_shape(
        lambda x: jax.vjp(lambda x: dropout(x, RATE, KEY), x)[1], jax.ShapeDtypeStruct(shape, "float32")
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) <= 2 * shape[0] * shape[1] + 1


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_a_rate_is_at_least_0_and_below_1(rate: float) -> None:
    with pytest.raises(ConfigError, match=f"dropout={rate:g}; it must be at least 0 and below 1"):
        BertConfig(dropout=rate)
