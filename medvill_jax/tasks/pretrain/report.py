"""The held-out metrics of pre-training as text, and its answers to single examples as a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data import mixture
from medvill_jax.data.examples import PretrainRecords
from medvill_jax.metrics.report_scores import MetricGroup
from medvill_jax.tasks import made_with as notes
from medvill_jax.tasks import setup, subgroups

Answers = Mapping[str, np.ndarray]


def write(workdir: Workdir, parts: Mapping[str, tuple[PretrainRecords, np.ndarray, Answers]], made_with: Any) -> None:
    """Writes `predictions.jsonl` with its note.

    Args:
        workdir: where it goes.
        parts: source -> the records of a split; int `[n]`, those that were evaluated; and float `[n]` of each:
            `words`, how many tokens were masked; `mlm_loss`, the sum of their losses; `mlm_correct`, how many were
            right; and where the network can tell, whether its `own` and the `other` report were told to match and not
            to. The only source of a run without a mixture is "".
        made_with: what the answers depend on.
    """
    notes.write_rows(workdir / notes.PREDICTIONS_FILE, _rows(parts), made_with)


def _rows(parts: Mapping[str, tuple[PretrainRecords, np.ndarray, Answers]]) -> Iterator[dict[str, Any]]:
    first_subject = 0
    for source, (held_out, chosen, answers) in parts.items():
        subjects = held_out.subjects()
        for place, record in enumerate(chosen.tolist()):
            found = {name: float(answers[name][place]) for name in ("words", "mlm_loss", "mlm_correct")}
            told = {"itm": {name: bool(answers[name][place]) for name in ("own", "other")}} if "own" in answers else {}
            # Sources may have equal identifiers for different films, and for different patients.
            identifier = held_out.identifier(record)
            yield {
                "id": f"{source}/{identifier}" if source else identifier,
                **found,
                **told,
                "subject": first_subject + int(subjects[record]),
                **({"source": source} if source else {}),
            }
        first_subject += int(subjects.max()) + 1


def write_subgroups(
    workdir: Workdir, parts: Mapping[str, tuple[PretrainRecords, np.ndarray, Answers]], made_with: Any, seed: int
) -> None:
    """Writes `subgroups.json`, if there are groups to tell apart; arguments as for `write`, and the bootstrap's seed.

    The source of an example of a mixture is that of the mixture.
    """
    columns: dict[str, list[str]] = {}
    subjects: list[np.ndarray] = []
    sums: list[np.ndarray] = []
    names = ("mlm_accuracy",)
    for source, (held_out, chosen, answers) in parts.items():
        found = held_out.characteristics(chosen) | ({"source": [source] * len(chosen)} if source else {})
        before = sum(map(len, subjects))
        for name in dict.fromkeys([*columns, *found]):
            columns[name] = columns.get(name, [""] * before) + found.get(name, [""] * len(chosen))
        numbers = held_out.subjects()
        subjects.append(numbers[chosen] + sum(int(known.max()) + 1 for known in subjects))
        right = [answers["mlm_correct"], answers["words"]]
        if "own" in answers:
            names = ("itm_accuracy", "mlm_accuracy")
            right = [answers["own"] + answers["other"], np.full(len(chosen), 2.0), *right]
        sums.append(np.stack(right, 1))

    def ratios(totals: np.ndarray) -> np.ndarray:
        return totals[..., 0::2] / totals[..., 1::2]

    of_patients = np.concatenate(subjects)
    score = subgroups.score_of_sums([MetricGroup(names, np.concatenate(sums), ratios)], of_patients, seed)
    subgroups.write(workdir, columns, of_patients, score, names, made_with)


def closing_lines(config: setup.Config, metrics: dict[str, Any]) -> list[str]:
    """Metrics next to their baselines."""
    value = {name.removeprefix("eval/"): metric for name, metric in metrics.items()}
    lines = [
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
    return lines + [
        f"  {source}: ITM accuracy {_or_undefined(value[f'{source}/itm_accuracy'])}, "
        f"MLM accuracy {value[f'{source}/mlm_accuracy']:.3f}, {value[f'{source}/examples']:.0f} examples"
        for source in _sources(config)
    ]


def _or_undefined(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def _sources(config: setup.Config) -> list[str]:
    return [source.name for source in mixture.parse(config.data.mixture)] if config.data.mixture else []
