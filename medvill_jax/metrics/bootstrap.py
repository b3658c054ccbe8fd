"""How sure a figure is, and whether two runs differ, by resampling examples.

A figure here is a function of sums over examples: a mean, a ratio of sums, corpus BLEU, F1. Its examples are the rows
of an array `[N, C]`, and `figure` turns their sums `[..., C]` into values `[..., K]`. A resample is then one row of a
matrix product, and a thousand of them take a second. For a figure of weighted examples that is no function of sums
(areas under curves) there is `interval_of_weights`, for anything else `interval_of`.

What is drawn is a cluster: all rows of one subject, films of a patient or questions about a film, together. They are
not independent, and drawn one by one would make intervals too narrow (Field and Welsh 2007). Without `clusters` each
row is its own. `resampled` says which of the two it was, as a figure beside the intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Figure = Callable[[np.ndarray], np.ndarray]
Clusters = Sequence[Any] | np.ndarray | None
"""An identifier for each row, equal for those of one subject; None: each row by itself."""

RESAMPLES, LEVEL = 1000, 0.95
# Counts of drawn clusters held at once; bounds the memory, at a byte each, for any number of clusters.
_CHUNK = 64_000_000
# Clusters whose counts are floats at once, as a matrix product takes nothing else.
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
    _, first, of = np.unique(np.asarray(clusters), return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[of]


def resampled(clusters: Clusters, count: int) -> dict[str, float]:
    """What intervals of `count` rows resample, and how many of them there are.

    Returns:
      `resampled_subjects`, or `resampled_rows` where no two rows share a cluster.
    """
    drawn = int(numbered(clusters, count).max(initial=-1)) + 1
    return {"resampled_rows" if drawn == count else "resampled_subjects": float(drawn)}


def resampled_words(figures: Mapping[str, Any], prefix: str = "") -> str:
    """`resampled` for a person, from the figures whose names begin with a prefix."""
    for unit in ("subjects", "rows"):
        if (count := figures.get(f"{prefix}resampled_{unit}")) is not None:
            return f"95 % intervals resample {count:,.0f} {unit}"
    return "no intervals"


def mean(sums: np.ndarray) -> np.ndarray:
    """The figure "mean over examples" of rows `[N, K + 1]`, whose last column counts the example (1)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., :-1] / sums[..., -1:]


