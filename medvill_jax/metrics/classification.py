"""Figures of a multi-label classification: areas under curves, F1, calibration, each with its interval.

A label may be unknown (`known` false): an uncertain or unmentioned finding. It counts nowhere then, and an example of
which no label is known is none.

A figure that the examples do not define is NaN, never 0: AUROC without a positive or without a negative, AUPRC
and F1 without a positive. The formula of F1 gives 0 there if there is a false alarm, and nothing if there is none; then
the model, not the examples, would decide which classes a macro mean is over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from medvill_jax.metrics import bootstrap

Value = float | list[float]

BINS = 15


def slug(name: str) -> str:
    """A name as it stands in names of figures: "Pleural Effusion" -> "pleural_effusion"."""
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
      weights: float `[N]`, or `[R, N]` for R figures at once; 0 leaves an example out. None: 1 each.

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
    return _one_or_many(_f1(weighted @ _outcomes(predicted, targets)), weights)


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

    The distance between mean probability and fraction positive, averaged over bins of equal width by the examples in
    them. A bin holds its upper edge, the first one 0 too.

    Args:
      probabilities: `[N]` in [0, 1].
      targets, weights: as in `auroc`.
      bins: how many.

    Returns:
      A float in [0, 1], or float64 `[R]`; NaN without an example.
    """
    probabilities, targets = _probabilities(probabilities), _binary("targets", targets)
    weighted = _weights(weights, _length(probabilities, targets))
    rows = _gaps(probabilities[:, None], targets[:, None], np.ones((len(targets), 1), bool), bins)
    return _one_or_many(_ece(weighted @ rows), weights)


