"""Plots as pictures within the page: SVG that follows the reader's choice of dark or light."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from medvill_jax.pages.markup import Element, element

# Stand for the colour of the text and of the ground, which the page's reader chooses; no other part has them.
_INK, _GROUND = "#010203", "#fdfcfb"
_STYLE = (
    "<style>svg{{color:#1d2126;{ground}:#ffffff}}"
    "@media (prefers-color-scheme:dark){{svg{{color:#e4e8ed;{ground}:#14171b}}}}</style>"
).format(ground="--ground")
# At least three to one on white and on the dark ground.
COLOURS = ("#2f7fc1", "#c9700a", "#2e8b57", "#a05fd0", "#d64545", "#808080")
_SETTINGS: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "summary", "font.family": "sans-serif", "font.size": 9,
    "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
    "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "legend.frameon": False,
}  # fmt: skip
# More points than this are not told apart.
_POINTS = 500

# (step, value) by ascending step.
Curve = Sequence[tuple[int, float]]


class Counts(NamedTuple):
    """Examples of one finding."""

    hits: int
    false_alarms: int
    misses: int
    rejections: int


def curves(title: str, lines: Mapping[str, Curve], dashed: Mapping[str, Curve] = {}) -> Element:
    """A figure of one metric over the steps.

    Args:
        title: under it.
        lines: by name, at most as many as there are `COLOURS`, else colours repeat.
        dashed: the baselines.
    """
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(4.2, 2.7), layout="constrained")
        axes = figure.subplots()
        drawn = [*((name, "-") for name in lines), *((name, "--") for name in dashed)]
        for number, ((name, style), points) in enumerate(zip(drawn, (*lines.values(), *dashed.values()), strict=True)):
            steps, values = np.array(_thinned(points), np.float64).reshape(-1, 2).T
            marker = "o" if len(steps) < 20 else ""
            axes.plot(
                steps,
                values,
                color=COLOURS[number % len(COLOURS)],
                linestyle=style,
                marker=marker,
                markersize=3.5,
                linewidth=1.6,
                label=name,
            )
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        if len(lines) + len(dashed) > 1:
            axes.legend(fontsize=8)
        return _shown(figure, title, f"{title} over steps. {_told({**lines, **dashed})}")


def confusion(title: str, counts: Mapping[str, Counts]) -> Element:
    """A figure of hits, misses and false alarms, a bar for each finding."""
    parts = {"hits": "hits", "misses": "misses", "false_alarms": "false alarms"}
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.2, 0.9 + 0.27 * len(counts)), layout="constrained")
        axes = figure.subplots()
        start = np.zeros(len(counts))
        for (name, words), colour, hatch in zip(parts.items(), COLOURS, ("", "//", ".."), strict=False):
            widths = np.array([getattr(count, name) for count in counts.values()])
            bars = axes.barh([*counts], widths, left=start, color=colour, hatch=hatch, edgecolor=_GROUND, label=words)
            told = [str(width) if width else "" for width in widths]
            behind = {"facecolor": _GROUND, "edgecolor": "none", "pad": 1}  # a hatched bar is hard to read on
            axes.bar_label(bars, told, label_type="center", fontsize=8, bbox=behind)
            start += widths
        axes.invert_yaxis()
        axes.set_xlabel("examples")
        axes.legend(fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
        told = "; ".join(
            f"{name}: {count.hits} hits, {count.misses} misses, {count.false_alarms} false alarms"
            for name, count in counts.items()
        )
        return _shown(figure, title, f"{title}. {told}")


def intervals(title: str, points: Mapping[str, tuple[float, float, float] | None]) -> Element:
    """A figure of values with their intervals (value, low, high), a line for each; None is not defined."""
    known = {name: point for name, point in points.items() if point is not None}
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.2, 0.9 + 0.3 * len(known)), layout="constrained")
        axes = figure.subplots()
        for place, (name, (value, low, high)) in enumerate(known.items()):
            colour = COLOURS[0 if place == 0 else 1]
            axes.plot([low, high], [name, name], color=colour, linewidth=2)
            axes.plot([value], [name], color=colour, marker="o")
        axes.invert_yaxis()
        axes.set_ymargin(0.2)
        axes.set_xlabel("value and 95 % interval")
        told = "; ".join(f"{name}: {value:.4g} ({low:.4g} to {high:.4g})" for name, (value, low, high) in known.items())
        return _shown(figure, title, f"{title}. {told or 'nothing is defined'}")


def matrix(title: str, names: Sequence[str], counts: np.ndarray) -> Element:
    """A figure of how often each right answer (rows) was answered by each (columns), int `[A, A]`."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for (row, column), count in np.ndenumerate(counts):
            shade = {"facecolor": COLOURS[0], "alpha": 0.75 * float(shares[row, column])}
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **shade))
            axes.text(column, row, str(count), ha="center", va="center")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("answered")
        axes.set_ylabel("right")
        told = "; ".join(
            f"{counts[row, column]} of {right} answered {said}"
            for row, right in enumerate(names)
            for column, said in enumerate(names)
            if counts[row].any()
        )
        return _shown(figure, title, f"{title}. {told}")


def picture(title: str, content: bytes, kind: str, description: str, **attributes: str) -> Element:
    """A figure of a picture file: `kind` is png, jpeg or svg+xml."""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    image = element("img", src=source, alt=description, **attributes)
    return element("figure", image, element("figcaption", title))


def _shown(figure: Figure, title: str, description: str) -> Element:
    FigureCanvasSVG(figure)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]  # neither the declaration nor the address of a document type
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(_INK, "currentColor").replace(_GROUND, "var(--ground)")
    text = re.sub(r"(<svg[^>]*>)", lambda start: start[1] + _STYLE, text, count=1)
    return picture(title, text.encode(), "svg+xml", description)


def _thinned(points: Curve) -> Curve:
    """At most `_POINTS` of them, the last one among these."""
    stride = math.ceil(len(points) / _POINTS) or 1
    return [*points[::-1][::stride]][::-1]


def _told(lines: Mapping[str, Curve]) -> str:
    """The first and the last value of each."""
    return "; ".join(
        f"{name}: {points[0][1]:.4g} at step {points[0][0]}, {points[-1][1]:.4g} at step {points[-1][0]}"
        for name, points in lines.items()
        if points
    )
