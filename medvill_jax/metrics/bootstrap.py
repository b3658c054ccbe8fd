"""Confidence intervals of metrics, and tests of the difference between two runs, by resampling examples.

Most metrics are functions of sums over examples: a mean, a ratio of sums, corpus BLEU, F1. Each example is then a row
of an array `[N, C]`, and a `Statistic` turns sums of rows `[..., C]` into values `[..., K]`. A resample is one row of a
matrix product, and a thousand of them take a second. Metrics of weighted examples that are no functions of sums (areas
under curves) use `interval_of_weights`, all others `interval_of`.

Resampling draws clusters: all rows of one subject together, such as the films of a patient or the questions about a
film. They are not independent, and drawing them one by one would make intervals too narrow (Field and Welsh 2007).
Without `clusters` each row is a cluster. `resampled` reports which of the two was drawn, next to the intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
"""Sums over examples `[..., C]` -> values `[..., K]`."""
Clusters = Sequence[Any] | np.ndarray | None
"""An identifier for each row, the same for all rows of a subject; None: each row is a cluster."""

RESAMPLES, LEVEL = 1000, 0.95
# How many counts of drawn clusters are in memory at once, a byte each, whatever the number of clusters.
_CHUNK = 64_000_000
# How many clusters have their counts converted to float at once, for a matrix product.
_SLICE = 1 << 16


def numbered(clusters: Clusters, count: int) -> np.ndarray:
    """int64 `[count]`: the cluster of each row, numbered from 0 in the order of their first rows.

    Raises:
      ValueError: not one identifier for each of `count` rows.
    """
    if clusters is None:
        return np.arange(count)
    if len(clusters) != count:
        raise ValueError(f"{count} rows, but {len(clusters)} cluster identifiers; expected one a row")
    _, first, inverse = np.unique(np.asarray(clusters), return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]


def resampled(clusters: Clusters, count: int) -> dict[str, float]:
    """What intervals of `count` rows resample, subjects or rows, and how many.

    Returns:
      `resampled_subjects`, or `resampled_rows` where no two rows share a cluster.
    """
    drawn = int(numbered(clusters, count).max(initial=-1)) + 1
    return {"resampled_rows" if drawn == count else "resampled_subjects": float(drawn)}


def resampled_words(metrics: Mapping[str, Any], prefix: str = "") -> str:
    """`resampled` as text, read from the metrics whose names begin with `prefix`."""
    for unit in ("subjects", "rows"):
        if (count := metrics.get(f"{prefix}resampled_{unit}")) is not None:
            return f"95 % intervals resample {count:,.0f} {unit}"
    return "no intervals"


def mean(sums: np.ndarray) -> np.ndarray:
    """The mean over examples, a `Statistic` of rows `[N, K + 1]` whose last column is 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., :-1] / sums[..., -1:]