class Reliability(NamedTuple):
    """What a reliability diagram shows, by bin: `[bins]` each, NaN (count 0) where a bin is empty."""

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
      bins: how many.
    """
    known = np.ones(probabilities.shape, bool) if known is None else np.asarray(known, bool)
    _length(probabilities, targets, known)
    some, positive = _probabilities(probabilities[known]), _binary("targets", targets[known])
    numbers = _bins(some, bins)
    count = np.bincount(numbers, minlength=bins)
    confidence, fraction = (
        _ratio(np.bincount(numbers, each, bins), count) for each in (some, positive.astype(np.float64))
    )
    return Reliability(confidence, fraction, count)


def best_thresholds(scores: np.ndarray, targets: np.ndarray, known: np.ndarray) -> np.ndarray:
    """By class, the threshold with the highest F1 where a score at or above it is positive.

    A threshold lies midway between two adjacent scores, never on an example but where floats leave no room. One below
    all scores is half the lowest, or the lowest itself if that is not above 0. Of equally good ones it is the lowest: a
    missed finding is the dearer mistake.

    Args:
      scores: `[N, C]`, of the split to choose on, which must not be the one to report.
      targets: 0 or 1, `[N, C]`.
      known: bool `[N, C]`; False leaves a label out, whatever its score and target.

    Returns:
      float64 `[C]`; 0.5 for a class without a positive, where no threshold is better than another.

    Raises:
      ValueError: as in `auroc`.
    """
    scores, targets, known = _table(scores, targets, known)
    return np.array([_best_threshold(_ranked(scores, targets, known, c)) for c in range(scores.shape[1])])


def score(
    probabilities: np.ndarray,
    targets: np.ndarray,
    known: np.ndarray,
    names: Sequence[str],
    thresholds: np.ndarray,
    *,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Value]:
    """All figures of a multi-label classification.

    Args:
      probabilities: `[N, C]` in [0, 1].
      targets: 0 or 1, `[N, C]`.
      known: bool `[N, C]`; False leaves a label out, whatever its probability and target.
      names: C class names.
      thresholds: `[C]`; a probability at or above is positive. From `best_thresholds` on another split, or 0.5 each.
      resamples: for the intervals; 0 leaves them out.
      seed: of the resamples.

    Returns:
      * `examples` (with a known label), `classes_undefined` (without a positive or without a negative);
      * `auroc_macro`, `auprc_macro`, `f1_macro`: means over the other classes;
      * `auroc_micro`, `auprc_micro`, `f1_micro`, `ece`: over all known labels, pooled;
      * `auroc/SLUG`, `auprc/SLUG`, `f1/SLUG`, `positives/SLUG` for every class.

      All in [0, 1] but the counts, NaN where not defined. Next to each but the counts `NAME_ci95`: [low, high], the
      percentile bootstrap over examples. In a resample, macro means are over the classes that it defines.

    Raises:
      ValueError: no known label, shapes that differ, class names that are alike, or values out of range.
    """
    probabilities, targets, known = _table(probabilities, targets, known)
    _probabilities(probabilities[known])
    slugs = _slugs(names, probabilities.shape[1])
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.shape != (len(slugs),) or np.isnan(thresholds).any():
        raise ValueError(f"thresholds {thresholds.tolist()}; expected {len(slugs)} numbers, one a class")
    rows = known.any(1)
    if not rows.any():
        raise ValueError(f"none of {len(known)} examples has a known label; there is nothing to score")
    scorer = _Scorer(probabilities[rows], targets[rows], known[rows], thresholds)

    labels = (targets & known).sum(0)
    figures: dict[str, Value] = {
        "examples": float(rows.sum()),
        "classes_undefined": float(((labels == 0) | (labels == known.sum(0))).sum()),
    }
    keys = [f"{kind}_{mean}" for kind in ("auroc", "auprc", "f1") for mean in ("macro", "micro")]
    keys += ["ece", *(f"{kind}/{each}" for kind in ("auroc", "auprc", "f1") for each in slugs)]
    count = int(rows.sum())
    values = scorer(np.ones((1, count)))[0].tolist()
    limits: list[list[float]] = []
    if resamples:
        limits = bootstrap.interval_of_weights(
            scorer, count, width=4 * len(slugs), resamples=resamples, seed=seed
        ).T.tolist()
    for number, (key, value) in enumerate(zip(keys, values, strict=True)):
        figures[key] = value
        if limits:
            figures[f"{key}_ci95"] = limits[number]
    return figures | {f"positives/{each}": float(count) for each, count in zip(slugs, labels, strict=True)}


class _Scorer:
    """The figures of `score`, in its order, of weighted examples: float64 `[R, N]` -> `[R, K]`."""

    def __init__(self, probabilities: np.ndarray, targets: np.ndarray, known: np.ndarray, thresholds: np.ndarray):
        self._classes = [_ranked(probabilities, targets, known, c) for c in range(len(thresholds))]
        self._all = _ranked(probabilities, targets, known)
        outcomes = _outcomes(probabilities >= thresholds, targets) * known[..., None]  # [N, C, 4]
        gaps = _gaps(probabilities, targets, known, BINS)
        # One matrix product for all that is a function of sums.
        self._rows = np.concatenate([outcomes.reshape(len(known), -1), gaps], 1)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        areas = np.stack([_areas(each, weights) for each in self._classes], -1)  # [2, R, C]
        micro = _areas(self._all, weights)  # [2, R]
        sums = weights @ self._rows
        size = 4 * len(self._classes)
        outcomes = sums[:, :size].reshape(len(sums), -1, 4)  # [R, C, 4]
        by_class, pooled = [*areas, _f1(outcomes)], [*micro, _f1(outcomes.sum(1))]
        hits, false, missed, rest = np.moveaxis(outcomes, -1, 0)
        defined = (hits + missed > 0) & (false + rest > 0)  # [R, C]
        number = defined.sum(-1)
        columns = []
        for each, whole in zip(by_class, pooled, strict=True):
            columns += [_ratio(np.where(defined, each, 0.0).sum(-1), number)[:, None], whole[:, None]]
        return np.concatenate([*columns, _ece(sums[:, size:])[:, None], *by_class], 1)


@dataclass(frozen=True)
class _Ranked:
    """Labels by descending score: the example that each belongs to, and where equal scores end."""

    examples: np.ndarray  # int [n]
    scores: np.ndarray  # float64 [n]
    positive: np.ndarray  # bool [n]
    ends: np.ndarray  # int, the last label of each distinct score


def _ranked(scores: np.ndarray, targets: np.ndarray, known: np.ndarray, column: int | None = None) -> _Ranked:
    """The known labels of one class, or of all, of `[N, C]` arrays."""
    some = slice(None) if column is None else slice(column, column + 1)
    examples = np.nonzero(known[:, some])[0]
    chosen, positive = scores[:, some][known[:, some]], targets[:, some][known[:, some]]
    order = np.argsort(-chosen, kind="stable")
    chosen = chosen[order]
    ends = np.nonzero(np.append(chosen[1:] != chosen[:-1], True)[: len(chosen)])[0]
    return _Ranked(examples[order], chosen, positive[order], ends)


def _areas(ranked: _Ranked, weights: np.ndarray) -> np.ndarray:
    """AUROC and AUPRC, float64 `[2, R]`, with the weights `[R, N]` of examples."""
    if not ranked.positive.any():
        return np.full((2, len(weights)), np.nan)
    # Both are sums over positives, so all but the sum of weights above is computed at scores that have one.
    positives = np.nonzero(ranked.positive)[0]
    group = np.searchsorted(ranked.ends, positives)
    last = np.append(group[1:] != group[:-1], True)  # of the positives of a score
    end = ranked.ends[group[last]]
    before = np.where(group[last] > 0, ranked.ends[group[last] - 1] + 1, 0)

    hits = np.zeros((len(weights), last.sum() + 1))
    hits[:, 1:] = np.cumsum(np.take(weights, ranked.examples[positives], 1), 1)[:, last]
    above = np.zeros((len(weights), len(ranked.examples) + 1))
    np.take(weights, ranked.examples, 1, out=above[:, 1:], mode="clip")
    np.cumsum(above, 1, out=above)
    given = above[:, end + 1]  # at or above each score, [R, scores with a positive]
    gain, hit = np.diff(hits, axis=1), hits[:, 1:]
    # Negatives at or above a score, and above it; those beside a positive count half.
    false = (given - hit + above[:, before] - hits[:, :-1]) / 2
    all_hits = hits[:, -1]
    all_false = weights @ np.bincount(ranked.examples[~ranked.positive], minlength=weights.shape[1])
    auroc = _ratio(np.einsum("rg,rg->r", gain, all_false[:, None] - false), all_hits * all_false)
    precision = np.divide(hit, given, out=np.zeros_like(hit), where=given > 0)
    return np.stack([auroc, _ratio(np.einsum("rg,rg->r", gain, precision), all_hits)])


def _best_threshold(ranked: _Ranked) -> float:
    positives = ranked.positive.sum()
    if not positives:
        return 0.5
    hits = np.cumsum(ranked.positive)[ranked.ends]
    values = 2 * hits / (positives + ranked.ends + 1)
    best = len(values) - 1 - int(np.argmax(values[::-1]))
    least = ranked.scores[ranked.ends[best]]
    if best == len(values) - 1:
        return float(least / 2 if least > 0 else least)
    middle = least + (ranked.scores[ranked.ends[best + 1]] - least) / 2
    return float(middle if middle > ranked.scores[ranked.ends[best + 1]] else least)


def _outcomes(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float64 `[..., 4]`: 1 where a label was hit, falsely given, missed, rightly not given."""
    each = [predicted & targets, predicted & ~targets, ~predicted & targets, ~predicted & ~targets]
    return np.stack(each, -1).astype(np.float64)


