"""The held-out metrics of pre-training as text, and its answers to single examples as a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data.examples import PretrainRecords
from medvill_jax.tasks import made_with as notes
from medvill_jax.tasks import setup


def write(
    workdir: Workdir,
    held_out: PretrainRecords,
    chosen: np.ndarray,
    answers: Mapping[str, np.ndarray],
    made_with: dict[str, Any],
) -> None:
    """Writes `predictions.jsonl` with its note.

    Args:
        workdir: where it goes.
        held_out: the records of a split.
        chosen: int `[n]`, those that were evaluated.
        answers: float `[n]`: `words`, how many tokens were masked; `mlm_loss`, the sum of their losses; `mlm_correct`,
            how many were right; and where the network can tell, whether its `own` and the `other` report were told
            to match and not to.
        made_with: what the answers depend on.
    """
    subjects = held_out.subjects()
    rows = (
        {
            "id": held_out.identifier(record),
            **{name: float(answers[name][place]) for name in ("words", "mlm_loss", "mlm_correct")},
            **({"itm": {name: bool(answers[name][place]) for name in ("own", "other")}} if "own" in answers else {}),
            "subject": int(subjects[record]),
        }
        for place, record in enumerate(chosen.tolist())
    )
    notes.write_rows(workdir / notes.PREDICTIONS_FILE, rows, made_with)


def closing_lines(config: setup.Config, metrics: dict[str, Any]) -> list[str]:
    """Metrics next to their baselines."""
    value = {name.removeprefix("eval/"): metric for name, metric in metrics.items()}
    return [
        f"held out ({config.eval.split}, {value['examples']:.0f} examples):",
        "  ITM accuracy  undefined: under s2s the image never sees the report"
        if math.isnan(value["itm_accuracy"])
        else f"  ITM accuracy  {value['itm_accuracy']:.3f}   chance 0.500",
        f"  MLM accuracy  {value['mlm_accuracy']:.3f}   unigram {value['mlm_accuracy_unigram']:.3f}",
        f"  MLM loss      {value['mlm_loss']:.3f}   shuffled images {value['mlm_loss_shuffled_images']:.3f}, "
        f"unigram {value['mlm_loss_unigram']:.3f}",
        "  film alone    no labels to probe it with"
        if math.isnan(value["probe_auroc"])
        else f"  film alone    probe AUROC {value['probe_auroc']:.3f}, its cells {value['probe_auroc_cells']:.3f}",
        f"                varies in {value['image_rank']:.1f} directions, its cells in {value['image_rank_cells']:.1f}",
    ]
