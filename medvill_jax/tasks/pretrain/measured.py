"""From what an evaluation of pre-training has summed up to its metrics: of some records, or of several sources."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from medvill_jax.metrics import probe

# The metrics of an evaluation: of masked tokens, which `mixed` evaluates under each of its masks too, and all others.
MLM_METRICS = ("mlm_loss", "mlm_loss_shuffled_images", "mlm_loss_unigram", "mlm_accuracy", "mlm_accuracy_unigram")
METRICS = (
    *("eval/loss", "eval/itm_loss", "eval/itm_accuracy", "eval/examples"),
    *("eval/probe_auroc", "eval/probe_auroc_cells", "eval/image_rank", "eval/image_rank_cells"),
)


@dataclass(frozen=True)
class Films:
    """What the image encoder says of films, and their findings.

    Attributes:
        features: float `[n, H]` of each kind, "summary" and "cells".
        positive: bool `[n, C]`, their findings.
    """

    features: Mapping[str, np.ndarray]
    positive: np.ndarray


@dataclass(frozen=True)
class Measured:
    """What the metrics of some records are computed from.

    Attributes:
        true: attention mask -> sums over the examples with their own reports.
        shuffled: the same with the films of other reports.
        mismatched: sums over the examples with other reports, under the first mask; None where no film sees its report.
        films: of the examples.
    """

    true: Mapping[str, Mapping[str, float]]
    shuffled: Mapping[str, Mapping[str, float]]
    mismatched: Mapping[str, float] | None
    films: Films


def pooled(parts: Iterable[Measured]) -> Measured:
    """What was measured of all records together; every example counts the same, whatever its source."""
    first, *others = parts
    for part in others:
        first = Measured(
            true={kind: _sum(first.true[kind], part.true[kind]) for kind in first.true},
            shuffled={kind: _sum(first.shuffled[kind], part.shuffled[kind]) for kind in first.shuffled},
            mismatched=None
            if first.mismatched is None or part.mismatched is None
            else _sum(first.mismatched, part.mismatched),
            films=Films(
                {
                    kind: np.concatenate([rows, part.films.features[kind]])
                    for kind, rows in first.films.features.items()
                },
                np.concatenate([first.films.positive, part.films.positive]),
            ),
        )
    return first


def _sum(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {name: value + second[name] for name, value in first.items()}


def metrics_of(measured: Measured, shares: Mapping[str, float], train: Films) -> dict[str, float]:
    """The metrics of `pretrain`, named "eval/...".

    Args:
        measured: of the evaluated records.
        shares: attention mask -> its share in training; that of the first one is for matching.
        train: training films, on which the probe is fitted.
    """
    metrics: dict[str, float] = {}
    for kind, share in shares.items():
        true_image, shuffled = measured.true[kind], measured.shuffled[kind]
        values = {
            "mlm_loss": true_image["mlm_loss"] / true_image["words"],
            "mlm_loss_shuffled_images": shuffled["mlm_loss"] / shuffled["words"],
            "mlm_loss_unigram": true_image["unigram_loss"] / true_image["words"],
            "mlm_accuracy": true_image["mlm_correct"] / true_image["words"],
            "mlm_accuracy_unigram": true_image["unigram_correct"] / true_image["words"],
        }
        for name, value in values.items():
            metrics[f"eval/{name}"] = metrics.get(f"eval/{name}", 0.0) + share * value
            if len(shares) > 1:
                metrics[f"eval/{name}_{kind}"] = value
    itm_loss = itm_accuracy = math.nan
    matched = measured.true[next(iter(shares))]
    examples = matched["examples"]
    if (mismatched := measured.mismatched) is not None:
        itm_loss = (matched["itm_loss"] + mismatched["itm_loss"]) / (2 * examples)
        itm_accuracy = (matched["itm_correct"] + mismatched["itm_correct"]) / (2 * examples)
    return {
        "eval/loss": metrics["eval/mlm_loss"] + (0.0 if math.isnan(itm_loss) else itm_loss),
        "eval/itm_loss": itm_loss,
        "eval/itm_accuracy": itm_accuracy,
        **metrics,
        **_of_films(measured.films, train),
        "eval/examples": examples,
    }


def _of_films(films: Films, train: Films) -> dict[str, float]:
    """The metrics of the features of films alone: probes trained on training films, and effective ranks."""
    found, known = films.features, train.features
    metrics = {
        name: probe.linear_auroc(known[kind], train.positive, found[kind], films.positive)
        for name, kind in (("eval/probe_auroc", "summary"), ("eval/probe_auroc_cells", "cells"))
    }
    return metrics | {
        "eval/image_rank": probe.effective_rank(found["summary"]),
        "eval/image_rank_cells": probe.effective_rank(found["cells"]),
    }
