"""Metrics of retrieval: every query ranks the same pool of candidates by score.

Ties: candidates with equal scores share their mean rank, counted from 1, so a model gains nothing from the order of the
pool. Probabilities tie where they saturate (1.0 in float32); logits do not.

There are two protocols (formulas in `ranking` and `exact_pair`). Label-conditioned, as published: the candidates with
the query's labels are relevant; a query may have many or none. Exact pair: only the true candidate counts, such as the
report of the film.

See docs/spec.md#retrieval-metrics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from medvill_jax.metrics import bootstrap

Value = float | list[float]

KS = (1, 5, 10)
# How many scores are ranked at once, which bounds the memory for any number of queries.
_CHUNK = 2_000_000


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks of candidates by descending score, from 1; equal scores share their mean rank.

    Args:
      scores: `[Q, C]`, one row for each query.

    Returns:
      float64 `[Q, C]`, multiples of 1/2.

    Raises:
      ValueError: no query, no candidate, or scores that are NaN.
    """
    scores = _scores("scores", scores)
    ranks = np.empty(scores.shape)
    size = max(1, _CHUNK // scores.shape[1])
    for start in range(0, len(scores), size):
        ranks[start : start + size] = stats.rankdata(-scores[start : start + size], axis=1)
    return ranks


def own_ranks(scores: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranks of each query's best relevant candidate, and of the candidate of its own number.

    Args:
      scores: `[Q, Q]`, higher is better.
      relevant: bool `[Q, Q]`; at least a query's own candidate.

    Returns:
      float64 `[Q]` each; see `mean_ranks`.
    """
    ranks = mean_ranks(scores)
    return np.where(relevant, ranks, np.inf).min(1), ranks.diagonal()


def ranking(
    scores: np.ndarray,
    relevant: np.ndarray,
    *,
    ks: Sequence[int] = KS,
    clusters: bootstrap.Clusters = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Value]:
    """Label-conditioned metrics: means over the queries with a relevant candidate.

    "In the top K" means a rank of at most K. A K larger than the pool counts as the size of the pool.

    * `mrr`: 1 / rank of the best relevant candidate;
    * `hit_at_K`: whether a relevant candidate is in the top K;
    * `recall_at_K`: the fraction of the relevant candidates that are in the top K;
    * `precision_at_K`: the relevant candidates in the top K, over K, or over all in the top K if ties make more than K.

    Args:
      scores: `[Q, C]`, higher is better.
      relevant: bool `[Q, C]`.
      ks: the values of K.
      clusters: an identifier for each query, of its patient; intervals resample patients, or queries for None. The pool
        of candidates is not resampled.
      resamples: for the intervals; 0 leaves them out.
      seed: of the resamples.

    Returns:
      `queries`, `queries_without_relevant` (which are in `queries`, but in no mean), and the metrics above, in [0, 1],
      each with an interval `NAME_ci95`: [low, high]; `bootstrap.resampled` says what these resample. NaN if no query
      has a relevant candidate.

    Raises:
      ValueError: no query or candidate, shapes or lengths that differ, scores that are NaN, or a K below 1.
    """
    ks, ranks, relevant = _ks(ks), mean_ranks(scores), _relevant(relevant)
    count = len(ranks)
    if ranks.shape != relevant.shape:
        raise ValueError(f"scores of shape {list(ranks.shape)}, but relevant of {list(relevant.shape)}")
    scored = relevant.any(1)
    ranks, relevant, cluster_of = ranks[scored], relevant[scored], bootstrap.numbered(clusters, count)[scored]
    by_query = {"mrr": 1 / np.where(relevant, ranks, np.inf).min(1)}
    for k in ks:
        size = min(k, ranks.shape[1])
        top = ranks <= size
        hits = (top & relevant).sum(1)
        by_query[f"hit_at_{k}"] = hits > 0
        by_query[f"recall_at_{k}"] = hits / relevant.sum(1)
        by_query[f"precision_at_{k}"] = hits / np.maximum(top.sum(1), size)
    return {
        "queries": float(count),
        "queries_without_relevant": float(count - len(ranks)),
        **_means({name: by_query[name] for name in _names(ks)}, cluster_of, resamples, seed),
    }


def exact_pair(
    scores: np.ndarray,
    true: np.ndarray,
    *,
    ks: Sequence[int] = KS,
    clusters: bootstrap.Clusters = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Value]:
    """Metrics of the rank of each query's true candidate.

    Args:
      scores: `[Q, C]`, higher is better.
      true: int `[Q]`, the column of each query's true candidate.
      ks, clusters, resamples, seed: as in `ranking`.

    Returns:
      `exact/mrr`, `exact/recall_at_K` (the true candidate is in the top K) and `exact/median_rank` (from 1), each with
      an interval `NAME_ci95`; `exact/resampled_...` says what these resample.

    Raises:
      ValueError: as in `ranking`; a true candidate outside the pool.
    """
    ks, ranks = _ks(ks), mean_ranks(scores)
    rank = np.take_along_axis(ranks, _true_candidates(true, ranks.shape)[:, None], 1)[:, 0]
    by_query = {"exact/mrr": 1 / rank} | {f"exact/recall_at_{k}": rank <= min(k, ranks.shape[1]) for k in ks}
    cluster_of = bootstrap.numbered(clusters, len(rank))
    metrics = _means(by_query, cluster_of, resamples, seed, "exact/")
    metrics["exact/median_rank"] = float(np.median(rank))
    if resamples:
        limits = bootstrap.interval_of(
            lambda drawn: float(np.median(rank[drawn])), len(rank), clusters=cluster_of, resamples=resamples, seed=seed
        )
        metrics["exact/median_rank_ci95"] = list(limits)
    return metrics


def chance(relevant: np.ndarray, true: np.ndarray | None = None, ks: Sequence[int] = KS) -> dict[str, float]:
    """The expected metrics of `ranking` and `exact_pair` if every query ranks its pool in random order.

    The values are exact. In a pool of N candidates of which P are relevant, none of the first r is relevant with
    probability C(N - P, r) / C(N, r); `hit_at_K` and the distribution of the best rank, and so `mrr`, follow from this.

    Args:
      relevant: bool `[Q, C]`; queries without a relevant candidate are left out, as in `ranking`.
      true: as in `exact_pair`; None: no `exact/...`.
      ks: the values of K.

    Returns:
      The metrics of `ranking` (NaN if no query has a relevant candidate) and `exact_pair`, under the same names.

    Raises:
      ValueError: as in `ranking` and `exact_pair`.
    """
    ks, relevant = _ks(ks), _relevant(relevant)
    pool = relevant.shape[1]
    positives, queries = np.unique(relevant.sum(1), return_counts=True)
    positives, queries = positives[positives > 0], queries[positives > 0]
    metrics = {"mrr": _average([_mean_reciprocal(p, pool) for p in positives.tolist()], queries)}
    for k in ks:
        size = min(k, pool)
        metrics[f"hit_at_{k}"] = _average([1 - _none_of(p, pool)[size] for p in positives.tolist()], queries)
        metrics[f"recall_at_{k}"] = _average([size / pool] * len(queries), queries)
        metrics[f"precision_at_{k}"] = _average(positives / pool, queries)
    metrics = {name: metrics[name] for name in _names(ks)}
    if true is not None:
        _true_candidates(true, relevant.shape)
        metrics["exact/mrr"] = _mean_reciprocal(1, pool)
        metrics |= {f"exact/recall_at_{k}": min(k, pool) / pool for k in ks}
        # Ranks of queries are independent and symmetrically distributed, so their median is symmetric too.
        metrics["exact/median_rank"] = (pool + 1) / 2
    return metrics


def _none_of(positives: int, pool: int) -> np.ndarray:
    """The probability that none of the first r is relevant, float64 `[pool + 1]` for r = 0 to pool."""
    left = np.arange(pool, 0, -1)
    return np.append(1.0, np.cumprod(np.maximum(left - positives, 0) / left))


def _mean_reciprocal(positives: int, pool: int) -> float:
    """The expected 1 / rank of the best relevant candidate."""
    best = _none_of(positives, pool)[:-1] * positives / np.arange(pool, 0, -1)
    return float((best / np.arange(1, pool + 1)).sum())


def _average(values: Sequence[float] | np.ndarray, queries: np.ndarray) -> float:
    return float(np.average(values, weights=queries)) if len(queries) else math.nan


def two_stage(proposal: np.ndarray, reranked: np.ndarray, rerank: np.ndarray) -> np.ndarray:
    """Combined scores of a two-stage search: candidates that the second stage scored come before all others.

    Args:
      proposal: `[Q, C]`, scores of the first stage, which order the candidates that were not re-ranked.
      reranked: bool `[Q, C]`, which candidates the second stage scored.
      rerank: `[Q, C]`, scores of the second stage; ignored where `reranked` is false.

    Returns:
      float64 `[Q, C]`, whole numbers in the order of the search; equal scores within a stage stay equal.

    Raises:
      ValueError: no query or candidate, shapes that differ, or a score that counts is NaN.
    """
    proposal, rerank, reranked = np.asarray(proposal), np.asarray(rerank), np.asarray(reranked, bool)
    for name, array in (("reranked", reranked), ("rerank", rerank)):
        if array.shape != proposal.shape:
            raise ValueError(f"proposal of shape {list(proposal.shape)}, but {name} of {list(array.shape)}")
    counting = _scores("scores that count", np.where(reranked, rerank, proposal))
    order = np.lexsort((counting, reranked), axis=1)
    differs = np.ones(counting.shape, bool)  # from the candidate before
    differs[:, 1:] = False
    for key in (counting, reranked):
        ordered = np.take_along_axis(key, order, 1)
        differs[:, 1:] |= ordered[:, 1:] != ordered[:, :-1]
    out = np.empty(counting.shape)
    np.put_along_axis(out, order, np.cumsum(differs, axis=1), 1)
    return out


def _names(ks: Sequence[int]) -> list[str]:
    return ["mrr", *(f"{metric}_at_{k}" for metric in ("hit", "recall", "precision") for k in ks)]


def _means(
    by_query: dict[str, np.ndarray], clusters: np.ndarray, resamples: int, seed: int, prefix: str = ""
) -> dict[str, Value]:
    """The means of metrics by query, `[Q]` each, their intervals, and what these resample."""
    rows = np.stack([*by_query.values(), np.ones(len(clusters))], 1).astype(np.float64)
    values = bootstrap.mean(rows.sum(0)).tolist()
    limits = [[math.nan, math.nan]] * len(values)
    if resamples and len(rows):
        limits = bootstrap.interval(rows, bootstrap.mean, clusters=clusters, resamples=resamples, seed=seed).T.tolist()
    metrics: dict[str, Value] = {}
    for name, value, pair in zip(by_query, values, limits, strict=True):
        metrics[name] = value
        if resamples:
            metrics[f"{name}_ci95"] = pair
    if resamples:
        metrics |= {f"{prefix}{name}": drawn for name, drawn in bootstrap.resampled(clusters, len(rows)).items()}
    return metrics


def _scores(name: str, scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"{name} of shape {list(scores.shape)}; expected [Q, C], at least one query and candidate")
    if nan := int(np.isnan(scores).sum()):
        raise ValueError(f"{nan} of {scores.size} {name} are NaN")
    return scores


def _relevant(relevant: np.ndarray) -> np.ndarray:
    relevant = np.asarray(relevant, bool)
    if relevant.ndim != 2 or not relevant.size:
        raise ValueError(f"relevant of shape {list(relevant.shape)}; expected [Q, C], at least one query and candidate")
    return relevant


def _true_candidates(true: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    true = np.asarray(true)
    if true.shape != shape[:1] or not np.issubdtype(true.dtype, np.integer):
        raise ValueError(
            f"true is {true.dtype} of shape {list(true.shape)}; expected a column number for {shape[0]} queries"
        )
    if bad := true[(true < 0) | (true >= shape[1])].tolist():
        raise ValueError(f"true names candidate {bad[0]} ({len(bad)} such); the pool has 0 to {shape[1] - 1}")
    return true


def _ks(ks: Sequence[int]) -> list[int]:
    if not ks or min(ks) < 1:
        raise ValueError(f"ks={tuple(ks)}; expected whole numbers of at least 1")
    return list(dict.fromkeys(ks))
