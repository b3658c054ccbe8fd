"""How sure a figure is, and whether two runs differ, by resampling examples.

A figure here is a function of sums over examples: a mean, a ratio of sums, corpus BLEU, F1. Its examples are the rows
of an array `[N, C]`, and `figure` turns their sums `[..., C]` into values `[..., K]`. A resample is then one row of a
matrix product, and a thousand of them take a second. For a figure of weighted examples that is no function of sums
(areas under curves) there is `interval_of_weights`, for anything else `interval_of`.

The unit that is drawn is the example. Several images of one patient are not independent, which makes intervals too
narrow; evaluate one image per study if that matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

Figure = Callable[[np.ndarray], np.ndarray]

RESAMPLES, LEVEL = 1000, 0.95
# Numbers drawn at once; bounds the memory, at 8 bytes each, for any number of examples.
_CHUNK = 4_000_000


def mean(sums: np.ndarray) -> np.ndarray:
    """The figure "mean over examples" of rows `[N, K + 1]`, whose last column counts the example (1)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., :-1] / sums[..., -1:]


def interval(
    rows: np.ndarray,
    figure: Figure,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> np.ndarray:
    """The percentile bootstrap interval (Efron 1979) of a figure.

    Args:
      rows: `[N, C]`, what each example adds.
      figure: sums `[..., C]` -> values `[..., K]`.
      resamples: how often N examples are drawn, with replacement.
      level: how much of the distribution the interval holds.
      seed: of the draws; the same seed and N draw the same examples, whatever the rows.

    Returns:
      float64 `[2, K]`, low and high; NaN where the figure is NaN in every resample (else those are left out).

    Raises:
      ValueError: no rows, no resamples, or a level outside (0, 1).
    """
    rows = _checked(rows, resamples, level)
    return interval_of_weights(
        lambda drawn: figure(drawn @ rows), len(rows), resamples=resamples, level=level, seed=seed
    )


def interval_of_weights(
    figure: Figure,
    count: int,
    *,
    width: int = 1,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> np.ndarray:
    """Like `interval`, for a figure of how often each example was drawn; the same seed draws the same examples.

    Args:
      figure: float64 `[some, count]`, how often each example was drawn in some resamples -> values `[some, K]`.
      count: how many examples there are.
      width: how many numbers `figure` makes of one example in one resample; bounds the memory.
    """
    _checked(np.zeros((count, 1)), resamples, level)
    rng = np.random.default_rng(seed)
    values = [figure(drawn) for drawn in _draws(count, resamples, rng, width)]
    return _percentiles(np.concatenate(values), level)


def interval_of(
    metric: Callable[[np.ndarray], float],
    count: int,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float]:
    """Like `interval`, for any metric of a list of examples; calls it once per resample.

    Args:
      metric: takes the numbers of the drawn examples, int64 `[count]` in 0..count-1, repeated where drawn twice.
      count: how many examples there are.
    """
    _checked(np.zeros((count, 1)), resamples, level)
    rng = np.random.default_rng(seed)
    values = np.array([[metric(rng.integers(0, count, count))] for _ in range(resamples)], np.float64)
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
    method: Literal["randomisation", "bootstrap"] = "randomisation",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Paired:
    """Whether two runs differ on the same examples.

    The interval of the difference is that of the paired bootstrap: both runs are scored on the same resample. The p
    value is two-sided, (k + 1) / (resamples + 1), where k counts differences at least as large as the one seen

    * "randomisation": after the runs' answers were swapped in a random half of the examples (approximate
      randomisation, Noreen 1989; Riezler and Maxwell 2005). Its hypothesis is that the runs are exchangeable.
    * "bootstrap": among bootstrapped differences moved to have the mean 0 (Koehn 2004; Berg-Kirkpatrick et al. 2012).

    Args:
      a, b: `[N, C]`, what each example adds in either run, in the same order.
      figure, resamples, level, seed: as in `interval`.

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
    a, b = _checked(a, resamples, level), _checked(b, resamples, level)
    seen = figure(b.sum(0)) - figure(a.sum(0))  # [K]
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([figure(draw @ b) - figure(draw @ a) for draw in _draws(len(a), resamples, rng)])
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


def _swapped(a: np.ndarray, b: np.ndarray, figure: Figure, swap: np.ndarray) -> np.ndarray:
    moved = swap @ (b - a)  # [R, C]
    return figure(b.sum(0) - moved) - figure(a.sum(0) + moved)


def _checked(rows: np.ndarray, resamples: int, level: float) -> np.ndarray:
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"rows of shape {list(rows.shape)}; expected [N, C] with at least one example")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}; expected at least 1")
    if not 0 < level < 1:
        raise ValueError(f"level={level}; expected a number between 0 and 1, such as 0.95")
    return np.asarray(rows, np.float64)


def _sizes(count: int, resamples: int, width: int = 1) -> Iterator[int]:
    size = max(1, _CHUNK // (count * width))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _draws(count: int, resamples: int, rng: np.random.Generator, width: int = 1) -> Iterator[np.ndarray]:
    """How often each example is drawn, float64 `[some, count]`, until there were `resamples` rows."""
    for size in _sizes(count, resamples, width):
        numbers = rng.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        # float64 holds these counts exactly, and only floats take the fast matrix product.
        yield np.bincount(numbers.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def _swaps(count: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for size in _sizes(count, resamples):
        yield rng.integers(0, 2, (size, count)).astype(np.float64)


def _percentiles(values: np.ndarray, level: float) -> np.ndarray:
    """`[2, K]` of values `[R, K]`, column by column over what is not NaN."""
    out = np.full((2, values.shape[1]), np.nan)
    for k, column in enumerate(values.T):
        if (known := column[~np.isnan(column)]).size:
            out[:, k] = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return out
