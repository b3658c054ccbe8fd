"""The table of a grid of runs: means over runs, plots over the share of labels, and metrics pooled over folds."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvill_jax import private
from medvill_jax.findings import POSITIVE, UNCERTAIN
from medvill_jax.metrics import classification, plots

TABLE, CSV, JSON, CURVES = "table.md", "table.csv", "table.json", "curves.png"
COLUMNS = ("task", "start", "labels", "figure", "mean", "sd", "runs", "interval of the first run", "rate")


@dataclass(frozen=True)
class Row:
    """The results of the runs that have the same task, start and share of labels.

    Attributes:
        task: the task of the runs.
        start: the weights that the runs start from.
        share: the share of the training labels, in (0, 1].
        rate: the learning rate; None for that of the configuration.
        runs: the metrics of every run that is done.
        planned: the number of planned runs.
    """

    task: str
    start: str
    share: float
    rate: float | None
    runs: Sequence[Mapping[str, Any]]
    planned: int

    def values(self, metric: str) -> list[float]:
        """A metric of every run for which it is defined."""
        return [value for run in self.runs if (value := run.get(metric)) is not None]


def write(folder: Path, rows: Sequence[Row], metrics: Mapping[str, Sequence[str]]) -> None:
    """Writes `table.md`, `table.csv` and `table.json`, and with several shares of labels `curves.png`.

    Args:
        folder: a folder that exists.
        rows: in the order of the table.
        metrics: task -> names of the metrics to show.
    """
    lines = [_line(row, metric) for row in rows for metric in metrics[row.task]]
    markdown = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    markdown += [f"| {' | '.join(line)} |" for line in lines]
    private.write(folder / TABLE, "\n".join(markdown) + "\n")
    text = io.StringIO(newline="")
    csv.writer(text).writerows([COLUMNS, *lines])
    private.write(folder / CSV, text.getvalue())
    everything = [
        {"task": row.task, "start": row.start, "share": row.share, "rate": row.rate, "runs": list(row.runs)}
        for row in rows
    ]
    private.write(folder / JSON, json.dumps(everything, indent=1) + "\n")
    if len({row.share for row in rows}) > 1:
        plots.share_plot(folder / CURVES, _curves(rows, metrics))


def _line(row: Row, metric: str) -> tuple[str, ...]:
    values = row.values(metric)
    spread = f"{statistics.stdev(values):.3f}" if len(values) > 1 else ""
    interval = row.runs[0].get(f"{metric}_ci95") if row.runs else None
    return (
        row.task,
        row.start,
        f"{100 * row.share:g} %",
        metric,
        f"{statistics.fmean(values):.3f}" if values else "" if row.runs else "not run",
        spread,
        f"{len(values)}/{row.planned}",
        f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "",
        "" if row.rate is None else f"{row.rate:g}",
    )


def _curves(
    rows: Sequence[Row], metrics: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
    """Panel title -> start -> (share, mean, standard deviation), sorted by share."""
    curves: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for row in sorted(rows, key=lambda row: row.share):
        for metric in metrics[row.task]:
            if values := row.values(metric):
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                panel = curves.setdefault(f"{row.task}: {metric}", {})
                panel.setdefault(row.start, []).append((row.share, statistics.fmean(values), spread))
    return curves


def pooled(files: Sequence[Path], *, seed: int = 0) -> dict[str, Any]:
    """The metrics of a cross-validated classification, computed once over the predictions of all folds.

    Thresholds are 0.5, so F1 is not comparable with that of a single split. Intervals resample subjects; no subject is
    in two folds.

    Args:
        files: the prediction file of each fold, as `classify` writes it.
        seed: of the resamples.
    """
    probabilities: list[list[float]] = []
    labels: list[list[int | None]] = []
    subjects: list[tuple[int, int]] = []
    names: list[str] = []
    for fold, file in enumerate(files):
        for line in file.read_text("utf-8").splitlines():
            row = json.loads(line)
            if "probabilities" not in row:
                continue
            names = names or list(row["probabilities"])
            probabilities.append([row["probabilities"][name] for name in names])
            labels.append([row["labels"].get(name) for name in names])
            subjects.append((fold, row["subject"]))
    truth = np.array([[label == POSITIVE for label in row] for row in labels])
    known = np.array([[label != UNCERTAIN for label in row] for row in labels])
    numbers: dict[tuple[int, int], int] = {}
    clusters = np.array([numbers.setdefault(subject, len(numbers)) for subject in subjects])
    halves = np.full(len(names), 0.5)
    return classification.score(np.array(probabilities), truth, known, names, halves, clusters=clusters, seed=seed)
