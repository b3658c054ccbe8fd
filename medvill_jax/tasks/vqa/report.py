"""The files that an evaluation of question answering writes, and its metrics as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data.examples import QuestionRecords
from medvill_jax.metrics import bootstrap
from medvill_jax.metrics.metrics_file import write_metrics
from medvill_jax.tasks import made_with as notes
from medvill_jax.tasks import setup

METRICS_FILE = "metrics.json"


def write(
    workdir: Workdir,
    metrics: dict[str, Any],
    held_out: QuestionRecords,
    columns: dict[str, list[str]],
    predicted: Sequence[str],
    subjects: np.ndarray,
    made_with: dict[str, Any],
) -> None:
    """Writes `metrics.json` and `predictions.jsonl` with its note.

    Args:
        workdir: where they go.
        metrics: by name.
        held_out: the n records.
        columns: `answer` and `answer_type`, n values each.
        predicted: n answers.
        subjects: int `[n]`.
        made_with: what the predictions depend on.
    """
    write_metrics(workdir / METRICS_FILE, metrics)
    rows = (
        {
            "id": held_out.identifier(record),
            "answer": columns["answer"][record],
            "predicted": answer,
            "answer_type": columns["answer_type"][record],
            "subject": int(subjects[record]),
        }
        for record, answer in enumerate(predicted)
    )
    notes.write_rows(workdir / notes.PREDICTIONS_FILE, rows, made_with)


def closing_lines(config: setup.Config, workdir: Workdir, answers: int, metrics: dict[str, Any]) -> list[str]:
    """Metrics next to baselines, as text; `answers` is the size of the vocabulary."""
    split = config.eval.split
    if "eval/accuracy" in metrics:
        overall, closed, open_ended = (metrics[f"eval/accuracy{kind}"] for kind in ("", "_closed", "_open"))
        return [
            f"held out ({split}, {metrics['eval/questions']:.0f} questions):",
            f"  accuracy {overall:.3f}, closed {closed:.3f}, open {open_ended:.3f}",
            "with baselines: the same command with --eval_only --config.eval.split=test",
        ]
    lines = [
        f"{metrics[f'{split}/questions']:.0f} questions of {split}, {answers} answers, "
        f"{100 * metrics[f'{split}/outside_vocabulary']:.1f} % of the right ones not among them:",
        f"  {'':<16}{'model':>7}  {'95 % interval':>16}  {'majority answer':>15}  {'question only':>13}",
    ]
    for row in ("accuracy", "accuracy_closed", "accuracy_open"):
        low, high = metrics.get(f"{split}/{row}_ci95", (float("nan"),) * 2)
        lines.append(
            f"  {row:<16}{metrics[f'{split}/{row}']:>7.3f}    [{low:.3f}, {high:.3f}]"
            f"  {metrics[f'baseline/majority/{row}']:>15.3f}  {metrics[f'baseline/question_only/{row}']:>13.3f}"
        )
    return [*lines, bootstrap.resampled_words(metrics, f"{split}/"), f"all metrics: {workdir / METRICS_FILE}"]
