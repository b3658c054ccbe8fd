"""Plots of metrics. They show only counts and means over examples, never a single example."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from medvill_jax import private
from medvill_jax.metrics.classification import Reliability

_INK, _LINE, _BARS, _IDEAL = "#222222", "#1f5fa8", "#9db8d6", "#999999"
_COLUMNS = 5
# Bins with fewer labels than this are drawn hollow: their fraction positive is mostly chance.
_FEW = 10


def reliability_plot(
    path: Path,
    overall: Reliability,
    classes: Mapping[str, Reliability] | None = None,
    *,
    title: str = "Reliability",
    ece: float | None = None,
) -> None:
    """Writes a reliability diagram as PNG: the fraction positive over the predicted probability, and a histogram.

    The same curves give the same bytes with the same version of matplotlib.

    Args:
      path: the file, in a folder that exists; replaced atomically.
      overall: all classes pooled, from `classification.reliability`: a large curve above its histogram.
      classes: class name -> its reliability, small panels next to the large one, in this order.
      title: one line above the panels.
      ece: the calibration error of `overall`, written into its panel.

    Raises:
      ValueError: curves with different numbers of bins.
      OSError: the file cannot be written.
    """
    classes = classes or {}
    bins = len(overall.count)
    if other := [name for name, curve in classes.items() if len(curve.count) != bins]:
        raise ValueError(f"{other[0]} has {len(classes[other[0]].count)} bins, but overall has {bins}")
    rows = max(3, math.ceil(len(classes) / _COLUMNS))
    columns = math.ceil(len(classes) / rows)
    figure = Figure(figsize=(5.2 + 2.0 * columns, max(6.4, 2.0 * rows + 0.9)), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=13, color=_INK)
    large: Any = figure
    if columns:
        large, small = figure.subfigures(1, 2, squeeze=False, width_ratios=(5.0, 2.0 * columns))[0]
        _small(small, classes, rows, columns)
    _large(large, overall, ece)
    _save(path, figure)


def share_plot(path: Path, panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]]) -> None:
    """Writes a PNG: metrics over the share of training labels, for every start a curve and its standard deviation.

    Args:
      path: the file, in a folder that exists; replaced atomically.
      panels: title -> start -> (share, mean, standard deviation), by ascending share.

    Raises:
      OSError: the file cannot be written.
    """
    rows = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(9.6, 3.4 * max(rows, 1)), dpi=120, layout="constrained")
    grid = figure.subplots(max(rows, 1), 2, squeeze=False).ravel()
    starts = list(dict.fromkeys(start for panel in panels.values() for start in panel))
    for axes, (title, panel) in zip(grid, panels.items(), strict=False):
        for start, points in panel.items():
            share, mean, spread = np.array(points).T
            colour = f"C{starts.index(start)}"
            axes.plot(100 * share, mean, color=colour, marker="o", markersize=4, linewidth=1.5, label=start)
            axes.fill_between(100 * share, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
        axes.set_xscale("log")
        axes.set_title(title, fontsize=9.5, color=_INK)
        axes.set_xlabel("training labels, %", fontsize=9, color=_INK)
        axes.legend(fontsize=8, frameon=False, loc="lower right")
        _plain(axes, 8)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    _save(path, figure)


def _save(path: Path, figure: Figure) -> None:
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    # Metadata would name the version of matplotlib.
    figure.savefig(content, format="png", metadata={"Software": None})
    private.write(path, content.getvalue())


def _large(place: Any, curve: Reliability, ece: float | None) -> None:
    above, below = place.subplots(2, 1, sharex=True, height_ratios=(3.6, 1))
    _curve(above, curve, size=6, line=1.8)
    above.set_ylabel("fraction that has the finding", color=_INK)
    words = [f"all findings, {curve.count.sum():,} labels"]
    if ece is not None:
        words.append("calibration error undefined" if math.isnan(ece) else f"expected calibration error {ece:.3f}")
    words.append(f"hollow: fewer than {_FEW} labels")
    _note(above, "\n".join(words), 9)
    for x, y, side in ((0.97, 0.05, "right"), (0.03, 0.68, "left")):
        note = "probabilities too high" if side == "right" else "probabilities too low"
        above.text(x, y, note, transform=above.transAxes, ha=side, fontsize=9, color=_IDEAL, style="italic")
    width = 1 / len(curve.count)
    middles = (np.arange(len(curve.count)) + 0.5) * width
    below.bar(middles, curve.count, width * 0.92, color=_BARS)
    below.set_yscale("symlog", linthresh=1)
    below.set_ylim(bottom=0)
    below.set_ylabel("labels (log)", color=_INK)
    below.set_xlabel("predicted probability of the finding", color=_INK)
    for axes in (above, below):
        _plain(axes, 9)


def _small(place: Any, classes: Mapping[str, Reliability], rows: int, columns: int) -> None:
    panels = place.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for number, (name, curve) in enumerate(classes.items()):
        axes = panels[number]
        positives = int(np.nansum(curve.positive * curve.count).round())
        _curve(axes, curve, size=3.5, line=1.2)
        axes.set_aspect("equal")
        axes.set_title(name, fontsize=8.5, color=_INK)
        _note(axes, f"{positives:,} of {curve.count.sum():,} present" if positives else "none present", 7)
        _plain(axes, 7)
        # Only the lowest panel of a column has tick labels.
        axes.tick_params(labelbottom=number + columns >= len(classes))
    for axes in panels[len(classes) :]:
        axes.set_axis_off()


def _curve(axes: Any, curve: Reliability, *, size: float, line: float) -> None:
    axes.plot([0, 1], [0, 1], color=_IDEAL, linewidth=1, linestyle="--")
    filled = curve.count > 0
    confidence, positive, count = (values[filled] for values in curve)
    axes.plot(confidence, positive, color=_LINE, linewidth=line)
    for bins, fill in ((count >= _FEW, _LINE), (count < _FEW, "white")):
        axes.plot(
            confidence[bins],
            positive[bins],
            linestyle="none",
            marker="o",
            markersize=size,
            markeredgecolor=_LINE,
            markerfacecolor=fill,
        )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1"])
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1"])


def _note(axes: Any, words: str, size: float) -> None:
    axes.text(0.03, 0.97, words, transform=axes.transAxes, va="top", fontsize=size, color=_INK, linespacing=1.4)


def _plain(axes: Any, size: float) -> None:
    axes.tick_params(labelsize=size, colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)