def interval(
    rows: np.ndarray,
    statistic: Statistic,
    *,
    clusters: Clusters = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> np.ndarray:
    """The percentile bootstrap interval (Efron 1979) of a statistic.

    Args:
      rows: `[N, C]`, what each example adds to the sums.
      statistic: sums `[..., C]` -> values `[..., K]`.
      clusters: an identifier for each row; rows with the same identifier are drawn together.
      resamples: how many resamples are drawn, each of as many clusters as there are (G), with replacement.
      level: the coverage of the interval.
      seed: of the draws; the same seed and G draw the same clusters, whatever the rows.

    Returns:
      float64 `[2, K]`, low and high. Resamples in which a value is NaN are left out; NaN if it is NaN in all.

    Raises:
      ValueError: no rows, not one cluster for each row, no resamples, or a level outside (0, 1).
    """
    rows = cluster_sums(_checked(rows, resamples, level), clusters)
    return interval_of_weights(
        lambda drawn: statistic(sums(drawn, rows)), len(rows), resamples=resamples, level=level, seed=seed
    )


def interval_of_weights(
    statistic: Statistic,
    count: int,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> np.ndarray:
    """Like `interval`, for a function of how often each cluster was drawn; the same seed draws the same clusters.

    Args:
      statistic: uint8 `[R, count]`, how often each cluster was drawn in R of the resamples -> values `[R, K]`.
      count: the number of clusters.
    """
    _checked(np.zeros((count, 1)), resamples, level)
    rng = np.random.default_rng(seed)
    values = [statistic(drawn) for drawn in _draws(count, resamples, rng)]
    return _percentiles(np.concatenate(values), level)


def interval_of(
    metric: Callable[[np.ndarray], float],
    count: int,
    *,
    clusters: Clusters = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float]:
    """Like `interval`, for any metric of a list of examples; calls it once per resample.

    Args:
      metric: takes the indices of the drawn examples, int64 in 0..count-1, repeated where drawn twice; `count` of them
        unless clusters differ in size.
      count: the number of examples.
      clusters: as in `interval`.
    """
    _checked(np.zeros((count, 1)), resamples, level)
    rng = np.random.default_rng(seed)
    cluster_of = numbered(clusters, count)
    members, sizes = np.argsort(cluster_of, kind="stable"), np.bincount(cluster_of)
    starts = np.cumsum(sizes) - sizes

    def draw() -> np.ndarray:
        drawn = rng.integers(0, len(sizes), len(sizes))
        lengths = sizes[drawn]
        first = np.cumsum(lengths) - lengths
        return members[np.arange(lengths.sum()) + np.repeat(starts[drawn] - first, lengths)]

    values = np.array([[metric(draw())] for _ in range(resamples)], np.float64)
    low, high = _percentiles(values, level)[:, 0].tolist()
    return low, high


@dataclass(frozen=True)
class Paired:
    """The difference b - a of a statistic between two runs on the same examples; arrays are float64 `[K]`."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def paired(
    a: np.ndarray,
    b: np.ndarray,
    statistic: Statistic,
    *,
    clusters: Clusters = None,
    method: Literal["randomisation", "bootstrap"] = "randomisation",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Paired:
    """The difference between two runs on the same examples, its interval and its p value.

    The interval is that of the paired bootstrap: both runs are scored on the same resample. The p value is two-sided,
    (k + 1) / (resamples + 1), where k counts differences at least as large as the observed one

    * "randomisation": after the runs' answers were swapped in a random half of the clusters (approximate
      randomisation, Noreen 1989; Riezler and Maxwell 2005). The null hypothesis is that the runs are exchangeable.
    * "bootstrap": among bootstrapped differences, shifted by the observed one (Koehn 2004; Berg-Kirkpatrick et al.
      2012).

    Args:
      a, b: `[N, C]`, what each example adds to the sums of either run, in the same order.
      statistic, clusters, resamples, level, seed: as in `interval`.

    Returns:
      `Paired`; NaN for a value that is NaN in either run. The smallest p possible is 1 / (resamples + 1).

    Raises:
      ValueError: as in `interval`; shapes that differ; no such method.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"the runs have rows of shapes {list(a.shape)} and {list(b.shape)}; expected the same examples"
        )
    if method not in ("randomisation", "bootstrap"):
        raise ValueError(f"method={method!r}; there are randomisation, bootstrap")
    a, b = (cluster_sums(_checked(rows, resamples, level), clusters) for rows in (a, b))
    observed = statistic(b.sum(0)) - statistic(a.sum(0))  # [K]
    rng = np.random.default_rng(seed)
    draws = _draws(len(a), resamples, rng)
    differences = np.concatenate([statistic(sums(drawn, b)) - statistic(sums(drawn, a)) for drawn in draws])
    if method == "bootstrap":
        return _tested(observed, differences, differences - observed, level)
    null = np.concatenate([_swapped(a, b, statistic, swap) for swap in _swaps(len(a), resamples, rng)])
    return _tested(observed, differences, null, level)


