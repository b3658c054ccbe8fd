"""Ranking metrics on tables made by hand, under every order of tiny pools, and against simulated chance."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import rankdata

from medvill_jax.metrics import bootstrap, ranking
from medvill_jax.metrics.ranking import chance, exact_pair, mean_ranks, two_stage

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)
# Few values, so that scores tie.
FEW = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0])

SCORES = np.array(
    [
        [0.9, 0.8, 0.7, 0.6],  # ranks 1 2 3 4
        [0.1, 0.5, 0.5, 0.9],  # 4 2.5 2.5 1
        [0.3, 0.3, 0.3, 0.3],  # 2.5 for all
        [0.4, 0.3, 0.2, 0.1],  # nothing relevant
    ]
)
RELEVANT = np.array([[0, 1, 0, 1], [0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0]], bool)


@given(hnp.arrays(np.float64, SHAPES, elements=FEW))
@settings(max_examples=100, deadline=None)
def test_ranks_equal_scipy(scores: np.ndarray) -> None:
    assert np.array_equal(mean_ranks(scores), rankdata(-scores, method="average", axis=1))


def test_memory_bound_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).integers(0, 9, (20, 11)).astype(np.float32)
    whole = mean_ranks(scores)
    monkeypatch.setattr(ranking, "_CHUNK", 30)
    assert np.array_equal(mean_ranks(scores), whole)
    assert np.array_equal(whole, rankdata(-scores, method="average", axis=1))


def test_label_conditioned_by_hand() -> None:
    metrics = ranking.ranking(SCORES, RELEVANT, ks=(1, 2, 3, 9), resamples=0)
    assert metrics == pytest.approx(
        {
            "queries": 4,
            "queries_without_relevant": 1,
            "mrr": (1 / 2 + 1 / 2.5 + 1 / 2.5) / 3,
            "hit_at_1": 0,
            "hit_at_2": 1 / 3,
            "hit_at_3": 1,
            "hit_at_9": 1,
            "recall_at_1": 0,
            "recall_at_2": (1 / 2 + 0 + 0) / 3,
            "recall_at_3": (1 / 2 + 1 + 1) / 3,
            "recall_at_9": 1,
            "precision_at_1": 0,
            "precision_at_2": (1 / 2 + 0 + 0) / 3,
            # All four tie at rank 2.5, within the top 3: three of the four are relevant.
            "precision_at_3": (1 / 3 + 1 / 3 + 3 / 4) / 3,
            # The pool has 4.
            "precision_at_9": (2 / 4 + 1 / 4 + 3 / 4) / 3,
        }
    )
    assert list(metrics)[2:5] == ["mrr", "hit_at_1", "hit_at_2"]


def test_exact_pair_by_hand() -> None:
    metrics = exact_pair(SCORES, np.array([0, 2, 3, 3]), ks=(1, 3), resamples=0)  # ranks 1, 2.5, 2.5, 4
    assert metrics == pytest.approx(
        {
            "exact/mrr": (1 + 1 / 2.5 + 1 / 2.5 + 1 / 4) / 4,
            "exact/recall_at_1": 1 / 4,
            "exact/recall_at_3": 3 / 4,
            "exact/median_rank": 2.5,
        }
    )


def test_published_formulas_without_ties() -> None:
    """As the released code has them: r is the place, from 0, of the first relevant candidate in the sorted list."""
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(30.0), (25, 1)), axis=1)
    relevant = rng.random((25, 30)) < 0.1
    relevant[:, 0] = True
    metrics = ranking.ranking(scores, relevant, resamples=0)
    ordered = np.take_along_axis(relevant, np.argsort(-scores, 1), 1)
    first = ordered.argmax(1)
    assert metrics["mrr"] == pytest.approx((1 / (first + 1)).mean())
    for k in (1, 5, 10):
        top = ordered[:, :k].sum(1)
        assert metrics[f"hit_at_{k}"] == pytest.approx((first < k).mean())
        assert metrics[f"recall_at_{k}"] == pytest.approx((top / ordered.sum(1)).mean())
        assert metrics[f"precision_at_{k}"] == pytest.approx((top / k).mean())


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_order_of_candidates_and_monotone_scores_change_nothing(data: st.DataObject) -> None:
    scores = data.draw(hnp.arrays(np.float64, SHAPES, elements=FEW))
    relevant = data.draw(hnp.arrays(bool, scores.shape))
    own = data.draw(hnp.arrays(np.int64, scores.shape[0], elements=st.integers(0, scores.shape[1] - 1)))
    order = np.array(data.draw(st.permutations(range(scores.shape[1]))))
    moved = np.argsort(order)[own]
    first = ranking.ranking(scores, relevant, resamples=9) | exact_pair(scores, own, resamples=9)
    for other in (
        ranking.ranking(scores[:, order], relevant[:, order], resamples=9)
        | exact_pair(scores[:, order], moved, resamples=9),
        ranking.ranking(np.exp(scores), relevant, resamples=9) | exact_pair(np.exp(scores), own, resamples=9),
    ):
        assert list(other) == list(first)
        for name, value in first.items():
            assert other[name] == pytest.approx(value, nan_ok=True)
            if "resampled" in name:
                assert value == len(scores) if name.startswith("exact") else value <= len(scores)  # pyright: ignore
            elif name.endswith("_ci95"):
                assert np.isnan(value).all() or value[0] <= value[1]  # pyright: ignore
            elif "queries" not in name and "median" not in name:
                assert np.isnan(value) or 0 <= value <= 1  # pyright: ignore
    assert list(chance(relevant, own)) == [
        name for name in first if not any(part in name for part in ("queries", "_ci95", "resampled"))
    ]


def test_own_candidates_alone_relevant_is_the_exact_pair() -> None:
    rng = np.random.default_rng(0)
    scores, own = rng.integers(0, 20, (30, 15)), rng.integers(0, 15, 30)
    relevant = np.arange(15) == own[:, None]
    conditioned, exact = ranking.ranking(scores, relevant), exact_pair(scores, own)
    for name in ("mrr", "recall_at_1", "recall_at_5", "recall_at_10"):
        for ending in ("", "_ci95"):
            assert exact[f"exact/{name}{ending}"] == pytest.approx(conditioned[f"{name}{ending}"])
    assert conditioned["hit_at_5"] == conditioned["recall_at_5"]


def test_intervals_are_those_of_the_drawn_queries() -> None:
    rng = np.random.default_rng(3)
    scores, relevant = rng.integers(0, 30, (24, 12)), rng.random((24, 12)) < 0.2
    relevant[:, 0] |= ~relevant.any(1)
    relevant[[4, 9]] = False
    own = rng.integers(0, 12, 24)
    some = np.nonzero(relevant.any(1))[0]
    metrics = ranking.ranking(scores, relevant, resamples=80, seed=2)
    exact = exact_pair(scores, own, resamples=80, seed=2)
    for name in [each for each in metrics if f"{each}_ci95" in metrics]:
        expected = bootstrap.interval_of(
            lambda drawn, name=name: ranking.ranking(scores[some[drawn]], relevant[some[drawn]], resamples=0)[name],
            len(some),
            resamples=80,
            seed=2,
        )
        assert metrics[f"{name}_ci95"] == pytest.approx(expected)
    for name in [each for each in exact if f"{each}_ci95" in exact]:
        expected = bootstrap.interval_of(
            lambda drawn, name=name: exact_pair(scores[drawn], own[drawn], resamples=0)[name], 24, resamples=80, seed=2
        )
        assert exact[f"{name}_ci95"] == pytest.approx(expected)


def test_queries_of_a_patient_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    scores, relevant, own = rng.random((12, 9)), rng.random((12, 9)) < 0.4, rng.integers(0, 9, 12)
    relevant[:, 0] = True
    several = [np.repeat(each, 3, axis=0) for each in (scores, relevant, own)]
    patients = np.repeat([f"p{k}" for k in range(12)], 3)
    found = ranking.ranking(*several[:2], clusters=patients) | exact_pair(several[0], several[2], clusters=patients)
    alone = ranking.ranking(scores, relevant) | exact_pair(scores, own)
    for name in [each for each in alone if each.endswith("_ci95")]:
        assert found[name] == pytest.approx(alone[name])
    assert (found["resampled_subjects"], found["exact/resampled_subjects"]) == (12, 12)
    assert (alone["resampled_rows"], alone["exact/resampled_rows"]) == (12, 12)
    # Whoever has no query with a relevant candidate is not drawn.
    several[1][:3] = False
    assert ranking.ranking(*several[:2], clusters=patients, resamples=5)["resampled_subjects"] == 11


def test_no_relevant_candidate_anywhere() -> None:
    metrics = ranking.ranking(SCORES, np.zeros((4, 4), bool), resamples=5)
    assert (metrics["queries"], metrics["queries_without_relevant"]) == (4, 4)
    for name, value in metrics.items():
        assert name.startswith(("queries", "resampled")) or np.isnan(value).all()
    assert all(math.isnan(value) for value in chance(np.zeros((4, 4), bool)).values())


@pytest.mark.parametrize("pool", [1, 2, 3, 4, 5, 6])
def test_chance_is_the_mean_over_all_orders(pool: int) -> None:
    orders = np.array(list(itertools.permutations(range(pool))), float)
    ks = (1, 2, 3, 5, 9)
    for positives in range(1, pool + 1):
        relevant = np.tile(np.arange(pool) < positives, (len(orders), 1))
        own = np.zeros(len(orders), np.int64)
        expected = ranking.ranking(orders, relevant, ks=ks, resamples=0)
        expected |= exact_pair(orders, own, ks=ks, resamples=0)
        for name, value in chance(relevant[:1], own[:1], ks).items():
            assert value == pytest.approx(expected[name], abs=1e-12), name


def test_median_rank_of_chance_is_the_mean_over_all_orders_of_all_queries() -> None:
    for pool, queries in itertools.product((3, 4), (2, 3)):
        ranks = np.array(list(itertools.product(range(1, pool + 1), repeat=queries)))
        found = chance(np.ones((queries, pool), bool), np.zeros(queries, int))["exact/median_rank"]
        assert found == pytest.approx(np.median(ranks, axis=1).mean())


def test_chance_is_the_mean_of_random_scores() -> None:
    rng = np.random.default_rng(0)
    relevant = rng.random((8, 40)) < np.array([0, 0.02, 0.05, 0.1, 0.1, 0.3, 0.5, 1])[:, None]
    relevant[1, 3] = True
    own = rng.integers(0, 40, 8)
    times = 4000
    runs = [
        ranking.ranking(scores, relevant, resamples=0) | exact_pair(scores, own, resamples=0)
        for scores in rng.random((times, 8, 40))
    ]
    for name, value in chance(relevant, own).items():
        values = np.array([run[name] for run in runs])
        # Five standard errors; the seed is fixed.
        assert value == pytest.approx(values.mean(), abs=5 * values.std() / math.sqrt(times) + 1e-12), name


def test_chance_of_large_pools_is_finite_and_falls_with_rarity() -> None:
    relevant = np.arange(5000) < np.array([[1], [20], [2500], [5000]])
    each = [chance(row[None]) for row in relevant]
    assert [one["mrr"] for one in each] == sorted(one["mrr"] for one in each)
    assert each[0]["mrr"] == pytest.approx((1 / np.arange(1, 5001)).sum() / 5000)
    assert each[2]["hit_at_10"] == pytest.approx(1 - 0.5**10, abs=1e-5)
    assert each[3] == pytest.approx(
        {name: 1 if "recall" not in name else int(name.split("_")[-1]) / 5000 for name in each[3]}
    )


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_two_stages(data: st.DataObject) -> None:
    proposal = data.draw(hnp.arrays(np.float64, SHAPES, elements=FEW))
    reranked = data.draw(hnp.arrays(bool, proposal.shape))
    rerank = data.draw(hnp.arrays(np.float64, proposal.shape, elements=FEW))
    combined = two_stage(proposal, reranked, np.where(reranked, rerank, np.nan))
    assert np.isfinite(combined).all()
    for row, first, mask, second in zip(combined, proposal, reranked, rerank, strict=True):
        if mask.any() and not mask.all():
            assert row[mask].min() > row[~mask].max()
        for some, scores in ((mask, second), (~mask, first)):
            for a, b in itertools.combinations(np.nonzero(some)[0], 2):
                assert (row[a] > row[b], row[a] < row[b]) == (scores[a] > scores[b], scores[a] < scores[b])
    everything = np.ones(proposal.shape, bool)
    assert np.array_equal(mean_ranks(two_stage(proposal, everything, rerank)), mean_ranks(rerank))
    assert np.array_equal(mean_ranks(two_stage(proposal, ~everything, rerank)), mean_ranks(proposal))


def test_two_stages_by_hand() -> None:
    proposal = np.array([[0.9, 0.8, 0.7, 0.6, 0.7]])
    reranked = np.array([[1, 1, 0, 0, 0]], bool)
    combined = two_stage(proposal, reranked, np.array([[-5.0, 3.0, 9.0, 9.0, 9.0]]))
    assert mean_ranks(combined).tolist() == [[2, 1, 3.5, 5, 3.5]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_ranks(np.zeros((0, 3))), r"shape \[0, 3\]; expected \[Q, C\]"),
        (lambda: ranking.ranking(np.zeros((3, 0)), np.zeros((3, 0))), r"shape \[3, 0\]; expected"),
        (lambda: ranking.ranking(SCORES, RELEVANT[:, :3]), r"scores of shape \[4, 4\], but relevant of \[4, 3\]"),
        (lambda: ranking.ranking(np.where(RELEVANT, np.nan, SCORES), RELEVANT), "6 of 16 scores are NaN"),
        (lambda: ranking.ranking(SCORES, RELEVANT, ks=(0,)), r"ks=\(0,\)"),
        (lambda: ranking.ranking(SCORES, RELEVANT, ks=()), r"ks=\(\)"),
        (lambda: exact_pair(SCORES, np.array([0, 1, 2, 4])), "true names candidate 4 .*0 to 3"),
        (lambda: exact_pair(SCORES, np.array([0, 1, 2])), r"of shape \[3\]; expected"),
        (lambda: exact_pair(SCORES, np.zeros(4)), "true is float64"),
        (lambda: chance(np.zeros((2, 0), bool)), r"relevant of shape \[2, 0\]"),
        (lambda: chance(RELEVANT, np.array([0, 1, 2, -1])), "true names candidate -1"),
        (lambda: two_stage(SCORES, RELEVANT[:2], SCORES), "but reranked of"),
        (lambda: two_stage(SCORES, RELEVANT, SCORES[:, :1]), "but rerank of"),
        (lambda: two_stage(SCORES, RELEVANT, SCORES * np.nan), "6 of 16 scores that count are NaN"),
    ],
)
def test_wrong_arguments_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
