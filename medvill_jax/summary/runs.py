"""The content of workdirs: configuration, metrics, answers to single examples, the report on the data."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medvill_jax.cluster import environment, workdir
from medvill_jax.data import mixture, records
from medvill_jax.errors import UserError
from medvill_jax.training import history

METRICS_FILE, ANSWERS_FILE, PLOT_FILE = "metrics.json", "predictions.jsonl", "reliability.png"
SUBGROUPS_FILE = "subgroups.json"
SHUFFLED_FILE = "predictions_shuffled_images.jsonl"
# The folders of a multi-task run's answers, and before them the workdir itself, which has those of other runs.
PARTS = ("", "findings", "report", "ask", "match")
# What an answer is known by: the key that only its kind has.
KINDS = {
    "probabilities": "findings",
    "hypothesis": "reports",
    "predicted": "answers",
    "ranks": "ranks",
    "mlm_loss": "words",
}
# Keys that every row of a kind has, with their types.
ROWS: dict[str, dict[str, type]] = {
    "findings": {"id": str, "probabilities": dict, "labels": dict},
    "reports": {"id": str, "reference": str, "hypothesis": str},
    "answers": {"id": str, "answer": str, "predicted": str},
    "ranks": {"id": str, "ranks": dict},
    "words": {"id": str, "words": float, "mlm_loss": float, "mlm_correct": float},
}

# Keys whose values are numbers by name, the same names in every row, and the limits of these numbers.
_LIMITS = {"probabilities": (0, 1), "ranks": (1, math.inf), "itm": (0, 1)}


class SummaryError(UserError):
    """A workdir cannot be summarised; the message says why."""


@dataclass(frozen=True)
class Answers:
    """The answers of a run to the examples of a split.

    Attributes:
        part: the part of a multi-task run, else "".
        kind: findings, reports, answers (to questions), ranks (of retrieval) or words (masked, of pre-training).
        rows: as in the file, one for each example.
        blind: the same with another study's film, if the run wrote that too.
        made_with: the note on what they were made with; empty if there is none.
    """

    part: str
    kind: str
    rows: Sequence[dict[str, Any]]
    blind: Sequence[dict[str, Any]] = ()
    made_with: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What a workdir holds.

    Attributes:
        name: on the page.
        folder: the workdir.
        config: the nested configuration; empty for a task that does not train, and does not record it.
        history: the lines of `metrics.jsonl`.
        metrics: those of `--eval_only`, `metrics.json`; empty before that.
        environments: in which it was trained, the newest last.
        data: source of a mixture, else "" -> the report on its data set, `build_report.json`, of those that are here.
        answers: to single examples.
        thresholds: of its export, one for each finding in order; None if it has none.
        subgroups: part of a multi-task run, else "" -> the content of `subgroups.json`, of the parts that have one.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    history: Sequence[dict[str, Any]]
    metrics: dict[str, Any]
    environments: Sequence[dict[str, Any]]
    data: Mapping[str, dict[str, Any]]
    answers: Sequence[Answers]
    thresholds: Sequence[float] | None = None
    subgroups: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The name of its task; "" if the run does not record it."""
        return str(self.config.get("task", ""))

    @property
    def split(self) -> str:
        """The split that `metrics` are of; "" without metrics."""
        return next((name.partition("/")[0] for name in self.metrics if not name.startswith("baseline/")), "")

    def thresholds_of(self, rows: Sequence[dict[str, Any]]) -> Sequence[float] | None:
        """The thresholds for the findings of rows; None if the export has none, or those of other findings."""
        fits = self.thresholds is not None and len(self.thresholds) == len(rows[0]["probabilities"])
        return self.thresholds if fits else None

    def last(self, group: str) -> dict[str, Any]:
        """The newest line of `history` whose metrics begin with `group/`; empty if there is none."""
        lines = (line for line in reversed(self.history) if any(name.startswith(f"{group}/") for name in line))
        return next(lines, {})


