"""The names of the tasks' metrics in a run of all of them, and these metrics as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medvill_jax.tasks.parts import Parts

METRICS_FILE = "metrics.json"


def named(task: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of one task under their names in the run: `eval/mrr` is `eval/match/mrr`."""
    return {
        f"{first}/{task}/{rest}": value for name, value in metrics.items() for first, _, rest in [name.partition("/")]
    }


def metrics_of(task: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of one task under their own names; the inverse of `named`."""
    parts = ((*name.split("/", 2), value) for name, value in metrics.items() if name.count("/") > 1)
    return {f"{first}/{rest}": value for first, part, rest, value in parts if part == task}


def closing_lines(parts: Mapping[str, Parts], metrics: Mapping[str, Any]) -> list[str]:
    """The closing lines of every task."""
    lines: list[str] = []
    for task, part in parts.items():
        lines += [f"--- {task}", *part.closing_lines(metrics_of(task, metrics))]
    return lines
