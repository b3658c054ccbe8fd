"""Intervals and p values against what is known about them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.metrics import bootstrap
from medvill_jax.metrics.bootstrap import (
    holm,
    interval,
    interval_of,
    interval_of_weights,
    mean,
    paired,
    paired_of_weights,
)


def rows_of(values) -> np.ndarray:
    values = np.asarray(values, float)
    return np.stack([values, np.ones_like(values)], 1)


def test_interval_of_a_mean_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3, 2, 2000)
    low, high = interval(rows_of(values), mean, resamples=4000)[:, 0]
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert [low, high] == pytest.approx([values.mean() - half, values.mean() + half], abs=half / 10)


@given(st.lists(st.floats(-10, 10), min_size=8, max_size=40), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_interval_of_a_mean_holds_the_mean_and_ignores_nothing(values: list[float], seed: int) -> None:
    rows = rows_of(values)
    (low,), (high,) = interval(rows, mean, seed=seed, resamples=400)
    assert low - 1e-9 <= np.mean(values) <= high + 1e-9
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert np.array_equal(interval(rows, mean, seed=seed, resamples=400), [[low], [high]])


def test_the_seed_decides() -> None:
    rows = rows_of(np.arange(50))
    assert not np.array_equal(interval(rows, mean, seed=0), interval(rows, mean, seed=1))
    one, again = (paired(rows, rows[::-1], mean, seed=3) for _ in range(2))
    for name, values in vars(one).items():
        assert np.array_equal(values, vars(again)[name])


def test_memory_bound_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(np.random.default_rng(0).normal(size=30))
    whole = interval(rows, mean, resamples=100), paired(rows, rows[::-1], mean, method="bootstrap", resamples=100)
    monkeypatch.setattr(bootstrap, "_CHUNK", 30 * 7)
    monkeypatch.setattr(bootstrap, "_SLICE", 4)
    parts = interval(rows, mean, resamples=100), paired(rows, rows[::-1], mean, method="bootstrap", resamples=100)
    np.testing.assert_allclose(parts[0], whole[0])
    np.testing.assert_allclose(parts[1].low, whole[1].low)
    np.testing.assert_allclose(parts[1].p, whole[1].p)


def test_rows_of_a_subject_are_drawn_together() -> None:
    # Ten copies of each of 20 values are no more than 20 values; drawn one by one they would seem 200.
    values = np.random.default_rng(0).normal(size=20)
    rows, subjects = rows_of(np.repeat(values, 10)), np.repeat([f"p{k}" for k in range(20)], 10)
    alone = interval(rows_of(values), mean, seed=3)
    np.testing.assert_allclose(interval(rows, mean, clusters=subjects, seed=3), alone)
    order = np.random.default_rng(1).permutation(200)
    together = interval(rows[order], mean, clusters=subjects[order], resamples=4000)
    assert np.ptp(together) == pytest.approx(np.ptp(interval(rows_of(values), mean, resamples=4000)), rel=0.1)
    assert np.ptp(interval(rows, mean)) < 0.5 * np.ptp(alone)
    # Nor does it make two runs that differ at two of 20 more certain to differ.
    other = rows_of(np.repeat(values + (np.arange(20) < 2), 10))
    assert paired(rows, other, mean, clusters=subjects).p[0] > 0.4
    assert paired(rows, other, mean).p[0] < 0.01


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-9, 9)), min_size=1, max_size=20), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_every_kind_of_interval_draws_the_same_subjects(examples, seed: int) -> None:
    subjects, values = map(np.array, zip(*examples, strict=True))
    some = {"clusters": subjects, "resamples": 50, "seed": seed}
    of_sums = interval(rows_of(values), mean, **some)[:, 0]
    assert of_sums == pytest.approx(interval_of(lambda drawn: values[drawn].mean(), len(values), **some))
    sums = bootstrap.cluster_sums(rows_of(values), subjects)
    assert sums.sum(0) == pytest.approx([values.sum(), len(values)])
    of_weights = interval_of_weights(lambda drawn: mean(drawn @ sums), len(sums), resamples=50, seed=seed)
    assert of_sums == pytest.approx(of_weights[:, 0])


def test_subjects_with_one_row_each_are_rows() -> None:
    rows, subjects = rows_of(np.arange(9.0)), list("ihgfedcba")
    assert np.array_equal(interval(rows, mean, clusters=subjects), interval(rows, mean))
    assert bootstrap.resampled(subjects, 9) == bootstrap.resampled(None, 9) == {"resampled_rows": 9}
    assert bootstrap.resampled([*"aab", *"bbc"], 6) == {"resampled_subjects": 3}
    assert bootstrap.resampled_words({"test/resampled_rows": 1234.0}, "test/") == "95 % intervals resample 1,234 rows"
    assert bootstrap.resampled_words({"resampled_subjects": 3.0}) == "95 % intervals resample 3 subjects"
    assert bootstrap.numbered(["b", "a", "b", "c"], 4).tolist() == [0, 1, 0, 2]


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.2 take the factors 4, 3, 2, 1, and none is below the one before.
    assert holm(np.array([0.02, 0.2, 0.01, 0.03])) == pytest.approx([0.06, 0.2, 0.04, 0.06])
    assert holm(np.array([0.4, 0.3])) == pytest.approx([0.6, 0.6])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1, 1])
    assert holm(np.array([0.02])) == pytest.approx([0.02])
    # What was not compared does not count; each row of several is a family of its own.
    several = holm(np.array([[0.02, np.nan, 0.01], [np.nan] * 3]))
    assert several == pytest.approx(np.array([[0.02, np.nan, 0.02], [np.nan] * 3]), nan_ok=True)


def test_any_metric_has_an_interval_and_it_is_that_of_the_sums() -> None:
    values = np.random.default_rng(1).exponential(size=40)
    numbers = interval_of(lambda drawn: values[drawn].mean(), len(values), resamples=300, seed=5)
    assert numbers == pytest.approx(tuple(interval(rows_of(values), mean, resamples=300, seed=5)[:, 0]))


@pytest.mark.parametrize("chunk", [1, 1000, 10**9])
def test_a_metric_of_weights_has_the_interval_of_the_drawn_examples(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_CHUNK", chunk)
    values = np.random.default_rng(1).exponential(size=40)

    def medians(drawn: np.ndarray) -> np.ndarray:
        assert drawn.shape[1:] == (40,)
        assert (drawn.sum(1) == 40).all()
        return np.array([[np.median(np.repeat(values, row.astype(int)))] for row in drawn])

    low, high = interval_of_weights(medians, 40, resamples=100, seed=5)[:, 0]
    assert (low, high) == interval_of(lambda drawn: float(np.median(values[drawn])), 40, resamples=100, seed=5)


def test_one_example_and_equal_examples_have_an_interval_of_no_width() -> None:
    assert interval(rows_of([0.25]), mean).tolist() == [[0.25], [0.25]]
    assert interval(rows_of([0.5] * 9), mean).tolist() == [[0.5], [0.5]]


def test_undefined_metrics() -> None:
    rows = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    ratio = mean  # NaN in a resample without the first row, which is left out
    assert interval(rows, ratio).tolist() == [[1.0], [1.0]]
    assert np.isnan(interval(rows[1:], ratio)).all()
    result = paired(rows[1:], rows[1:], ratio)
    assert all(np.isnan(each).all() for each in vars(result).values())


@pytest.mark.parametrize("method", ["randomisation", "bootstrap"])
def test_p_values(method) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=300)
    better = paired(rows_of(a), rows_of(a + 0.3 + rng.normal(0, 0.5, 300)), mean, method=method)
    assert better.p[0] == pytest.approx(1 / 1001)
    assert 0 < better.low[0] < better.difference[0] < better.high[0]
    same = paired(rows_of(a), rows_of(a), mean, method=method)
    assert (same.difference[0], same.low[0], same.high[0], same.p[0]) == (0, 0, 0, 1)


def test_swapping_the_runs_turns_the_difference_around() -> None:
    rng = np.random.default_rng(0)
    a, b = rows_of(rng.normal(size=60)), rows_of(rng.normal(0.2, 1, size=60))
    one, other = paired(a, b, mean), paired(b, a, mean)
    assert one.difference == pytest.approx(-other.difference)
    assert one.low == pytest.approx(-other.high)
    assert one.p == pytest.approx(other.p)


def test_randomisation_by_enumeration() -> None:
    # Five examples, all better by 1: of 32 ways to swap, 2 have a difference as large; p goes to 1/16.
    a = rows_of([0.0] * 5)
    assert paired(a, rows_of([1.0] * 5), mean, resamples=20_000).p[0] == pytest.approx(1 / 16, abs=0.006)


def test_p_values_are_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    draws = [(rng.normal(size=40), rng.normal(size=40)) for _ in range(300)]
    p = np.array([paired(rows_of(a), rows_of(b), mean, resamples=200, seed=k).p[0] for k, (a, b) in enumerate(draws)])
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=0.07)


def test_a_thousand_resamples_are_drawn_in_few_blocks() -> None:
    blocks = []

    def statistic(sums: np.ndarray) -> np.ndarray:
        blocks.append(sums.shape[:-1])
        return sums[..., :4] / sums[..., 4:8]

    limits = interval(np.random.default_rng(0).integers(0, 9, (3000, 10)), statistic)
    assert limits.shape == (2, 4)
    assert sum(int(np.prod(shape)) for shape in blocks) == 1000
    assert len(blocks) < 50


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval(np.zeros((0, 2)), mean), "at least one example"),
        (lambda: interval(np.zeros(3), mean), "expected"),
        (lambda: interval(rows_of([1]), mean, resamples=0), "resamples=0"),
        (lambda: interval(rows_of([1]), mean, level=95), "level=95"),
        (lambda: interval_of_weights(mean, 0), "at least one example"),
        (lambda: interval(rows_of([1, 2]), mean, clusters=["a"]), "2 rows, but 1 cluster identifiers"),
        (lambda: paired(rows_of([1]), rows_of([1, 2]), mean), "the runs have rows of shapes"),
        (lambda: paired(rows_of([1]), rows_of([1]), mean, method="t"), "there are randomisation, bootstrap"),  # pyright: ignore
    ],
)
def test_wrong_arguments_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_of_weights_equals_the_test_of_sums() -> None:
    rng = np.random.default_rng(0)
    a, b = rows_of(rng.normal(0, 1, 30)), rows_of(rng.normal(0.5, 1, 30))
    both = np.concatenate([a, b])
    of_sums, of_weights = (
        paired(a, b, mean, seed=5),
        paired_of_weights(lambda weights: mean(bootstrap.sums(weights, both)), 30, seed=5),
    )
    for name, values in vars(of_sums).items():
        assert getattr(of_weights, name) == pytest.approx(values, abs=1e-12), name


def test_of_weights_no_difference_is_undefined_where_a_value_is() -> None:
    found = paired_of_weights(lambda weights: np.full((len(weights), 1), np.nan), 4, resamples=10)
    assert all(np.isnan(values).all() for values in vars(found).values())
