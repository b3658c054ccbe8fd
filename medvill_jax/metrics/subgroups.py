"""How a model does in groups of patients and films: by sex, age, view and source of the data.

Whatever a task measures is measured on each group by itself, with intervals that resample the patients of the group.
A group of fewer than `FEWEST` patients has no metrics: its intervals would be too narrow, and its values chance.

The worst group of a characteristic is the one with the worst value. As the minimum of values that all vary by chance,
this value is too low on average, the more so the more groups there are and the fewer patients they have; see
docs/metrics.md#subgroups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

CHARACTERISTICS = ("sex", "age", "view", "source")
# Of a group that has metrics: patients, or films if the data do not say which are of one patient.
FEWEST = 30
# First year of each band of ages.
AGES = (0, 18, 40, 65, 80)
UNKNOWN = "unknown"
NOTE = (
    "The worst group is that of the worst value, which as the minimum of values that vary by chance is too low on "
    "average: look at its interval, and evaluate again on other patients before you rely on it."
)

Score = Callable[[np.ndarray], Mapping[str, Any]]
"""Rows, int `[n]` -> metrics of these examples, with their intervals as `NAME_ci95`."""


def age_band(age: str) -> str:
    """The band of an age in years, "40-64" or "80+"; `UNKNOWN` for what is no whole number."""
    if not age.isdecimal():
        return UNKNOWN
    place = int(np.searchsorted(AGES, int(age), "right")) - 1
    return f"{AGES[place]}-{AGES[place + 1] - 1}" if place + 1 < len(AGES) else f"{AGES[place]}+"


def report(
    characteristics: Mapping[str, Sequence[str]],
    subjects: np.ndarray,
    score: Score,
    names: Sequence[str],
) -> dict[str, Any]:
    """The metrics of every group of at least `FEWEST` patients, JSON-like.

    Args:
      characteristics: any of `CHARACTERISTICS` -> its value for each of N examples, an age in years; "" where unknown.
      subjects: int `[N]`, equal for the examples of one patient.
      score: measures some of the examples.
      names: of its metrics to report; higher is better.

    Returns:
      For each characteristic with at least two groups that have metrics: `groups`, the number of `examples` and
      `patients` of each, and its `metrics` (`value` and `ci95` by name; None for too small a group and for `UNKNOWN`);
      and `worst`, the name of the worst group of each metric. {} if there is no such characteristic.
    """
    found: dict[str, Any] = {}
    for name, values in characteristics.items():
        column = np.array([(age_band(value) if name == "age" else value) or UNKNOWN for value in values])
        rows_of = {str(group): np.flatnonzero(column == group) for group in _ordered(np.unique(column))}
        patients = {group: len(np.unique(subjects[rows])) for group, rows in rows_of.items()}
        large = [group for group in rows_of if group != UNKNOWN and patients[group] >= FEWEST]
        if len(large) < 2:
            continue
        metrics = {group: _measured(score(rows_of[group]), names) for group in large}
        found[name] = {
            "groups": {
                group: {"examples": len(rows), "patients": patients[group], "metrics": metrics.get(group)}
                for group, rows in rows_of.items()
            },
            "worst": {metric: worst for metric in names if (worst := _worst(metrics, metric)) is not None},
        }
    return found


def lines(found: Mapping[str, Any]) -> list[str]:
    """The worst group of each characteristic by the first of the metrics, as text."""
    return [
        f"{name}: the worst {metric} is that of {worst}, {shown(found[name]['groups'][worst]['metrics'][metric])}"
        for name in found
        for metric, worst in [*found[name]["worst"].items()][:1]
    ]


def shown(metric: Mapping[str, Any]) -> str:
    """A value with its interval, as text."""
    if metric["value"] is None:
        return "undefined"
    interval = "" if metric["ci95"] is None else " [{:.3f}, {:.3f}]".format(*metric["ci95"])
    return f"{metric['value']:.3f}{interval}"


def _ordered(groups: np.ndarray) -> list[str]:
    """Ages by their years, all others alphabetically, `UNKNOWN` last."""
    bands = [age_band(str(age)) for age in AGES]
    return sorted(groups, key=lambda group: (group == UNKNOWN, bands.index(group) if group in bands else 0, group))


def _measured(metrics: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    measured = {}
    for name in names:
        value, interval = metrics.get(name), metrics.get(f"{name}_ci95")
        measured[name] = {
            "value": None if value is None or np.isnan(value) else float(value),
            "ci95": None if interval is None or np.isnan(interval).any() else [float(end) for end in interval],
        }
    return measured


def _worst(metrics: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    """The group of the lowest value; None if fewer than two have one."""
    values = {group: of_it[name]["value"] for group, of_it in metrics.items() if of_it[name]["value"] is not None}
    return min(values, key=lambda group: values[group]) if len(values) > 1 else None
