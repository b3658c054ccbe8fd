"""What was found, missed and made up, counted from a run's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medvill_jax.findings import CHEXPERT_FINDINGS, POSITIVE, UNCERTAIN
from medvill_jax.metrics import clinical
from medvill_jax.pages.figures import Counts
from medvill_jax.summary.comparison import Rows, labels, probabilities

# Closed questions have these answers; others are of the data set, and not shown.
CLOSED = ("yes", "no")
OTHER = "another answer"


def of_findings(rows: Rows, config: Mapping[str, Any], thresholds: Sequence[float] | None) -> dict[str, Counts]:
    """The counts of each finding, of known labels, at thresholds in the order of the findings; 0.5 for None."""
    truth, known = labels(rows, config)
    names = [*rows[0]["probabilities"]]
    chosen = probabilities(rows, names)
    limits = np.full(chosen.shape[1], 0.5) if thresholds is None else np.asarray(thresholds)
    return _counts(names, chosen >= limits, truth, known)


def of_reports(rows: Rows) -> dict[str, Counts]:
    """The counts of findings that are stated in the written report and in its reference, uncertain ones included."""
    stated = {}
    for text, key in (("reference", "reference_labels"), ("hypothesis", "hypothesis_labels")):
        named: list[Any] = [row.get(key) for row in rows]
        if all(isinstance(of_row, dict) for of_row in named):
            read = np.array([[of_row.get(name) or 0 for name in CHEXPERT_FINDINGS] for of_row in named])
        else:
            read = clinical.label_batch([row[text] for row in rows])
        stated[text] = np.isin(read, (POSITIVE, UNCERTAIN))
    truth = stated["reference"]
    return _counts(CHEXPERT_FINDINGS, stated["hypothesis"], truth, np.ones_like(truth))


def of_questions(rows: Rows) -> tuple[list[str], np.ndarray]:
    """Of closed questions: the answers, and how often each (rows) was answered by each (columns), int `[A, A]`."""
    names = [*CLOSED, OTHER]
    counts = np.zeros((len(names), len(names)), int)
    for row in rows:
        if row["answer"] in CLOSED:
            said = row["predicted"] if row["predicted"] in CLOSED else OTHER
            counts[names.index(row["answer"]), names.index(said)] += 1
    return names, counts


def _counts(names: Sequence[str], said: np.ndarray, truth: np.ndarray, known: np.ndarray) -> dict[str, Counts]:
    cells = (said & truth, said & ~truth, ~said & truth, ~said & ~truth)
    columns = [(cell & known).sum(0).tolist() for cell in cells]
    return {name: Counts(*counts) for name, *counts in zip(names, *columns, strict=True)}
