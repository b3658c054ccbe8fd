"""The metrics of subgroups of an evaluation: a file beside its other files, log lines, a section of the model card."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medvill_jax import private
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.hub.card import add_section
from medvill_jax.metrics import bootstrap, subgroups
from medvill_jax.metrics.report_scores import MetricGroup

log = logging.getLogger(__name__)

FILE = "subgroups.json"
CARD, TITLE = "export/README.md", "Subgroups"


def write(
    workdir: Workdir,
    characteristics: Mapping[str, Sequence[str]],
    subjects: np.ndarray,
    score: subgroups.Score,
    names: Sequence[str],
    made_with: Mapping[str, Any],
) -> None:
    """Writes `subgroups.json`, if there are groups to tell apart, and a section of the model card of the run.

    Args:
        workdir: of the run, or of its part.
        characteristics, subjects, score, names: as for `subgroups.report`.
        made_with: what the evaluation depends on.
    """
    path, card = workdir / FILE, workdir / CARD
    path.unlink(missing_ok=True)  # that of an evaluation before, should this one be stopped
    found = subgroups.report(characteristics, subjects, score, names)
    if not found:
        log.info("no subgroups: of no characteristic have two groups %d patients or more", subgroups.FEWEST)
        if card.is_file() and f"\n## {TITLE}\n" in card.read_text("utf-8"):
            add_section(card, TITLE, f"None to tell apart on the split {made_with['split']}.")
        return
    about = {"fewest_patients": subgroups.FEWEST, "note": subgroups.NOTE}
    private.write(path, json.dumps({"made_with": dict(made_with), **about, "characteristics": found}, indent=2) + "\n")
    for line in subgroups.lines(found):
        log.info("%s", line)
    log.info("all subgroups: %s", path)
    if card.is_file():
        add_section(card, TITLE, section(found, names[0], made_with["split"]))


def section(found: Mapping[str, Any], name: str, split: str) -> str:
    """The groups by one metric, as Markdown."""
    rows = [
        f"| {characteristic} | {group} | {one['patients']:,} | {subgroups.shown(one['metrics'][name])}"
        f"{', the worst' if of['worst'].get(name) == group else ''} |"
        for characteristic, of in found.items()
        for group, one in of["groups"].items()
        if one["metrics"] is not None
    ]
    head = [f"On the split {split}, groups of at least {subgroups.FEWEST} patients. {subgroups.NOTE}", ""]
    return "\n".join([*head, f"| | group | patients | {name} |", "|---|---|---|---|", *rows])


def score_of_sums(groups: Sequence[MetricGroup], subjects: np.ndarray, seed: int) -> subgroups.Score:
    """Measures some of the examples by metrics that are functions of sums over them."""

    def score(rows: np.ndarray) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        for group in groups:
            values = group.statistic(group.rows[rows].sum(0))
            limits = bootstrap.interval(group.rows[rows], group.statistic, clusters=subjects[rows], seed=seed)
            for name, value, interval in zip(group.names, values.tolist(), limits.T.tolist(), strict=True):
                metrics |= {name: value, f"{name}_ci95": interval}
        return metrics

    return score
