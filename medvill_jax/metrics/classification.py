"""Metrics of a multi-label classification with their intervals: areas under curves, F1, calibration error.

A label may be unknown (`known` false), such as an uncertain or unmentioned finding. Unknown labels count nowhere, and
examples without any known label are left out.

A metric that the examples do not define is NaN, never 0: AUROC without a positive or without a negative, AUPRC and F1
without a positive. Macro means of areas are over the classes with a positive and a negative, in a resample over those
that have both in it. Macro F1 is over the classes with a positive among all examples (`metrics.f1`).

See docs/spec.md#classification-metrics.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import NamedTuple, overload

import numpy as np

from medvill_jax.errors import UserError
from medvill_jax.metrics import bootstrap
from medvill_jax.metrics import f1 as averages
from medvill_jax.metrics.areas import Ranking, areas, ratio

Value = float | list[float]

BINS = 15
# How many resamples have their areas computed at once; a few MB for each thread.
_RESAMPLES_AT_ONCE = 64


def slug(name: str) -> str:
    """A class name as part of a metric's name: "Pleural Effusion" -> "pleural_effusion"."""
    return re.sub(r"[\W_]+", "_", name.lower()).strip("_")


@overload
def auroc(scores: np.ndarray, targets: np.ndarray, weights: None = None) -> float: ...
@overload
def auroc(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float | np.ndarray: ...
def auroc(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float | np.ndarray:
    """The area under the ROC curve: how often a positive has a higher score than a negative, ties counting half.

    Args:
      scores: `[N]`, higher is more positive; any monotone scale.
      targets: bool `[N]`.
      weights: float `[N]`, or `[R, N]` for R values at once; 0 leaves an example out. None: all 1.

    Returns:
      A float, or float64 `[R]`; NaN without a positive or without a negative.

    Raises:
      ValueError: shapes that differ, scores that are NaN, targets other than 0 and 1, weights below 0.
    """
    return _area(0, scores, targets, weights)


@overload
def auprc(scores: np.ndarray, targets: np.ndarray, weights: None = None) -> float: ...
@overload
def auprc(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float | np.ndarray: ...
def auprc(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float | np.ndarray:
    """Average precision: the sum over thresholds of precision times gain in recall, without interpolation.

    Arguments and errors are those of `auroc`; NaN only without a positive.
    """
    return _area(1, scores, targets, weights)


@overload
def f1(predicted: np.ndarray, targets: np.ndarray, weights: None = None) -> float: ...
@overload
def f1(predicted: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float | np.ndarray: ...
def f1(predicted: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float | np.ndarray:
    """F1 of the positive class, 2 hits / (2 hits + false + missed).

    Args:
      predicted: bool `[N]`.
      targets, weights: as in `auroc`.

    Returns:
      A float, or float64 `[R]`; NaN without a positive target.
    """
    predicted, targets = _binary("predicted", predicted), _binary("targets", targets)
    weighted = _weights(weights, _length(predicted, targets))
    outcomes = weighted @ averages.outcomes(predicted, targets)  # [R, 3]
    return _one_or_many(np.where(outcomes[:, [0, 2]].any(1), averages.scores(outcomes)[2], np.nan), weights)


@overload
def calibration(probabilities: np.ndarray, targets: np.ndarray, weights: None = None, bins: int = BINS) -> float: ...
@overload
def calibration(
    probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray, bins: int = BINS
) -> float | np.ndarray: ...
def calibration(
    probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None, bins: int = BINS
) -> float | np.ndarray:
    """The expected calibration error (Guo et al. 2017) of the probability of the positive class.

    The distance between mean probability and fraction positive, averaged over bins of equal width, each weighted by its
    number of examples. A bin includes its upper edge, and the first bin 0 too.

    Args:
      probabilities: `[N]` in [0, 1].
      targets, weights: as in `auroc`.
      bins: the number of bins.

    Returns:
      A float in [0, 1], or float64 `[R]`; NaN without an example.
    """
    probabilities, targets = _probabilities(probabilities), _binary("targets", targets)
    weighted = _weights(weights, _length(probabilities, targets))
    rows = np.zeros((len(targets), bins + 1))
    _add_gaps(rows, probabilities, targets, np.ones(len(targets), bool))
    return _one_or_many(_ece(weighted @ rows), weights)


class Reliability(NamedTuple):
    """The data of a reliability diagram by bin, `[bins]` each; the first two are NaN where a bin is empty."""

    confidence: np.ndarray
    """Mean probability, float64."""
    positive: np.ndarray
    """Fraction positive, float64."""
    count: np.ndarray
    """Labels in the bin, int64."""


def reliability(
    probabilities: np.ndarray, targets: np.ndarray, known: np.ndarray | None = None, bins: int = BINS
) -> Reliability:
    """Mean probability and fraction positive in bins of equal width, as in `calibration`.

    Args:
      probabilities: `[N]`, or `[N, C]` for all classes pooled, in [0, 1].
      targets: bool, of the same shape.
      known: bool, of the same shape; False leaves a label out. None: all are known.
      bins: the number of bins.
    """
    known = np.ones(probabilities.shape, bool) if known is None else np.asarray(known, bool)
    _length(probabilities, targets, known)
    scores, positive = _probabilities(probabilities[known]), _binary("targets", targets[known])
    bin_of = _bins(scores, bins)
    count = np.bincount(bin_of, minlength=bins)
    confidence, fraction = (
        ratio(np.bincount(bin_of, values, bins), count) for values in (scores, positive.astype(np.float64))
    )
    return Reliability(confidence, fraction, count)


def best_thresholds(scores: np.ndarray, targets: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The threshold with the highest F1 for each class; a score at or above it is positive.

    A threshold lies midway between two adjacent scores, or on the upper one where no float is between them. A threshold
    below all scores is half the lowest, or the lowest itself if that is not above 0. Of equally good thresholds it is
    the lowest, as a missed finding is the worse mistake.

    Args:
      scores: `[N, C]`, of the split to choose on; F1 on the same split is in-sample, and so too high.
      targets: 0 or 1, `[N, C]`.
      known: bool `[N, C]`; False leaves a label out, whatever its score and target.

    Returns:
      float64 `[C]`; 0.5 for a class without a positive, where no threshold is better than another.

    Raises:
      ValueError: as in `auroc`.
    """
    scores, targets, known = _table(scores, targets, known)
    columns = (_labels(scores, targets, known, column) for column in range(scores.shape[1]))
    return np.array([_best_threshold(chosen, positive) for _, chosen, positive in columns])


def score(
    probabilities: np.ndarray,
    targets: np.ndarray,
    known: np.ndarray,
    names: Sequence[str],
    thresholds: np.ndarray,
    *,
    clusters: bootstrap.Clusters = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Value]:
    """All metrics of a multi-label classification.

    Args:
      probabilities: `[N, C]` in [0, 1].
      targets: 0 or 1, `[N, C]`.
      known: bool `[N, C]`; False leaves a label out, whatever its probability and target.
      names: C class names.
      thresholds: `[C]`; a probability at or above is positive. From `best_thresholds` on another split, or 0.5 each.
      clusters: an identifier for each example, of its patient; intervals resample these, or examples for None.
      resamples: for the intervals; 0 leaves them out.
      seed: of the resamples.

    Returns:
      * `examples` (with a known label), `classes_undefined` (without a positive or without a negative);
      * `auroc_macro`, `auprc_macro`: means over the other classes;
      * `f1_macro`: the mean over the classes with a positive; `classes_absent`, how many have none, and
        `classes_absent_false_alarms`, the false alarms in these;
      * `auroc_micro`, `auprc_micro`, `f1_micro`, `ece`: over all known labels, pooled;
      * `auroc/SLUG`, `auprc/SLUG`, `f1/SLUG`, `positives/SLUG` for every class.

      All but the counts are in [0, 1], NaN where not defined, and have an interval `NAME_ci95`: [low, high], from the
      percentile bootstrap; `bootstrap.resampled` says what that resamples.

    Raises:
      UserError: no known label.
      ValueError: shapes that differ, class names that are alike, or values out of range.
    """
    probabilities, targets, known = _table(probabilities, targets, known)
    _probabilities(probabilities[known])
    slugs = _slugs(names, probabilities.shape[1])
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.shape != (len(slugs),) or np.isnan(thresholds).any():
        raise ValueError(f"thresholds {thresholds.tolist()}; expected {len(slugs)} numbers, one a class")
    rows = known.any(1)
    if not rows.any():
        raise UserError(f"none of {len(known)} examples has a known label; there is nothing to score")
    clusters = bootstrap.numbered(bootstrap.numbered(clusters, len(known))[rows], int(rows.sum()))
    scorer = Scorer(probabilities[rows], targets[rows], known[rows], thresholds, clusters)

    labels = (targets & known).sum(0)
    absent, false_alarms = averages.absent(scorer.outcomes, scorer.supported)
    metrics: dict[str, Value] = {
        "examples": float(rows.sum()),
        "classes_undefined": float(((labels == 0) | (labels == known.sum(0))).sum()),
        "classes_absent": absent,
        "classes_absent_false_alarms": false_alarms,
    }
    keys = [f"{metric}_{mean}" for metric in ("auroc", "auprc", "f1") for mean in ("macro", "micro")]
    keys += ["ece", *(f"{metric}/{name}" for metric in ("auroc", "auprc", "f1") for name in slugs)]
    values = scorer(np.ones((1, scorer.clusters), np.uint8))[0].tolist()
    limits: list[list[float]] = []
    if resamples:
        metrics |= bootstrap.resampled(clusters, len(clusters))
        limits = bootstrap.interval_of_weights(scorer, scorer.clusters, resamples=resamples, seed=seed).T.tolist()
    for number, (key, value) in enumerate(zip(keys, values, strict=True)):
        metrics[key] = value
        if limits:
            metrics[f"{key}_ci95"] = limits[number]
    return metrics | {f"positives/{name}": float(count) for name, count in zip(slugs, labels, strict=True)}


def paired(
    a: np.ndarray,
    b: np.ndarray,
    targets: np.ndarray,
    known: np.ndarray,
    *,
    clusters: bootstrap.Clusters = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float, bootstrap.Paired]]:
    """Tests whether two runs differ on the same examples, in the metrics of `score` that need no threshold.

    Args:
      a, b: probabilities `[N, C]` of the two runs.
      targets, known, clusters, resamples, seed: as in `score`.

    Returns:
      For `auroc_macro`, `auroc_micro`, `auprc_macro`, `auprc_micro` and `ece` the values of a and of b, and the
      difference b - a with its interval and p value (`bootstrap.paired_of_weights`); float64 scalars.

    Raises:
      ValueError: shapes that differ, or values out of range.
    """
    cluster_of = bootstrap.numbered(clusters, len(targets))
    count = int(cluster_of.max(initial=-1)) + 1
    both = [np.concatenate(arrays) for arrays in ((a, b), (targets, targets), (known, known))]
    table = _table(*both)
    _probabilities(table[0][table[2]])
    scorer = Scorer(*table, np.full(a.shape[1], 0.5), np.concatenate([cluster_of, cluster_of + count]))
    names = {"auroc_macro": 0, "auroc_micro": 1, "auprc_macro": 2, "auprc_micro": 3, "ece": 6}  # of its columns
    columns = [*names.values()]

    def statistic(weights: np.ndarray) -> np.ndarray:
        return scorer(weights)[:, columns]

    one, none = np.ones((1, count), np.uint8), np.zeros((1, count), np.uint8)
    of_a, of_b = (statistic(np.concatenate(sides, 1))[0].tolist() for sides in ((one, none), (none, one)))
    found = bootstrap.paired_of_weights(statistic, count, resamples=resamples, seed=seed)
    return {
        name: (of_a[k], of_b[k], bootstrap.Paired(found.difference[k], found.low[k], found.high[k], found.p[k]))
        for k, name in enumerate(names)
    }


class Scorer:
    """The metrics of `score`, in its order, of drawn clusters: uint8 `[R, G]` -> float64 `[R, K]`.

    Attributes:
      clusters: G, the number of clusters.
      supported: bool `[C]`, which classes have a positive.
      outcomes: float64 `[C, 3]`, hits, false alarms and misses over all clusters.
    """

    def __init__(
        self,
        probabilities: np.ndarray,
        targets: np.ndarray,
        known: np.ndarray,
        thresholds: np.ndarray,
        clusters: np.ndarray,
    ):
        self._classes = len(thresholds)

        def ranking(column: int | None) -> Ranking:
            examples, chosen, positive = _labels(probabilities, targets, known, column)
            return Ranking(clusters[examples], chosen, positive)

        # Pooled labels first: they are half of the work, as many as those of all classes together.
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            self._rankings = list(threads.map(ranking, (None, *range(self._classes))))
        size = 3 * self._classes
        rows = np.zeros((len(known), size + BINS + 1))
        for column in range(self._classes):
            counted = known[:, column]
            predicted = (probabilities[:, column] >= thresholds[column]) & counted
            rows[:, 3 * column : 3 * column + 3] = averages.outcomes(predicted, targets[:, column]) & counted[:, None]
            _add_gaps(rows[:, size:], probabilities[:, column], targets[:, column], counted)
        # One matrix product for all metrics that are functions of sums.
        self._rows = bootstrap.cluster_sums(rows, clusters)
        self.clusters = len(self._rows)
        self.outcomes = self._rows[:, :size].sum(0).reshape(-1, 3)
        self.supported = self.outcomes[:, 0] + self.outcomes[:, 2] > 0

    def __call__(self, drawn: np.ndarray) -> np.ndarray:
        areas_of = []
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for start in range(0, len(drawn), _RESAMPLES_AT_ONCE):
                weights = np.ascontiguousarray(drawn[start : start + _RESAMPLES_AT_ONCE].T)  # [G, resamples]
                areas_of.append(list(threads.map(areas, self._rankings, repeat(weights))))
        pooled, *by_class = np.concatenate(areas_of, -1)  # [2, R] each
        sums = bootstrap.sums(drawn, self._rows)
        outcomes = sums[:, : 3 * self._classes].reshape(len(sums), -1, 3)  # [R, C, 3]
        aurocs, auprcs = np.stack(by_class, -1)  # [R, C]
        both_sides = ~np.isnan(aurocs)
        f1s = np.where(self.supported, averages.scores(outcomes)[2], np.nan)
        f1_pooled = averages.scores(outcomes.sum(1))[2] if self.supported.any() else np.full(len(sums), np.nan)
        columns = []
        for values, pooled_values, defined in (
            (aurocs, pooled[0], both_sides),
            (auprcs, pooled[1], both_sides),
            (f1s, f1_pooled, self.supported),
        ):
            columns += [averages.mean_of_defined(values, defined)[:, None], pooled_values[:, None]]
        return np.concatenate([*columns, _ece(sums[:, 3 * self._classes :])[:, None], aurocs, auprcs, f1s], 1)


def _labels(
    scores: np.ndarray, targets: np.ndarray, known: np.ndarray, column: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Example, score and target, `[n]` each, of the known labels of one class, or of all classes (None)."""
    columns = slice(None) if column is None else slice(column, column + 1)
    counted = known[:, columns]
    return np.nonzero(counted)[0], scores[:, columns][counted], targets[:, columns][counted]


def _best_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    if not positive.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    ends = np.nonzero(np.append(scores[1:] != scores[:-1], True))[0]  # the last label of each distinct score
    values = 2 * np.cumsum(positive)[ends] / (positive.sum() + ends + 1)
    best = len(values) - 1 - int(np.argmax(values[::-1]))
    least = scores[ends[best]]
    if best == len(values) - 1:
        return float(least / 2 if least > 0 else least)
    below = scores[ends[best + 1]]
    middle = least + (below - least) / 2
    return float(middle if middle > below else least)


def _bins(probabilities: np.ndarray, bins: int) -> np.ndarray:
    if bins < 1:
        raise ValueError(f"bins={bins}; expected at least 1")
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities, side="left")


def _add_gaps(rows: np.ndarray, probabilities: np.ndarray, targets: np.ndarray, known: np.ndarray) -> None:
    """Adds a class to rows `[N, bins + 1]`: target minus probability of a known label to its bin, and 1 at the end."""
    examples, bins = np.nonzero(known)[0], rows.shape[1] - 1
    rows[examples, _bins(probabilities[known], bins)] += targets[known] - probabilities[known]
    rows[:, bins] += known


def _ece(sums: np.ndarray) -> np.ndarray:
    """The calibration error of summed rows of `_add_gaps` `[..., bins + 1]`."""
    return ratio(np.abs(sums[..., :-1]).sum(-1), sums[..., -1])


def _area(index: int, scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None) -> float | np.ndarray:
    weighted = _weights(weights, _length(scores, targets))
    known = np.ones((len(scores), 1), bool)
    table = _table(np.asarray(scores)[:, None], np.asarray(targets)[:, None], known)
    return _one_or_many(areas(Ranking(*_labels(*table, None)), weighted.T)[index], weights)


def _one_or_many(values: np.ndarray, weights: np.ndarray | None) -> float | np.ndarray:
    return values if weights is not None and np.ndim(weights) == 2 else float(values[0])


def _weights(weights: np.ndarray | None, count: int) -> np.ndarray:
    """float64 `[R, count]`."""
    rows = np.ones((1, count)) if weights is None else np.atleast_2d(np.asarray(weights, np.float64))
    if rows.ndim != 2 or rows.shape[1] != count:
        raise ValueError(f"weights of shape {list(rows.shape)}; expected [{count}] or [R, {count}]")
    if not (rows >= 0).all():
        raise ValueError("a weight is below 0 or NaN")
    return rows


def _table(scores: np.ndarray, targets: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores as float64, targets and known as bool, all `[N, C]`; unknown targets are False."""
    scores, targets, known = np.asarray(scores, np.float64), np.asarray(targets), np.asarray(known, bool)
    _length(scores, targets, known)
    if scores.ndim != 2:
        raise ValueError(f"scores of shape {list(scores.shape)}; expected [N, C]")
    if nan := int(np.isnan(scores[known]).sum()):
        raise ValueError(f"{nan} of {int(known.sum())} scores are NaN")
    return scores, _binary("targets", np.where(known, targets, 0)), known


def _length(*arrays: np.ndarray) -> int:
    shapes = [list(np.shape(array)) for array in arrays]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"arrays of shapes {', '.join(map(str, shapes))}; expected the same")
    return shapes[0][0]


def _binary(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"{name} has values other than 0 and 1")
    return values.astype(bool)


def _probabilities(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("a probability is NaN or not between 0 and 1")
    return values


def _slugs(names: Sequence[str], count: int) -> list[str]:
    slugs = [slug(name) for name in names]
    if len(slugs) != count:
        raise ValueError(f"{len(slugs)} class names for {count} classes")
    if bad := sorted({name for name in slugs if not name or slugs.count(name) > 1}):
        raise ValueError(f"class names are empty or alike: {', '.join(map(repr, bad))}")
    return slugs
