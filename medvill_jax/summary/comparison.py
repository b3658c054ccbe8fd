"""Paired tests between runs that answered the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvill_jax.data.labels import targets
from medvill_jax.findings import ABSENT
from medvill_jax.metrics import bootstrap, classification, clinical, compare
from medvill_jax.metrics.compare import Row
from medvill_jax.metrics.predictions import Prediction
from medvill_jax.metrics.ranking import KS
from medvill_jax.metrics.report_scores import Labeler
from medvill_jax.summary.runs import Answers, Run

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """What a first run is compared by with others.

    Attributes:
        runs: names, the first one first.
        part, kind: of the answers.
        examples: how many all of them answered.
        left_out: how many only some of them answered.
        rows: the metrics; empty if there is no test.
        reason: why there is none, or "".
    """

    runs: tuple[str, ...]
    part: str
    kind: str
    examples: int = 0
    left_out: int = 0
    rows: tuple[Row, ...] = ()
    reason: str = ""


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """For each task of two or more runs, the first of these against the others."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.task, []).append(run)
    return [one for group in groups.values() if len(group) > 1 for one in _of_group(group)]


def _of_group(runs: Sequence[Run]) -> list[Comparison]:
    parts: dict[tuple[str, str], dict[str, Answers]] = {}
    for run in runs:
        for answers in run.answers:
            parts.setdefault((answers.part, answers.kind), {})[run.name] = answers
    if not parts:
        reason = "no run has a file of its answers to single examples (--eval_only writes one for most tasks)"
        return [Comparison(tuple(run.name for run in runs), "", "", reason=reason)]
    configs = {run.name: run.config for run in runs}
    return [_of_part(part, kind, answered, configs) for (part, kind), answered in parts.items()]


def _of_part(part: str, kind: str, answered: Mapping[str, Answers], configs: Mapping[str, Any]) -> Comparison:
    names = tuple(answered)
    if len(names) < 2:
        return Comparison(names, part, kind, reason="the other runs have no such answers")
    rows, everything = shared([answers.rows for answers in answered.values()])
    count = len(rows[0])
    sizes: Any = {"examples": count, "left_out": everything - count}
    if not count:
        return Comparison(names, part, kind, **sizes, reason="they share no example")
    if kind == "ranks" and count < everything:
        return Comparison(names, part, kind, **sizes, reason="they rank other candidates")
    if _differ(kind, rows, [configs[name] for name in names]):
        return Comparison(
            names, part, kind, **sizes, reason="they ask otherwise of the same examples, or have other right answers"
        )
    tests = {"reports": _reports, "findings": _findings, "answers": _questions, "ranks": _ranks, "words": _words}
    try:
        tested = tests[kind](rows, configs[names[0]])
    except compare.CompareError:  # its message may name an example
        return Comparison(names, part, kind, **sizes, reason="their files say different things about the same examples")
    return Comparison(names, part, kind, **sizes, rows=tuple(tested))


def shared(files: Sequence[Rows]) -> tuple[list[list[Mapping[str, Any]]], int]:
    """The rows of the examples that all files have, in the order of the first file, and how many examples any has."""
    by_id = [{row["id"]: row for row in rows} for rows in files]
    common = [name for name in by_id[0] if all(name in rows for rows in by_id)]
    return [[rows[name] for name in common] for rows in by_id], len({name for rows in by_id for name in rows})