def paired_of_weights(
    statistic: Statistic, count: int, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Paired:
    """Like `paired` by randomisation, for a function of weights of the answers of both runs.

    Args:
      statistic: uint8 `[R, 2 * count]`, the weight of the answers of each cluster in run a, then in run b -> values
        `[R, K]` of the answers so weighted, as if they were of one run.
      count: the number of clusters.
      resamples, level, seed: as in `interval`.
    """
    _checked(np.zeros((count, 1)), resamples, level)
    rng = np.random.default_rng(seed)

    def difference(of_first: np.ndarray, of_second: np.ndarray) -> np.ndarray:
        """Values of the second run minus those of the first, each given by its weights of a and of b."""
        return statistic(of_second) - statistic(of_first)

    def side_by_side(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([a, b], 1)

    def drawn_difference(drawn: np.ndarray) -> np.ndarray:
        none = np.zeros_like(drawn)
        return difference(side_by_side(drawn, none), side_by_side(none, drawn))

    [observed] = drawn_difference(np.ones((1, count), np.uint8))
    differences = np.concatenate([drawn_difference(drawn) for drawn in _draws(count, resamples, rng)])
    null = np.concatenate(
        [
            difference(side_by_side(1 - swap, swap), side_by_side(swap, 1 - swap))
            for swap in _swaps(count, resamples, rng)
        ]
    )
    return _tested(observed, differences, null, level)


def _tested(observed: np.ndarray, differences: np.ndarray, null: np.ndarray, level: float) -> Paired:
    """The result for a difference `[K]`, bootstrapped differences `[R, K]` and differences by chance `[R, K]`."""
    low, high = _percentiles(differences, level)
    # A NaN counts as extreme, and so against a difference. Rounding must not make equal values unequal.
    threshold = np.abs(observed) * (1 - 1e-9)
    extreme = (~(np.abs(null) < threshold)).sum(0)
    p = (extreme + 1) / (len(null) + 1)
    undefined = np.isnan(observed)
    return Paired(*(np.where(undefined, np.nan, values) for values in (observed, low, high, p)))


def holm(p: np.ndarray) -> np.ndarray:
    """p values corrected for the number of comparisons by Holm's step-down procedure (Holm 1979).

    Rejecting all hypotheses whose corrected p is at most alpha keeps the probability of any false rejection at most
    alpha, however the comparisons depend on each other.

    Args:
      p: float64 `[..., M]`, of M comparisons; NaN for a comparison that was not made, which is not counted.

    Returns:
      float64 of the same shape, none smaller than its `p`, none above 1.
    """
    order = np.argsort(p, -1)  # NaN last
    ordered = np.take_along_axis(p, order, -1)
    comparisons = (~np.isnan(p)).sum(-1, keepdims=True)
    steps = np.maximum.accumulate(ordered * np.maximum(comparisons - np.arange(p.shape[-1]), 1), -1)
    corrected = np.empty(p.shape)
    np.put_along_axis(corrected, order, np.minimum(steps, 1), -1)
    return corrected


def sums(drawn: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weighted sums over rows, float64 `[R, C]`: of counts `drawn` `[R, G]` and rows `[G, C]`."""
    total = np.zeros((len(drawn), rows.shape[1]))
    for start in range(0, len(rows), _SLICE):
        chunk = slice(start, start + _SLICE)
        total += drawn[:, chunk].astype(np.float64) @ rows[chunk]
    return total


def cluster_sums(rows: np.ndarray, clusters: Clusters) -> np.ndarray:
    """Rows `[N, C]` summed by cluster, `[G, C]` in the order of `numbered`; `rows` itself if no two share a cluster."""
    cluster_of = numbered(clusters, len(rows))
    count = int(cluster_of.max(initial=-1)) + 1
    if count == len(rows):
        return rows
    total = np.empty((count, rows.shape[1]))
    for column, values in enumerate(rows.T):
        total[:, column] = np.bincount(cluster_of, values)
    return total


def _swapped(a: np.ndarray, b: np.ndarray, statistic: Statistic, swap: np.ndarray) -> np.ndarray:
    moved = sums(swap, b - a)  # [R, C]
    return statistic(b.sum(0) - moved) - statistic(a.sum(0) + moved)


def _checked(rows: np.ndarray, resamples: int, level: float) -> np.ndarray:
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"rows of shape {list(rows.shape)}; expected [N, C] with at least one example")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}; expected at least 1")
    if not 0 < level < 1:
        raise ValueError(f"level={level}; expected a number between 0 and 1, such as 0.95")
    return np.asarray(rows, np.float64)


def _sizes(count: int, resamples: int) -> Iterator[int]:
    size = max(1, _CHUNK // count)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _draws(count: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each cluster is drawn, in chunks uint8 `[R, count]` of `resamples` rows in all.

    uint8 is enough: the probability that one of 256 or more clusters is drawn 256 times is below 1e-500.
    """
    for size in _sizes(count, resamples):
        drawn = np.empty((size, count), np.uint8)
        for row in drawn:
            row[:] = np.bincount(rng.integers(0, count, count), minlength=count)
        yield drawn


def _swaps(count: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Whether the answers of each cluster are swapped, in chunks uint8 `[R, count]` of `resamples` rows in all."""
    for size in _sizes(count, resamples):
        yield np.stack([rng.integers(0, 2, count, np.uint8) for _ in range(size)])


def _percentiles(values: np.ndarray, level: float) -> np.ndarray:
    """Low and high, `[2, K]`, of values `[R, K]`, column by column; NaN is left out."""
    out = np.full((2, values.shape[1]), np.nan)
    for k, column in enumerate(values.T):
        if (known := column[~np.isnan(column)]).size:
            out[:, k] = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return out
