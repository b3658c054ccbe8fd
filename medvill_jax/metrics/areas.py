"""Areas under the ROC curve and the precision-recall curve, for many weights of the same labels at once.

A bootstrap weighs the same ranking a thousand times. It is sorted once; what each resample then takes is to look up
every label's weight, to add up the weights between the scores that a positive has, which is a sparse matrix product,
and to go through these sums: a few operations a positive.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

# Labels and steps of a chunk of a ranking.
_LABELS, _STEPS = 1 << 13, 1 << 10
# Steps that follow each other lie so many apart, so that all of one distance are summed up in one of numpy's loops.
_STRIDE = 32
_ONES, _NUMBERS = np.ones(_LABELS, np.float32), np.arange(_LABELS, dtype=np.int32)


class Ranking:
    """Labels by descending score, ready to be summed up to any score that a positive has, for many weights at once.

    They lie in steps, one a score that a positive has: what areas need of a step is the weight of the negatives above
    that score and below the one before, of the negatives with it, and of the positives with it. What is below the last
    such score is a step without positives. Steps come in chunks that fit the processor's cache.

    Args:
      clusters: int `[n]`, the place of each label's weight.
      scores: `[n]`.
      positive: bool `[n]`.
    """

    def __init__(self, clusters: np.ndarray, scores: np.ndarray, positive: np.ndarray):
        order = np.argsort(-scores, kind="stable")
        scores, positive, clusters = scores[order], positive[order], clusters[order].astype(np.int32)
        level = np.cumsum(np.append(False, scores[1:] != scores[:-1])[: len(scores)])
        held = np.bincount(level, positive) > 0  # whether a positive has that score
        step = (np.cumsum(held) - held)[level]
        kind = np.where(positive, 2, held[level]).astype(np.int8)
        ends = np.bincount(step, minlength=1).cumsum()
        self.chunks: list[_Chunk] = []
        start = first = 0
        while start < len(ends):
            within = int(np.searchsorted(ends, first + _LABELS, side="right"))
            stop = min(max(within, start + 1), start + _STEPS)
            some = slice(first, ends[stop - 1])
            self.chunks.append(_Chunk(clusters[some], step[some] - start, kind[some], stop - start))
            start, first = stop, int(ends[stop - 1])


class _Chunk:
    """Some steps of a `Ranking`: labels with their cluster, step and kind (0 to 2, in the order told there), `[n]`."""

    def __init__(self, clusters: np.ndarray, step: np.ndarray, kind: np.ndarray, steps: int):
        height = -(-steps // _STRIDE)
        self.shape = 3, _STRIDE, height
        place = np.ravel_multi_index((kind, step % _STRIDE, step // _STRIDE), self.shape)
        order = np.argsort(place, kind="stable")
        self._pieces: list[tuple[np.ndarray, sparse.csr_array]] = []
        for start in range(0, max(len(order), 1), _LABELS):
            piece = order[start : start + _LABELS]
            ends = np.bincount(place[piece], minlength=3 * _STRIDE * height).cumsum()
            adds = (_ONES[: len(piece)], _NUMBERS[: len(piece)], np.append(0, ends).astype(np.int32))
            self._pieces.append((clusters[piece], sparse.csr_array(adds, shape=(len(ends), len(piece)))))

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """float64 `[3, _STRIDE, height, R]` of weights `[G, R]`; step k lies at `[k % _STRIDE, k // _STRIDE]`."""
        # Sums of as few numbers below 256 are exact in float32.
        kind = np.float32 if weights.dtype == np.uint8 else np.float64
        sums = (adds @ np.take(weights, clusters, 0).astype(kind) for clusters, adds in self._pieces)
        total = next(sums).astype(np.float64)
        for each in sums:
            total += each
        return total.reshape(*self.shape, -1)


def areas(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """AUROC and AUPRC, float64 `[2, R]`, with the weights `[G, R]` of clusters; NaN where they are not defined.

    Whole weights are added up exactly; those of uint8 take half the time.
    """
    false, hits, wrong, precision = np.zeros((4, weights.shape[1]))
    for chunk in ranking.chunks:
        above, beside, gain = chunk.sums(weights)
        above += beside
        given, hit = _running(above, false), _running(gain.copy(), hits)
        false, hits = given[-1, -1].copy(), hit[-1, -1]
        # A negative beside a positive is half a mistake.
        beside *= -0.5
        beside += given
        wrong += np.einsum("jkr,jkr->r", gain, beside)
        given += hit
        np.maximum(given, np.finfo(float).tiny, out=given)
        precision += np.einsum("jkr,jkr->r", gain, np.divide(hit, given, out=given))
    pairs = hits * false
    return np.stack([ratio(pairs - wrong, pairs), ratio(precision, hits)])


def _running(steps: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Sums over the steps `[_STRIDE, height, R]` up to each, in place, and over what came `before`, `[R]`."""
    for number in range(1, len(steps)):
        steps[number] += steps[number - 1]
    steps += np.concatenate([before[None], before + np.cumsum(steps[-1, :-1], 0)])
    return steps


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A ratio; NaN over 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