def _differ(kind: str, files: Sequence[Rows], configs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether files of the same examples ask otherwise, or have other right answers."""
    if kind == "ranks":
        return any({*rows[0]["ranks"]} != {*files[0][0]["ranks"]} for rows in files)
    if kind == "words":  # which ones are masked may differ with the seed, but not how
        return any(config.get("mlm") != configs[0].get("mlm") for config in configs)
    key = {"reports": "reference", "findings": "labels", "answers": "answer"}[kind]
    if kind == "findings" and any({*rows[0]["probabilities"]} != {*files[0][0]["probabilities"]} for rows in files):
        return True
    return any([row[key] for row in rows] != [row[key] for row in files[0]] for rows in files[1:])


def subjects(rows: Rows) -> list[int] | None:
    """The subject of each row; None if not every row has one."""
    known = [row.get("subject") for row in rows]
    return None if any(type(subject) is not int for subject in known) else [int(subject or 0) for subject in known]


def predictions(rows: Rows) -> list[Prediction]:
    """Reports as `metrics.compare` takes them, less what those of the right film have and others lack."""
    return [Prediction(row["id"], row["reference"], row["hypothesis"], subject=row.get("subject")) for row in rows]


def reports(files: Sequence[Rows], labeler: Labeler | None = clinical.label_batch) -> list[Row]:
    """The tests of `metrics.compare` on files of the same reports."""
    return compare.compare(*map(predictions, files), labeler=labeler, meteor=False)


def _reports(files: Sequence[Rows], config: Mapping[str, Any]) -> list[Row]:
    del config
    return reports(files)


def _findings(files: Sequence[Rows], config: Mapping[str, Any]) -> list[Row]:
    truth, known = labels(files[0], config)
    first, *others = (probabilities(rows, [*files[0][0]["probabilities"]]) for rows in files)
    clusters = subjects(files[0])
    tested = [classification.paired(first, other, truth, known, clusters=clusters) for other in others]
    return _rows([*tested[0]], [[(*found[name][:2], found[name][2]) for name in found] for found in tested])


def _questions(files: Sequence[Rows], config: Mapping[str, Any]) -> list[Row]:
    del config
    kinds = [str(row.get("answer_type", "")).lower() for row in files[0]]
    groups = {"accuracy": np.ones(len(kinds), bool)}
    groups |= {f"accuracy_{kind}": np.array([kind == one for one in kinds]) for kind in sorted({*kinds} - {""})}
    asked = np.stack([*groups.values()], 1).astype(np.float64)  # [N, K]
    right = [np.array([[row["answer"] == row["predicted"]] for row in rows]) * asked for rows in files]
    return _ratios([*groups], [np.concatenate([correct, asked], 1) for correct in right], subjects(files[0]))


def _ranks(files: Sequence[Rows], config: Mapping[str, Any]) -> list[Row]:
    """The metrics of `metrics.ranking` that a rank decides."""
    del config
    rankings = [*files[0][0]["ranks"]]
    tables, names = [], []
    for rows in files:
        ranks = {name: np.array([row["ranks"][name] for row in rows], np.float64) for name in rankings}
        by_name = {f"{name}/mrr": 1 / rank for name, rank in ranks.items()}
        for name, rank in ranks.items():
            metric = "recall" if name.endswith("exact") else "hit"
            by_name |= {f"{name}/{metric}_at_{k}": rank <= k for k in KS}
        names = sorted(by_name, key=lambda name: rankings.index(name.rpartition("/")[0]))
        values = np.stack([by_name[name] for name in names], 1).astype(np.float64)
        tables.append(np.concatenate([values, np.ones_like(values)], 1))
    return _ratios(names, tables, subjects(files[0]))


def _words(files: Sequence[Rows], config: Mapping[str, Any]) -> list[Row]:
    """MLM over all masked words, and matching of every film's own report and of another one."""
    del config
    matches = all("itm" in row for rows in files for row in rows)
    names = ["mlm_loss", "mlm_accuracy", *["itm_accuracy"] * matches]
    tables = []
    for rows in files:
        sums = [[row["mlm_loss"], row["mlm_correct"], *[sum(row.get("itm", {}).values())] * matches] for row in rows]
        counts = [[row["words"], row["words"], *[len(row.get("itm", {}))] * matches] for row in rows]
        tables.append(np.concatenate([np.array(sums, np.float64), np.array(counts, np.float64)], 1))
    return _ratios(names, tables, subjects(files[0]))


def _ratios(names: Sequence[str], tables: Sequence[np.ndarray], clusters: Sequence[int] | None) -> list[Row]:
    """The tests of ratios of sums over examples.

    Args:
        names: of K metrics.
        tables: float64 `[N, 2K]` of each run: what is summed up, and what that is divided by.
        clusters: as for `bootstrap.paired`.
    """

    def statistic(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return sums[..., : len(names)] / sums[..., len(names) :]

    of_first, *of_others = (statistic(table.sum(0)).tolist() for table in tables)
    found = [bootstrap.paired(tables[0], other, statistic, clusters=clusters) for other in tables[1:]]
    columns = [
        [
            (*values, bootstrap.Paired(test.difference[k], test.low[k], test.high[k], test.p[k]))
            for k, values in enumerate(zip(of_first, of_other, strict=True))
        ]
        for of_other, test in zip(of_others, found, strict=True)
    ]
    return _rows(names, columns)


def _rows(names: Sequence[str], tested: Sequence[Sequence[tuple[float, float, bootstrap.Paired]]]) -> list[Row]:
    """Rows of the metrics `names`, tested for each of the other runs, with p corrected for their number."""
    p = np.array([[float(one[2].p) for one in of_run] for of_run in tested])  # [runs, K]
    corrected = bootstrap.holm(p.T).T
    return [
        Row(run + 1, name, a, b, *map(float, (test.difference, test.low, test.high, test.p, corrected[run, k])))
        for run, of_run in enumerate(tested)
        for k, (name, (a, b, test)) in enumerate(zip(names, of_run, strict=True))
    ]


def probabilities(rows: Rows, names: Sequence[str]) -> np.ndarray:
    """float64 `[N, C]` of the findings `names`."""
    return np.array([[row["probabilities"][name] for name in names] for row in rows], np.float64)


def labels(rows: Rows, config: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """What is true, and which labels count as the run's configuration says: bool `[N, C]` each."""
    rules, names = config.get("labels", {}), [*rows[0]["probabilities"]]
    values = np.array([[row["labels"].get(name, ABSENT) for name in names] for row in rows], np.int8)
    policies = {"uncertain": rules.get("uncertain", "ignore"), "absent": rules.get("absent", "negative")}
    target, weight = targets(values, **policies)
    return target > 0.5, (weight > 0) & (target != 0.5)
