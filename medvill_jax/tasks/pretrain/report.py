"""The held-out metrics of pre-training, as text."""

from __future__ import annotations

import math
from typing import Any

from medvill_jax.tasks import setup


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
