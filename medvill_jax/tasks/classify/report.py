"""The files that an evaluation of classification writes, and its metrics as text."""

from __future__ import annotations

from typing import Any

import numpy as np

from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data.examples import LabelRecords
from medvill_jax.findings import ABSENT
from medvill_jax.metrics import bootstrap, classification, plots
from medvill_jax.metrics.metrics_file import write_metrics
from medvill_jax.tasks import made_with as notes
from medvill_jax.tasks import setup

METRICS_FILE = "metrics.json"
PLOT_FILE = "reliability.png"


def write(
    workdir: Workdir,
    metrics: dict[str, Any],
    probabilities: np.ndarray,
    truth: np.ndarray,
    known: np.ndarray,
    held_out: LabelRecords,
    *,
    split: str,
    names: tuple[str, ...],
    subjects: np.ndarray,
    made_with: dict[str, Any],
) -> None:
    """Writes `metrics.json`, `predictions.jsonl` with its note, and `reliability.png`.

    Args:
        workdir: where they go.
        metrics: by name.
        probabilities: float `[n, C]`.
        truth, known: bool `[n, C]`, which findings are there, and which labels are known.
        held_out: the records, for their identifiers and labels.
        split: its name.
        names: of the classes.
        subjects: int `[n]`.
        made_with: what the predictions depend on.
    """
    write_metrics(workdir / METRICS_FILE, metrics)
    rows = (
        {
            "id": held_out.identifier(record),
            "probabilities": dict(zip(names, row.tolist(), strict=True)),
            "labels": {n: int(v) for n, v in zip(names, labels, strict=True) if v != ABSENT},
            "subject": int(subjects[record]),
        }
        for record, (row, labels) in enumerate(zip(probabilities, held_out.labels, strict=True))
    )
    notes.write_rows(workdir / notes.PREDICTIONS_FILE, rows, made_with)
    curves = {
        name: classification.reliability(probabilities[:, c], truth[:, c], known[:, c]) for c, name in enumerate(names)
    }
    plots.reliability_plot(
        workdir / PLOT_FILE,
        classification.reliability(probabilities, truth, known),
        curves,
        title=f"Reliability on {split}",
        ece=metrics[f"{split}/ece"],
    )


def closing_lines(config: setup.Config, workdir: Workdir, classes: int, metrics: dict[str, Any]) -> list[str]:
    """Metrics next to the baseline, as text; `classes` is the number of findings."""
    split = config.eval.split
    prefix = split if f"{split}/examples" in metrics else "eval"
    lines = [f"{metrics[f'{prefix}/examples']:.0f} examples of {split}, inputs {config.inputs}:"]
    for row in ("auroc_macro", "auroc_micro", "auprc_macro", "f1_macro", "ece"):
        low, high = metrics.get(f"{prefix}/{row}_ci95", (None, None))
        interval = f"   [{low:.3f}, {high:.3f}]" if low is not None else ""
        baseline = metrics.get(f"baseline/prevalence/{row}")
        comparison = f"   prevalence {baseline:.3f}" if baseline is not None else ""
        if row == "f1_macro" and metrics.get(f"{prefix}/f1_in_sample"):
            comparison += "   in-sample: thresholds chosen on these examples"
        lines.append(f"  {row:<12}{metrics[f'{prefix}/{row}']:>7.3f}{interval}{comparison}")
    if absent := metrics.get(f"{prefix}/classes_absent"):
        alarms = metrics[f"{prefix}/classes_absent_false_alarms"]
        lines.append(f"  {absent:.0f} classes have no positive and are not in f1_macro; {alarms:.0f} false alarms")
    if undefined := metrics[f"{prefix}/classes_undefined"]:
        lines.append(f"  {undefined:.0f} of {classes} classes have no AUROC here: one side has no example")
    if prefix == "eval":
        return [*lines, "the test split, once: the same command with --eval_only --config.eval.split=test"]
    lines.append(bootstrap.resampled_words(metrics, f"{split}/"))
    return [*lines, f"all metrics: {workdir / METRICS_FILE}, calibration: {workdir / PLOT_FILE}"]
