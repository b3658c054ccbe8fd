"""The metrics of report generation, as a file and as text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from medvill_jax import private
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.metrics import bootstrap
from medvill_jax.tasks import setup
from medvill_jax.tasks.made_with import PREDICTIONS_FILE

SHUFFLED_FILE = "predictions_shuffled_images.jsonl"
# The note of what the prediction files were made with; another checkpoint or decoder starts them anew.
MADE_WITH_FILE = "predictions.json"
METRICS_FILE = "metrics.json"
TABLE_ROWS = (
    "clinical_micro_f1_14",
    "clinical_macro_f1_14",
    "clinical_micro_f1_5",
    "bleu1",
    "bleu4",
    "rouge_l",
    "cider",
)
BASELINES = ("most_frequent", "nearest_neighbour", "shuffled_images")


def write(workdir: Workdir, metrics: dict[str, Any]) -> None:
    """Writes `metrics.json`; JSON has no NaN, so an undefined metric is null."""
    defined = {name: None if np.isnan(value).any() else value for name, value in metrics.items()}
    private.write(workdir / METRICS_FILE, json.dumps(defined, indent=2) + "\n")


def closing_lines(config: setup.Config, workdir: Workdir, metrics: dict[str, Any]) -> list[str]:
    """Metrics next to those of shuffled images, and to the baselines after an evaluation of whole reports, as text."""
    split = config.eval.split
    if f"{split}/bleu4" not in metrics:
        lines = [
            f"held out ({split}, {metrics['eval/examples']:.0f} examples):",
            f"  next word      perplexity {metrics['eval/perplexity']:.3f}, accuracy {metrics['eval/accuracy']:.3f}",
            f"  loss           {metrics['eval/loss']:.3f}   shuffled images {metrics['eval/loss_shuffled_images']:.3f}",
        ]
        if "eval/clinical_micro_f1_14" in metrics:
            lines.append(
                f"  clinical F1    {metrics['eval/clinical_micro_f1_14']:.3f}   shuffled images "
                f"{metrics['eval/clinical_micro_f1_14_shuffled_images']:.3f}"
            )
        return [*lines, "reports of a whole split, scored: the same command with --eval_only"]
    columns = {"model": split, **{name.replace("_", " "): f"baseline/{name}" for name in BASELINES}}
    return [
        f"{metrics[f'{split}/examples']:.0f} reports of {split}, perplexity {metrics[f'{split}/perplexity']:.3f}:",
        f"  {'':<22}" + "".join(f"  {title:>17}" for title in columns),
        *(
            f"  {row:<22}" + "".join(f"  {metrics[f'{source}/{row}']:>17.3f}" for source in columns.values())
            for row in TABLE_ROWS
        ),
        f"{bootstrap.resampled_words(metrics, f'{split}/')}, those of {METRICS_FILE}",
        f"predictions: {workdir / PREDICTIONS_FILE}, all metrics: {workdir / METRICS_FILE}; in ReXrank's "
        "form: python -m medvill_jax.metrics.rexrank --help",
    ]
