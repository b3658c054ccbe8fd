"""The runs of a sweep: a command line and a process each, and the results in their workdirs."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medvill_jax.metrics import grids
from medvill_jax.metrics.metrics_file import write_metrics
from medvill_jax.models.attention_masks import KINDS
from medvill_jax.tasks.made_with import PREDICTIONS_FILE
from medvill_jax.tasks.sweep.data import SweepData
from medvill_jax.tasks.sweep.grid import LATE, METRICS, PRETRAINED, SCRATCH, Cell, SweepError
from medvill_jax.training import history

# Of this package, whatever the folder that a sweep is started in holds.
CONFIGS = Path(__file__).parents[3] / "configs"
RATE = "optimizer.learning_rate"


class Runs:
    """Runs under `out`.

    Args:
        args: parsed by `command.parser()`.
        run: runs one command with its log file, and returns its exit status.

    Attributes:
        out: the folder of the sweep.

    Raises:
        SweepError: a `--set` that cannot be read.
    """

    def __init__(self, args: argparse.Namespace, run: Callable[[Sequence[str], Path], int]):
        self._args, self._run = args, run
        self.out: Path = args.out.absolute()
        self._data = SweepData(args, run)
        self._settings = [_setting(text) for text in args.set]

    def trained(self, cell: Cell) -> bool:
        """Whether a run has been trained."""
        return (self._workdir(cell.name) / "export").is_dir()

    def tested(self, cell: Cell) -> dict[str, Any] | None:
        """The test metrics of a finished run, else None."""
        path = self._workdir(cell.name) / "metrics.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def validation(self, cell: Cell) -> float | None:
        """The best value on validation, the higher the better; None if the run has not finished."""
        workdir = self._workdir(cell.name)
        if not self.trained(cell):
            return None
        checkpoint = json.loads((workdir / "config.json").read_text())["checkpoint"]
        sign = 1.0 if checkpoint["higher_is_better"] else -1.0
        rows = history.read(workdir / history.METRICS_FILE)
        values = [sign * value for row in rows if (value := row.get(checkpoint["metric"])) is not None]
        return max(values, default=None)

    def metrics(self, folds: list[Cell]) -> dict[str, Any] | None:
        """The test metrics of a run, over all of its folds; None if one is missing."""
        tested = [self.tested(cell) for cell in folds]
        if any(metrics is None for metrics in tested):
            return None
        if not self._args.folds:
            return tested[0]
        path = self._workdir(replace(folds[0], fold=None).name) / "metrics.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            files = [self._workdir(cell.name) / PREDICTIONS_FILE for cell in folds]
            write_metrics(path, {f"test/{name}": value for name, value in grids.pooled(files).items()})
        return json.loads(path.read_text())

    def finish(self, cell: Cell) -> str | None:
        """Trains and tests a cell; the name of the run that failed, or None."""
        if not self.trained(cell) and (failed := self.train(cell)):
            return failed
        if self._start(cell.task, cell.name, self._fields(cell), "--eval_only", "--config.eval.split=test"):
            return cell.name
        return None

    def train(self, cell: Cell) -> str | None:
        """Runs a cell, and the pre-training that it starts from; the name of the run that failed, or None."""
        if cell.start in KINDS:
            name, seed = self._pretraining(cell)
            if not (self._workdir(name) / "export").is_dir():
                fields = {"seed": seed, "model.attention": cell.start, "data.path": self._data.of("pretrain")}
                if self._start("pretrain", name, fields):
                    return name
        return cell.name if self._start(cell.task, cell.name, self._fields(cell)) else None

    def _pretraining(self, cell: Cell) -> tuple[str, int]:
        seed = cell.seed if cell.model is None else cell.model
        return f"pretrain-{cell.start}-seed{seed}", seed

    def _fields(self, cell: Cell) -> dict[str, object]:
        fields: dict[str, object] = {"seed": cell.seed, "data.path": self._data.of(cell.task)}
        if cell.share != 1:
            fields["data.fraction"] = cell.share
        if cell.rate is not None:
            fields[RATE] = cell.rate
        if cell.fold is not None:
            fields |= {"data.folds": self._args.folds, "data.fold": cell.fold}
        if cell.start == LATE:
            return fields | {"fusion": "late"} | ({"inputs": "image+report"} if cell.task == "classify" else {})
        if cell.start == SCRATCH:
            return fields
        if cell.start in KINDS:
            return fields | {"init.checkpoint": self._workdir(self._pretraining(cell)[0]) / "export"}
        part = "init.checkpoint" if cell.start == PRETRAINED else "init.resnet"
        return fields | {part: self._args.pretrained[cell.model or 0].absolute()}

    def _start(self, task: str, name: str, fields: dict[str, object], *options: str) -> int:
        variant = f":{self._args.variant}" if self._args.variant else ""
        settings = {field: value for of_task, field, value in self._settings if of_task in ("", task)}
        command = [
            sys.executable,
            "-m",
            "medvill_jax.run",
            f"--config={CONFIGS / task}.py{variant}",
            f"--workdir={self._workdir(name)}",
            *(f"--config.{field}={value}" for field, value in {**fields, **settings}.items()),
            *options,
            *["--shared"] * self._args.shared,
        ]
        log = self.out / "logs" / f"{name}.log"
        print(f"{name}{' (test)' if options else ''}: {log}", flush=True)
        return self._run(command, log)

    def _workdir(self, name: str) -> Path:
        return self.out / "runs" / name


def run_logged(command: Sequence[str], log: Path) -> int:
    """Runs a command, its output appended to a log; returns its exit status."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def _setting(text: str) -> tuple[str, str, str]:
    """Task, "" for all, field and value of a `--set`."""
    field, equals, value = text.partition("=")
    task, colon, rest = field.partition(":")
    if not equals or (colon and task not in (*METRICS, "pretrain")):
        raise SweepError(f"--set={text}: expected FIELD=VALUE, or TASK:FIELD=VALUE with a task of {', '.join(METRICS)}")
    return (task, rest, value) if colon else ("", field, value)
