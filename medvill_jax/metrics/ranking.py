"""Figures of a retrieval: every query ranks the same pool of candidates by score.

Tie rule: the rank of a candidate is the mean rank, counted from 1, of all candidates with its score. A model that gives
equal scores gains nothing from the order in which candidates happen to stand. Scores that saturate tie (probabilities
of 1.0 in float32); logits do not.

Two protocols (formulas in `ranking` and `exact_pair`). Label-conditioned: the candidates with the query's labels are
relevant, as published; a query may have many or none. Exact pair: only the query's own candidate counts. See
docs/spec.md#retrieval-metrics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medvill_jax.metrics import bootstrap

Value = float | list[float]

KS = (1, 5, 10)
# Scores ranked at once; bounds the memory for any number of queries.
_CHUNK = 2_000_000


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks of candidates by descending score, from 1; equal scores share their mean rank.

    Args:
      scores: `[Q, C]`, one row a query.

    Returns:
      float64 `[Q, C]`, in halves.

    Raises:
      ValueError: no query, no candidate, or scores that are NaN.
    """
    scores = _scores("scores", scores)
    ranks = np.empty(scores.shape)
    size = max(1, _CHUNK // scores.shape[1])
    for start in range(0, len(scores), size):
        ranks[start : start + size] = _mean_ranks(scores[start : start + size])
    return ranks


def _mean_ranks(scores: np.ndarray) -> np.ndarray:
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, 1)
    numbers = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    new = np.ones(scores.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(new, numbers, 0), axis=1)
    new = np.roll(new, -1, axis=1)  # where the last of equal scores stands
    last = np.minimum.accumulate(np.where(new, numbers, scores.shape[1])[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(scores.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, 1)
    return ranks


def ranking(
    scores: np.ndarray,
    relevant: np.ndarray,
    *,
    ks: Sequence[int] = KS,
    clusters: bootstrap.Clusters = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Value]:
    """Label-conditioned figures: means over the queries with a relevant candidate.

    With "in the top K" for a rank of at most K, and a K above the size of the pool taken as that size:

    * `mrr`: 1 / rank of the best relevant candidate;
    * `hit_at_K`: whether a relevant one is in the top K;
    * `recall_at_K`: the fraction of the relevant ones that is in the top K;
    * `precision_at_K`: relevant ones in the top K, over K; over all in the top K where ties make them more than K.

    Args:
      scores: `[Q, C]`, higher is better.
      relevant: bool `[Q, C]`.
      ks: the values of K.
      clusters: an identifier for each query, of the patient that it is of; intervals resample these, or queries for
        None. The pool of candidates stays as it is.
      resamples: for the intervals; 0 leaves them out.
      seed: of the resamples.

    Returns:
      `queries`, `queries_without_relevant` (which are in `queries`, but in no mean), and the figures above, in [0, 1],
      each with `NAME_ci95`: [low, high], and what these resample (`bootstrap.resampled`). NaN if no query has a
      relevant candidate.

    Raises:
      ValueError: no query or candidate, shapes or lengths that differ, scores that are NaN, or a K below 1.
    """
    ks, ranks, relevant = _ks(ks), mean_ranks(scores), _relevant(relevant)
    count = len(ranks)
    if ranks.shape != relevant.shape:
        raise ValueError(f"scores of shape {list(ranks.shape)}, but relevant of {list(relevant.shape)}")
    some = relevant.any(1)
    ranks, relevant, of = ranks[some], relevant[some], bootstrap.numbered(clusters, count)[some]
    each = {"mrr": 1 / np.where(relevant, ranks, np.inf).min(1)}
    for k in ks:
        size = min(k, ranks.shape[1])
        top = ranks <= size
        found = (top & relevant).sum(1)
        each[f"hit_at_{k}"] = found > 0
        each[f"recall_at_{k}"] = found / relevant.sum(1)
        each[f"precision_at_{k}"] = found / np.maximum(top.sum(1), size)
    return {
        "queries": float(count),
        "queries_without_relevant": float(count - len(ranks)),
        **_means({name: each[name] for name in _names(ks)}, of, resamples, seed),
    }


def exact_pair(
    scores: np.ndarray,
    own: np.ndarray,
    *,
    ks: Sequence[int] = KS,
    clusters: bootstrap.Clusters = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Value]:
    """Figures of the rank of the query's own candidate.

    Args:
      scores: `[Q, C]`, higher is better.
      own: int `[Q]`, the column of each query's own candidate.
      ks, clusters, resamples, seed: as in `ranking`.

    Returns:
      `exact/mrr`, `exact/recall_at_K` (own candidate in the top K) and `exact/median_rank` (from 1), each with
      `NAME_ci95`; what these resample, as `exact/resampled_...`.

    Raises:
      ValueError: as in `ranking`; an own candidate outside the pool.
    """
    ks, ranks = _ks(ks), mean_ranks(scores)
    rank = np.take_along_axis(ranks, _own(own, ranks.shape)[:, None], 1)[:, 0]
    each = {"exact/mrr": 1 / rank} | {f"exact/recall_at_{k}": rank <= min(k, ranks.shape[1]) for k in ks}
    of = bootstrap.numbered(clusters, len(rank))
    figures = _means(each, of, resamples, seed, "exact/")
    figures["exact/median_rank"] = float(np.median(rank))
    if resamples:
        limits = bootstrap.interval_of(
            lambda drawn: float(np.median(rank[drawn])), len(rank), clusters=of, resamples=resamples, seed=seed
        )
        figures["exact/median_rank_ci95"] = list(limits)
    return figures


def chance(relevant: np.ndarray, own: np.ndarray | None = None, ks: Sequence[int] = KS) -> dict[str, float]:
    """What `ranking` and `exact_pair` give on average where every query ranks its pool in a random order.

    Exact, for a pool of N of which P are relevant: that none of them is among the first r has the probability
    C(N - P, r) / C(N, r), which gives `hit_at_K` and, through the rank of the first, `mrr`.

    Args:
      relevant: bool `[Q, C]`; queries without a relevant candidate are left out, as in `ranking`.
      own: as in `exact_pair`; None leaves `exact/...` out.
      ks: the values of K.

    Returns:
      The figures of `ranking` (NaN if no query has a relevant candidate) and `exact_pair`, under the same names.

    Raises:
      ValueError: as in `ranking` and `exact_pair`.
    """
    ks, relevant = _ks(ks), _relevant(relevant)
    pool = relevant.shape[1]
    positives, queries = np.unique(relevant.sum(1), return_counts=True)
    positives, queries = positives[positives > 0], queries[positives > 0]
    figures = {"mrr": _average([_mean_reciprocal(p, pool) for p in positives.tolist()], queries)}
    for k in ks:
        size = min(k, pool)
        figures[f"hit_at_{k}"] = _average([1 - _none_of(p, pool)[size] for p in positives.tolist()], queries)
        figures[f"recall_at_{k}"] = _average([size / pool] * len(queries), queries)
        figures[f"precision_at_{k}"] = _average(positives / pool, queries)
    figures = {name: figures[name] for name in _names(ks)}
    if own is not None:
        _own(own, relevant.shape)
        figures["exact/mrr"] = _mean_reciprocal(1, pool)
        figures |= {f"exact/recall_at_{k}": min(k, pool) / pool for k in ks}
        # The ranks of Q queries are independent and their distribution is symmetric, hence that of their median too.
        figures["exact/median_rank"] = (pool + 1) / 2
    return figures


def _none_of(positives: int, pool: int) -> np.ndarray:
    """The probability that none of the relevant is among the first r, float64 `[pool + 1]` for r = 0 to pool."""
    left = np.arange(pool, 0, -1)
    return np.append(1.0, np.cumprod(np.maximum(left - positives, 0) / left))


def _mean_reciprocal(positives: int, pool: int) -> float:
    """The mean of 1 / rank of the first relevant candidate."""
    first = _none_of(positives, pool)[:-1] * positives / np.arange(pool, 0, -1)
    return float((first / np.arange(1, pool + 1)).sum())


def _average(values: Sequence[float] | np.ndarray, queries: np.ndarray) -> float:
    return float(np.average(values, weights=queries)) if len(queries) else math.nan


def two_stage(proposal: np.ndarray, reranked: np.ndarray, rerank: np.ndarray) -> np.ndarray:
    """Scores for a search in two stages: candidates that the second one scored come before all others.

    Args:
      proposal: `[Q, C]`, the first stage's scores; they order the candidates that were not re-ranked.
      reranked: bool `[Q, C]`, which candidates the second stage scored.
      rerank: `[Q, C]`, its scores; not looked at elsewhere.

    Returns:
      float64 `[Q, C]`, small whole numbers whose order is that of the search; equal scores within a stage stay equal.

    Raises:
      ValueError: no query or candidate, shapes that differ, or a score that counts is NaN.
    """
    proposal, rerank, reranked = np.asarray(proposal), np.asarray(rerank), np.asarray(reranked, bool)
    for name, each in (("reranked", reranked), ("rerank", rerank)):
        if each.shape != proposal.shape:
            raise ValueError(f"proposal of shape {list(proposal.shape)}, but {name} of {list(each.shape)}")
    counting = _scores("scores that count", np.where(reranked, rerank, proposal))
    order = np.lexsort((counting, reranked), axis=1)
    other = np.ones(counting.shape, bool)  # than the candidate before
    other[:, 1:] = False
    for each in (counting, reranked):
        ordered = np.take_along_axis(each, order, 1)
        other[:, 1:] |= ordered[:, 1:] != ordered[:, :-1]
    out = np.empty(counting.shape)
    np.put_along_axis(out, order, np.cumsum(other, axis=1), 1)
    return out


def _names(ks: Sequence[int]) -> list[str]:
    return ["mrr", *(f"{kind}_at_{k}" for kind in ("hit", "recall", "precision") for k in ks)]


def _means(
    each: dict[str, np.ndarray], clusters: np.ndarray, resamples: int, seed: int, prefix: str = ""
) -> dict[str, Value]:
    """The means of figures by query, `[Q]` each, their intervals, and what these resample."""
    rows = np.stack([*each.values(), np.ones(len(clusters))], 1).astype(np.float64)
    values = bootstrap.mean(rows.sum(0)).tolist()
    limits = [[math.nan, math.nan]] * len(values)
    if resamples and len(rows):
        limits = bootstrap.interval(rows, bootstrap.mean, clusters=clusters, resamples=resamples, seed=seed).T.tolist()
    figures: dict[str, Value] = {}
    for name, value, pair in zip(each, values, limits, strict=True):
        figures[name] = value
        if resamples:
            figures[f"{name}_ci95"] = pair
    if resamples:
        figures |= {f"{prefix}{name}": drawn for name, drawn in bootstrap.resampled(clusters, len(rows)).items()}
    return figures


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


def _own(own: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    own = np.asarray(own)
    if own.shape != shape[:1] or not np.issubdtype(own.dtype, np.integer):
        raise ValueError(
            f"own is {own.dtype} of shape {list(own.shape)}; expected a column number for {shape[0]} queries"
        )
    if bad := own[(own < 0) | (own >= shape[1])].tolist():
        raise ValueError(f"own names candidate {bad[0]} ({len(bad)} such); the pool has 0 to {shape[1] - 1}")
    return own


def _ks(ks: Sequence[int]) -> list[int]:
    if not ks or min(ks) < 1:
        raise ValueError(f"ks={tuple(ks)}; expected whole numbers of at least 1")
    return list(dict.fromkeys(ks))