def _f1(outcomes: np.ndarray) -> np.ndarray:
    """F1 of summed `_outcomes` `[..., 4]`."""
    hits, false, missed, _ = np.moveaxis(outcomes, -1, 0)
    return np.where(hits + missed > 0, _ratio(2 * hits, 2 * hits + false + missed), np.nan)


def _bins(probabilities: np.ndarray, bins: int) -> np.ndarray:
    if bins < 1:
        raise ValueError(f"bins={bins}; expected at least 1")
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities, side="left")


def _gaps(probabilities: np.ndarray, targets: np.ndarray, known: np.ndarray, bins: int) -> np.ndarray:
    """float64 `[N, bins + 1]`: target minus probability by bin, and the number of labels, of `[N, C]` arrays."""
    rows = np.zeros((len(known), bins + 1))
    examples, classes = np.nonzero(known)
    some = probabilities[examples, classes]
    np.add.at(rows, (examples, _bins(some, bins)), targets[examples, classes] - some)
    rows[:, bins] = known.sum(1)
    return rows


def _ece(sums: np.ndarray) -> np.ndarray:
    """The calibration error of summed `_gaps` `[..., bins + 1]`."""
    return _ratio(np.abs(sums[..., :-1]).sum(-1), sums[..., -1])


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A ratio; NaN over 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _area(kind: int, scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None) -> float | np.ndarray:
    weighted = _weights(weights, _length(scores, targets))
    known = np.ones((len(scores), 1), bool)
    scores, targets, _ = _table(np.asarray(scores)[:, None], np.asarray(targets)[:, None], known)
    return _one_or_many(_areas(_ranked(scores, targets, known), weighted)[kind], weights)


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
    shapes = [list(np.shape(each)) for each in arrays]
    if any(each != shapes[0] for each in shapes):
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
    if bad := sorted({each for each in slugs if not each or slugs.count(each) > 1}):
        raise ValueError(f"class names are empty or alike: {', '.join(map(repr, bad))}")
    return slugs
