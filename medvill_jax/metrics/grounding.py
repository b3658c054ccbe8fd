"""Metrics of phrase grounding: does a heat map show where the phrase is seen? See docs/metrics.md#grounding.

pointing      whether the highest place lies in a box (Zhang et al., IJCV 2018, without their margin of 15 pixels); a
              network's highest place is anywhere in its highest cell, so this is the share of that cell in the boxes
miou          the mean, over `THRESHOLDS`, of the overlap of the boxes with the map from that height on, the map scaled
              to 0..1 on its film (Boecking et al., ECCV 2022, who threshold cosines, which need no scale)
cnr           contrast-to-noise ratio (mean inside - mean outside) / sqrt(variance inside + variance outside), with its
              sign: a map that is low in the boxes is below zero
cnr_absolute  the same without sign (Boecking et al.): it also rewards a map that is low in the boxes
box_iou       the overlap of the boxes with the one box that is drawn around the highest part of the map

Overlap is intersection over union of areas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from medvill_jax.metrics import bootstrap
from medvill_jax.metrics.classification import slug

Value = float | list[float]

MEASURES = ("pointing", "miou", "cnr", "cnr_absolute", "box_iou")
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def measured(
    heat: np.ndarray, scaled: np.ndarray, inside: np.ndarray, box: np.ndarray, highest: np.ndarray | None = None
) -> np.ndarray:
    """The measures of one phrase.

    Args:
      heat: float `[H, W]`, the map on its film, on any scale.
      scaled: float `[H, W]`, the same from 0 to 1.
      inside: bool `[H, W]`, the places in the boxes.
      box: bool `[H, W]`, the places in the one box that is predicted.
      highest: bool `[H, W]`, at least one place, of which each is as likely to be pointed at; None for those where the
        map is highest.

    Returns:
      float64 `[5]`, as in `MEASURES`; NaN for what is not defined: all of them without a place in a box, contrasts
      without a place outside.
    """
    heat = np.asarray(heat, np.float64)
    if not inside.any():
        return np.full(len(MEASURES), np.nan)
    at_top = heat == heat.max()
    contrast = np.nan
    if at_top.all():
        contrast = np.nan if inside.all() else 0.0  # and not what rounding makes of equal values
    elif not inside.all():
        within, without = heat[inside], heat[~inside]
        difference, noise = within.mean() - without.mean(), np.sqrt(within.var() + without.var())
        # A map of two values, one in each part, has no noise.
        contrast = difference / noise if noise > 0 else np.inf * np.sign(difference) if difference else 0.0
    pointing = float(inside[at_top if highest is None else highest].mean())
    return np.array([pointing, mean_overlap(scaled, inside), contrast, abs(contrast), overlap(box, inside)])


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two sets of places, bool `[H, W]`; 0 if both are empty."""
    union = float((one | other).sum())
    return float((one & other).sum()) / union if union else 0.0


def mean_overlap(scaled: np.ndarray, inside: np.ndarray) -> float:
    """`miou` of one map, float `[H, W]` from 0 to 1, and the places bool `[H, W]` in the boxes."""
    return float(np.mean([overlap(scaled >= threshold, inside) for threshold in THRESHOLDS]))


def score(
    measures: np.ndarray,
    categories: Sequence[str],
    *,
    clusters: bootstrap.Clusters = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Value]:
    """Means over phrases, over all of them and over those of each category.

    Args:
      measures: float64 `[N, 5]`, a row of `measured` for each phrase.
      categories: of each phrase, "" for none.
      clusters: an identifier for each phrase, of its patient; intervals resample these, or phrases if it is None.
      resamples: for the intervals; 0 leaves them out.
      seed: of the resamples.

    Returns:
      `phrases`, the measures by their names, and the same for every category as `NAME/SLUG`, each measure with an
      interval `NAME_ci95`: [low, high]; and `bootstrap.resampled`. Phrases in which a measure is not defined, or not
      finite, do not count for it; NaN where none is left.

    Raises:
      ValueError: no phrase, or categories or clusters of another length.
    """
    measures = np.asarray(measures, np.float64)
    if measures.ndim != 2 or measures.shape[1] != len(MEASURES) or not len(measures):
        raise ValueError(
            f"measures of shape {list(measures.shape)}; expected [N, {len(MEASURES)}], at least one phrase"
        )
    if len(categories) != len(measures):
        raise ValueError(f"{len(measures)} phrases, but {len(categories)} categories")
    groups = {"": np.ones(len(measures), bool)}
    for name in sorted({*categories} - {""}):
        groups[f"/{slug(name)}"] = np.array([category == name for category in categories])
    names = [f"{measure}{group}" for group in groups for measure in MEASURES]
    rows = sums_of([(measures, inside) for inside in groups.values()])
    metrics: dict[str, Value] = {}
    if resamples:
        metrics |= bootstrap.resampled(clusters, len(measures))
    metrics |= {f"phrases{group}": float(inside.sum()) for group, inside in groups.items()}
    metrics |= dict(zip(names, ratios(rows.sum(0)).tolist(), strict=True))
    if resamples:
        limits = bootstrap.interval(rows, ratios, clusters=clusters, resamples=resamples, seed=seed)
        metrics |= {f"{name}_ci95": pair for name, pair in zip(names, limits.T.tolist(), strict=True)}
    return metrics


def gain(
    measures: np.ndarray,
    others: np.ndarray,
    *,
    clusters: bootstrap.Clusters = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Value]:
    """How much higher the means of `measures` are than those of `others` on the same phrases, with intervals.

    Arguments as for `score`. Phrases in which a measure is not defined or not finite in either do not count for it.
    """
    with np.errstate(invalid="ignore"):  # two contrasts without noise: not defined
        difference = np.asarray(measures, np.float64) - np.asarray(others, np.float64)
    rows = sums_of([(difference, np.ones(len(difference), bool))])
    limits = bootstrap.interval(rows, ratios, clusters=clusters, resamples=resamples, seed=seed)
    metrics: dict[str, Value] = dict(zip(MEASURES, ratios(rows.sum(0)).tolist(), strict=True))
    return metrics | {f"{name}_ci95": pair for name, pair in zip(MEASURES, limits.T.tolist(), strict=True)}


def sums_of(groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Rows `[N, 2 K]` of values and of ones, 0 where a value does not count, for `ratios`."""
    counted = [np.isfinite(values) & inside[:, None] for values, inside in groups]
    values = [np.where(counts, of, 0.0) for (of, _), counts in zip(groups, counted, strict=True)]
    return np.concatenate([*values, *counted], 1).astype(np.float64)


def ratios(sums: np.ndarray) -> np.ndarray:
    """Means `[..., K]` of sums `[..., 2 K]`."""
    total, number = np.split(sums, 2, -1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def best_threshold(
    boxes_at: Callable[[float], Sequence[np.ndarray]], inside: Sequence[np.ndarray], thresholds: Sequence[float]
) -> tuple[float, Mapping[float, float]]:
    """The threshold whose boxes overlap best, of equally good ones the lowest; and the mean overlap of each.

    Args:
      boxes_at: threshold -> the places of the predicted box of each phrase, bool `[H, W]`.
      inside: the places in the boxes of each phrase, bool `[H, W]`.
      thresholds: to choose from.
    """
    reached = {
        threshold: float(np.mean([overlap(box, of) for box, of in zip(boxes_at(threshold), inside, strict=True)]))
        for threshold in thresholds
    }
    return max(sorted(reached), key=lambda threshold: reached[threshold]), reached
