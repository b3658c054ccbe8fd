"""What belongs to a metric: its interval, and its baselines, known by their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medvill_jax.summary.runs import PARTS, Run

# In the name of a metric -> what that metric is the baseline of a metric by.
IN_NAMES = {
    "_shuffled_images": "another study's film",
    "_unigram": "word frequencies",
    "chance/": "chance",
}
# baseline/KIND/... in metrics.json -> in words.
BASELINES = {
    "chance": "chance",
    "majority": "most frequent answer",
    "most_frequent": "most frequent report",
    "nearest_neighbour": "report of the nearest film",
    "other_film": "another study's film",
    "prevalence": "prevalence in training",
    "question_only": "a black film",
    "shuffled_images": "another study's film",
}
# The baselines that show what the film is good for.
BLIND = ("another study's film", "a black film")
# The last part of a name -> the value without any skill, where a definition gives it.
BY_DEFINITION = {
    "auroc_macro": ("chance", 0.5),
    "itm_accuracy": ("chance", 0.5),
    "probe_auroc": ("chance", 0.5),
    "probe_auroc_cells": ("chance", 0.5),
    "image_rank": ("all films alike", 1.0),
    "image_rank_cells": ("all films alike", 1.0),
}
# Parts of the names of what is counted or set, and needs neither interval nor baseline.
COUNTS = (
    "candidates", "classes_", "clinical_absent", "examples", "f1_in_sample", "_hypotheses", "outside_vocabulary",
    "pair_evaluations", "phrases", "positives", "queries", "questions", "resampled_", "threshold",
)  # fmt: skip
LOWER_IS_BETTER = ("loss", "perplexity", "ece")
INTERVAL = "_ci95"
# Of the loop, not of the model.
SPEEDS = ("examples_per_second", "input_per_host", "step_per_host", "step_seconds", "input_wait")


@dataclass(frozen=True)
class Measure:
    """A metric with what it is to be read beside.

    Attributes:
        name: as in the file.
        value: None where it is undefined.
        interval: of 95 %; None if there is none.
        baselines: value by what it is of.
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether it is a count or a setting."""
        return any(word in part for part in self.name.split("/")[1:] for word in COUNTS)

    def gain(self, baseline: str) -> float | None:
        """How much better than a baseline it is, below 0 if it is worse; None where it is undefined."""
        if self.value is None or self.baselines.get(baseline) is None:
            return None
        return (self.value - self.baselines[baseline]) * (-1 if self.lower_is_better else 1)

    @property
    def lower_is_better(self) -> bool:
        """Whether a low value is good."""
        last = self.name.rpartition("/")[2]
        return last == "median_rank" or any(word in last.split("_") for word in LOWER_IS_BETTER)


def evaluated(run: Run) -> list[Measure]:
    """The metrics of a run's own evaluation, `metrics.json`."""
    return _measures(run.metrics, run.split)


def held_out(run: Run) -> list[Measure]:
    """The metrics of the newest evaluation while training."""
    return _measures(run.last("eval"), "eval")


def _measures(metrics: Mapping[str, Any], group: str) -> list[Measure]:
    baselines: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        if (found := baseline_of(name, group)) is not None and value is not None:
            baselines.setdefault(found[0], {})[found[1]] = value
    return [
        Measure(name, value, _interval(metrics.get(name + INTERVAL)), _baselines(name, baselines))
        for name, value in metrics.items()
        if name.startswith(f"{group}/")
        and (value is None or isinstance(value, int | float))
        and not name.endswith(INTERVAL)
        and baseline_of(name, group) is None
    ]


def baseline_of(name: str, group: str) -> tuple[str, str] | None:
    """The metric that a metric is a baseline of, named `group/...`, and in words what it is of; None if it is none."""
    first, *rest = name.split("/")
    if first == "baseline":
        part = [rest.pop(0)] if len(rest) > 2 and rest[0] in PARTS else []
        return "/".join((group, *part, *rest[1:])), BASELINES.get(rest[0], rest[0].replace("_", " "))
    for mark, words in IN_NAMES.items():
        if mark in name:
            return name.replace(mark, ""), words
    return None


def _baselines(name: str, known: Mapping[str, dict[str, float]]) -> dict[str, float]:
    by_definition = dict([BY_DEFINITION[last]]) if (last := name.rpartition("/")[2]) in BY_DEFINITION else {}
    if "auroc" in name.split("/")[1:-1]:  # of one finding
        by_definition = {"chance": 0.5}
    # Both rankers of retrieval have the same chance.
    return known.get(name) or known.get(name.replace("/two_stage/", "/")) or by_definition


def _interval(value: Any) -> tuple[float, float] | None:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(end, int | float) for end in value):
        return value[0], value[1]
    return None
