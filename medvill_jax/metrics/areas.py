"""Areas under the ROC curve and the precision-recall curve, for many weights of the same labels at once.

A bootstrap weighs the same ranking a thousand times. The ranking is sorted once. Each resample then looks up the weight
of every label, sums the weights between the scores that a positive has (a sparse matrix product), and accumulates these
sums: a few operations per positive.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

# Most labels and most steps of one chunk of a ranking.
_LABELS, _STEPS = 1 << 13, 1 << 10
# Step k is stored at [k % _STRIDE, k // _STRIDE], so that one numpy loop accumulates many steps at once.
_STRIDE = 32
_ONES, _NUMBERS = np.ones(_LABELS, np.float32), np.arange(_LABELS, dtype=np.int32)


class Ranking:
    """Labels sorted by descending score and grouped into steps, so that many weightings are summed at once.

    There is one step for each score that a positive has. A step has three groups of labels: 0, negatives between its
    score and that of the step before; 1, negatives with its score; 2, positives with its score. Negatives below the
    last such score form a step without positives. Steps are stored in chunks that fit the processor's cache.

    Args:
      clusters: int `[n]`, the index of each label's weight.
      scores: `[n]`.
      positive: bool `[n]`.
    """

    def __init__(self, clusters: np.ndarray, scores: np.ndarray, positive: np.ndarray):
        order = np.argsort(-scores, kind="stable")
        scores, positive, clusters = scores[order], positive[order], clusters[order].astype(np.int32)
        level = np.cumsum(np.append(False, scores[1:] != scores[:-1])[: len(scores)])
        has_positive = np.bincount(level, positive) > 0
        step = (np.cumsum(has_positive) - has_positive)[level]
        group = np.where(positive, 2, has_positive[level]).astype(np.int8)
        ends = np.bincount(step, minlength=1).cumsum()
        self.chunks: list[_Chunk] = []
        start = first = 0
        while start < len(ends):
            within = int(np.searchsorted(ends, first + _LABELS, side="right"))
            stop = min(max(within, start + 1), start + _STEPS)
            chunk = slice(first, ends[stop - 1])
            self.chunks.append(_Chunk(clusters[chunk], step[chunk] - start, group[chunk], stop - start))
            start, first = stop, int(ends[stop - 1])


class _Chunk:
    """Consecutive steps of a `Ranking`: the cluster, step and group of each label, int `[n]`."""

    def __init__(self, clusters: np.ndarray, step: np.ndarray, group: np.ndarray, steps: int):
        height = -(-steps // _STRIDE)
        self.shape = 3, _STRIDE, height
        place = np.ravel_multi_index((group, step % _STRIDE, step // _STRIDE), self.shape)
        order = np.argsort(place, kind="stable")
        self._pieces: list[tuple[np.ndarray, sparse.csr_array]] = []
        for start in range(0, max(len(order), 1), _LABELS):
            piece = order[start : start + _LABELS]
            ends = np.bincount(place[piece], minlength=3 * _STRIDE * height).cumsum()
            adds = (_ONES[: len(piece)], _NUMBERS[: len(piece)], np.append(0, ends).astype(np.int32))
            self._pieces.append((clusters[piece], sparse.csr_array(adds, shape=(len(ends), len(piece)))))

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """Summed weights by group and step, float64 `[3, _STRIDE, height, R]`, of cluster weights `[G, R]`."""
        # A piece has few labels, and sums of so few numbers below 256 are exact in float32.
        dtype = np.float32 if weights.dtype == np.uint8 else np.float64
        sums = (adds @ np.take(weights, clusters, 0).astype(dtype) for clusters, adds in self._pieces)
        total = next(sums).astype(np.float64)
        for piece in sums:
            total += piece
        return total.reshape(*self.shape, -1)


def areas(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """AUROC and AUPRC, float64 `[2, R]`, with cluster weights `[G, R]`; NaN where they are not defined.

    Integer weights are summed exactly; uint8 weights take half the time.
    """
    false, hits, wrong, precision = np.zeros((4, weights.shape[1]))
    for chunk in ranking.chunks:
        negatives, tied, positives = chunk.sums(weights)
        negatives += tied
        false_positives, true_positives = _running(negatives, false), _running(positives.copy(), hits)
        false, hits = false_positives[-1, -1].copy(), true_positives[-1, -1]
        # A negative with the score of a positive is half a mistake.
        tied *= -0.5
        tied += false_positives
        wrong += np.einsum("jkr,jkr->r", positives, tied)
        predicted = np.add(false_positives, true_positives, out=false_positives)
        np.maximum(predicted, np.finfo(float).tiny, out=predicted)
        precision += np.einsum("jkr,jkr->r", positives, np.divide(true_positives, predicted, out=predicted))
    pairs = hits * false
    return np.stack([ratio(pairs - wrong, pairs), ratio(precision, hits)])


def _running(steps: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Running sums over the steps `[_STRIDE, height, R]`, in place; `before`, `[R]`, is the sum over earlier chunks."""
    for number in range(1, len(steps)):
        steps[number] += steps[number - 1]
    steps += np.concatenate([before[None], before + np.cumsum(steps[-1, :-1], 0)])
    return steps


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """A ratio; NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)