def interval(
    rows: np.ndarray,
    figure: Figure,
    *,
    clusters: Clusters = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> np.ndarray:
    """The percentile bootstrap interval (Efron 1979) of a figure.

    Args:
      rows: `[N, C]`, what each example adds.
      figure: sums `[..., C]` -> values `[..., K]`.
      clusters: an identifier for each row; rows of one are drawn together.
      resamples: how often all G clusters are drawn, with replacement.
      level: how much of the distribution the interval holds.
      seed: of the draws; the same seed and G draw the same clusters, whatever the rows.

    Returns:
      float64 `[2, K]`, low and high; NaN where the figure is NaN in every resample (else those are left out).

    Raises:
      ValueError: no rows, not one cluster a row, no resamples, or a level outside (0, 1).
    """
    rows = cluster_sums(_checked(rows, resamples, level), clusters)
    return interval_of_weights(
        lambda drawn: figure(sums(drawn, rows)), len(rows), resamples=resamples, level=level, seed=seed
    )


def interval_of_weights(
    figure: Figure,
    count: int,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> np.ndarray:
    """Like `interval`, for a figure of how often each cluster was drawn; the same seed draws the same clusters.

    Args:
      figure: uint8 `[some, count]`, how often each cluster was drawn in some resamples -> values `[some, K]`.
      count: how many clusters there are.
    """
    _checked(np.zeros((count, 1)), resamples, level)
    rng = np.random.default_rng(seed)
    values = [figure(drawn) for drawn in _draws(count, resamples, rng)]
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
      metric: takes the numbers of the drawn examples, int64 in 0..count-1, repeated where drawn twice; `count` of them
        unless clusters differ in size.
      count: how many examples there are.
      clusters: as in `interval`.
    """
    _checked(np.zeros((count, 1)), resamples, level)
    rng = np.random.default_rng(seed)
    of = numbered(clusters, count)
    members, sizes = np.argsort(of, kind="stable"), np.bincount(of)
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
    """The difference b - a of a figure between two runs on the same examples; arrays are float64 `[K]`."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def paired(
    a: np.ndarray,
    b: np.ndarray,
    figure: Figure,
    *,
    clusters: Clusters = None,
    method: Literal["randomisation", "bootstrap"] = "randomisation",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Paired:
    """Whether two runs differ on the same examples.

    The interval of the difference is that of the paired bootstrap: both runs are scored on the same resample. The p
    value is two-sided, (k + 1) / (resamples + 1), where k counts differences at least as large as the one seen

    * "randomisation": after the runs' answers were swapped in a random half of the clusters (approximate
      randomisation, Noreen 1989; Riezler and Maxwell 2005). Its hypothesis is that the runs are exchangeable.
    * "bootstrap": among bootstrapped differences moved to have the mean 0 (Koehn 2004; Berg-Kirkpatrick et al. 2012).

    Args:
      a, b: `[N, C]`, what each example adds in either run, in the same order.
      figure, clusters, resamples, level, seed: as in `interval`.

    Returns:
      `Paired`; NaN for a figure that is NaN in either run. The smallest p possible is 1 / (resamples + 1).

    Raises:
      ValueError: as in `interval`; shapes that differ; no such method.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"the runs have rows of shapes {list(a.shape)} and {list(b.shape)}; expected the same examples"
        )
    if method not in ("randomisation", "bootstrap"):
        raise ValueError(f"method={method!r}; there are randomisation, bootstrap")
    a, b = (cluster_sums(_checked(each, resamples, level), clusters) for each in (a, b))
    seen = figure(b.sum(0)) - figure(a.sum(0))  # [K]
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([figure(sums(d, b)) - figure(sums(d, a)) for d in _draws(len(a), resamples, rng)])
    low, high = _percentiles(drawn, level)
    if method == "bootstrap":
        null = drawn - seen
    else:
        null = np.concatenate([_swapped(a, b, figure, swap) for swap in _swaps(len(a), resamples, rng)])
    # A resample without a value counts against a difference; rounding must not make equal values unequal.
    least = np.abs(seen) * (1 - 1e-9)
    extreme = (~(np.abs(null) < least)).sum(0)
    nothing = np.isnan(seen)
    p = (extreme + 1) / (resamples + 1)
    return Paired(*(np.where(nothing, np.nan, each) for each in (seen, low, high, p)))


def holm(p: np.ndarray) -> np.ndarray:
    """p values of several comparisons, corrected so that all of them hold together (Holm 1979).

    With the step-down corrected values, the probability of calling any difference that there is not is at most the
    level at which they are read, however the comparisons depend on each other.

    Args:
      p: float64 `[..., M]`, of M comparisons; NaN for one that was not made, which is not counted.

    Returns:
      float64 of the same shape, none smaller than its `p`, none above 1.
    """
    order = np.argsort(p, -1)  # NaN last
    ordered = np.take_along_axis(p, order, -1)
    made = (~np.isnan(p)).sum(-1, keepdims=True)
    steps = np.maximum.accumulate(ordered * np.maximum(made - np.arange(p.shape[-1]), 1), -1)
    corrected = np.empty(p.shape)
    np.put_along_axis(corrected, order, np.minimum(steps, 1), -1)
    return corrected


def sums(drawn: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float64 `[R, C]`: the sums over rows `[G, C]`, each as often as `[R, G]` says."""
    total = np.zeros((len(drawn), rows.shape[1]))
    for start in range(0, len(rows), _SLICE):
        some = slice(start, start + _SLICE)
        total += drawn[:, some].astype(np.float64) @ rows[some]
    return total


def cluster_sums(rows: np.ndarray, clusters: Clusters) -> np.ndarray:
    """Rows `[N, C]` added up by cluster, `[G, C]` in the order of `numbered`; the rows themselves if none share one."""
    of = numbered(clusters, len(rows))
    count = int(of.max(initial=-1)) + 1
    if count == len(rows):
        return rows
    total = np.empty((count, rows.shape[1]))
    for column, values in enumerate(rows.T):
        total[:, column] = np.bincount(of, values)
    return total


def _swapped(a: np.ndarray, b: np.ndarray, figure: Figure, swap: np.ndarray) -> np.ndarray:
    moved = sums(swap, b - a)  # [R, C]
    return figure(b.sum(0) - moved) - figure(a.sum(0) + moved)


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
    """How often each cluster is drawn, uint8 `[some, count]`, until there were `resamples` rows.

    That one of 256 clusters or more is drawn 256 times has a probability below 1e-500.
    """
    for size in _sizes(count, resamples):
        drawn = np.empty((size, count), np.uint8)
        for row in drawn:
            row[:] = np.bincount(rng.integers(0, count, count), minlength=count)
        yield drawn


def _swaps(count: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Whether each cluster's answers are swapped, uint8 `[some, count]`, until there were `resamples` rows."""
    for size in _sizes(count, resamples):
        yield np.stack([rng.integers(0, 2, count, np.uint8) for _ in range(size)])


def _percentiles(values: np.ndarray, level: float) -> np.ndarray:
    """`[2, K]` of values `[R, K]`, column by column over what is not NaN."""
    out = np.full((2, values.shape[1]), np.nan)
    for k, column in enumerate(values.T):
        if (known := column[~np.isnan(column)]).size:
            out[:, k] = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return out