def read_all(folders: Sequence[Path]) -> list[Run]:
    """The runs in workdirs, each under a name of its own: as many last parts of its path as that takes.

    Raises:
        SummaryError, HistoryError, WorkdirError: a folder is none of a run, or is named twice, or a file is damaged.
        OSError: a file cannot be read.
    """
    for folder in folders:
        if "://" in str(folder) or str(folder).startswith("gs:/"):
            raise SummaryError(f"{folder}: copy the run to a folder on this machine first, and name that")
        if not folder.is_dir():
            raise SummaryError(f"{folder}: no such folder")
    places = [folder.resolve() for folder in folders]
    if twice := [str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise SummaryError(f"{twice[0]} is named more than once")
    return [_read(folder, name) for folder, name in zip(folders, _names(places), strict=True)]


def _names(places: Sequence[Path]) -> list[str]:
    for length in itertools.count(1):
        names = ["/".join(place.parts[-length:]) for place in places]
        if len({*names}) == len(names):
            return names
    raise AssertionError("paths that are all different differ in some part")


def _read(folder: Path, name: str) -> Run:
    lines, metrics = history.read(folder / history.METRICS_FILE), _json(folder / METRICS_FILE)
    if not lines and not metrics:
        files = f"{history.METRICS_FILE} or {METRICS_FILE}"
        raise SummaryError(f"{folder} holds no metrics, neither in {files}: name the --workdir of a run")
    config = workdir.configuration(folder) if (folder / workdir.CONFIG_FILE).is_file() else {}
    return Run(
        name=name,
        folder=folder,
        config=config,
        history=lines,
        metrics=metrics,
        environments=environment.read(folder / environment.FILE),
        data={
            source: report
            for source, path in data_of(folder, config, questions=config.get("task") == "vqa").items()
            if (report := _json(path / records.REPORT_FILE))
        },
        answers=[answers for part in PARTS if (answers := _answers(folder / part, part)) is not None],
        thresholds=_json(folder / "export" / "config.json").get("extra", {}).get("thresholds"),
        subgroups={part: found for part in PARTS if (found := _json(folder / part / SUBGROUPS_FILE))},
    )


def data_of(folder: Path, config: dict[str, Any], *, questions: bool) -> dict[str, Path]:
    """Source of a mixture, else "" -> the folder of its data set, with reports or with questions; it need not exist."""
    fields = config.get("data", {})
    if mixed := fields.get("mixture"):
        return {source.name: Path(source.path) for source in mixture.parse(mixed)}
    path = (questions and fields.get("questions")) or fields.get("path")
    # The demo makes its data in the workdir.
    return {"": Path(path) if path else folder / workdir.DATA_DIR / ("vqa_records" if questions else "records")}


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise SummaryError(f"{path} is damaged: it holds no JSON object")
    return content


def _answers(folder: Path, part: str) -> Answers | None:
    rows = _rows(folder / ANSWERS_FILE)
    if not rows:
        return None
    kind = next((kind for key, kind in KINDS.items() if key in rows[0]), None)
    if kind is None:
        return None
    for number, row in enumerate(rows, 1):
        if not all(_fits(row.get(key), wanted) for key, wanted in ROWS[kind].items()) or not _alike(row, rows[0]):
            raise SummaryError(f"{folder / ANSWERS_FILE}, line {number}: not a row of {kind}")
    note = (folder / ANSWERS_FILE).with_suffix(".json")
    return Answers(part, kind, rows, blind=_rows(folder / SHUFFLED_FILE), made_with=_json(note))


def _fits(value: object, wanted: type) -> bool:
    """Whether a value has a type; the values of an object must be numbers."""
    if isinstance(value, dict):
        return wanted is dict and all(isinstance(one, int | float) for one in value.values())
    return isinstance(value, wanted)


def _alike(row: dict[str, Any], first: dict[str, Any]) -> bool:
    """Whether a row has what the first one has, of findings, rankings and reports, within their limits."""
    for key, (low, high) in _LIMITS.items():
        said, known = row.get(key, {}), first.get(key, {})
        if not _fits(said, dict) or said.keys() != known.keys() or not all(low <= one <= high for one in said.values()):
            return False
    return True


def _rows(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines."""
    rows = []
    for number, row in enumerate(history.objects(path), 1):
        if row is None:
            raise SummaryError(f"{path}, line {number}: no JSON object; restore the file, or evaluate again")
        rows.append(row)
    return rows
