"""The paper's ablations, and the proof that pre-training pays, as one command: a grid of resumable runs and one table.

    python -m medvill_jax.tasks.sweep --out=DIR --masks=bar,s2s --tasks=classify,retrieve --seeds=0,1,2 --data=DATA

A row of the table is a start, a task and a share of the training labels (`--shares`). Starts are the attention masks of
pre-training (`--masks`), and with `--scratch` fine-tuning without pre-training, with `--late` the CNN + BERT baseline
without it, with `--pretrained=EXPORT` a model that is there already, and with `--image_encoder` that part of it under a
fresh BERT. A row's runs are all fine-tuning seeds with all pre-trained models (`--pretrain_seeds`, or several exports)
in all folds (`--folds`), whose held-out predictions are pooled.

With `--rates` every row gets the same tuning: each learning rate once, with the first seed, model and fold, and the
one that is best on validation for all of the row's runs.

Every run is a process of its own under DIR/runs, a command as one would type it, so the sweep can be stopped at any
time and the same command goes on.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medvill_jax import private
from medvill_jax.commands import Exit, Parser, command
from medvill_jax.errors import UserError
from medvill_jax.metrics import grids
from medvill_jax.metrics.metrics_file import write_metrics
from medvill_jax.models.masks import KINDS

# Task -> the figures of its metrics.json that go into the table.
FIGURES = {
    "classify": ("test/auroc_macro", "test/auroc_micro", "test/auprc_macro", "test/auprc_micro"),
    "retrieve": ("test/i2r/mrr", "test/r2i/mrr"),
    "vqa": ("test/accuracy", "test/accuracy_closed", "test/accuracy_open"),
    "generate": ("test/clinical_micro_f1_14", "test/bleu4"),
}
SCRATCH, LATE, GIVEN, ENCODER = "scratch", "late fusion", "pretrained", "image encoder"
RATE = "optimizer.learning_rate"

_HELP = """\
Runs a grid of pre-training and fine-tuning runs and writes one table with means and standard deviations over them.

  python -m medvill_jax.tasks.sweep --out=DIR --masks=bar,s2s --tasks=classify,retrieve --seeds=0,1 --data=DATA
  python -m medvill_jax.tasks.sweep --out=DIR --variant=phantom --masks=bar --scratch --tasks=classify --seeds=0,1,2 \\
      --pretrain_seeds=0,1 --shares=0.01,0.1,1 --rates=2e-4,5e-4,1e-3
  transfer:  --data=A --finetune_data=B pre-trains on A, fine-tunes and tests on B; --folds=5 cross-validates on B

Stop it with Ctrl-C; the same command goes on. DIR/table.md, table.csv, table.json (all runs and the chosen rates) and,
with several shares, curves.png are written anew after every run.
Exit status: 0 done, 1 something to correct or a run failed (each is named, with its log), 130 interrupted.
"""


class SweepError(UserError):
    """The grid cannot be run as asked; the message says why."""


@dataclass(frozen=True)
class Cell:
    """One fine-tuning run.

    Attributes:
        start: what it starts from.
        task: its task.
        seed: of the fine-tuning.
        model: which of several pre-trained models; None where there is one, or none.
        share: of the training labels.
        fold: of a cross-validation; None for the data's own splits.
        rate: peak learning rate; None for the configuration's.
    """

    start: str
    task: str
    seed: int
    model: int | None = None
    share: float = 1.0
    fold: int | None = None
    rate: float | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        parts = [self.task, self.start.replace(" ", "_"), f"seed{self.seed}"]
        parts += [f"share{self.share:g}"] if self.share != 1 else []
        parts += [f"model{self.model}"] if self.model is not None else []
        parts += [f"rate{self.rate:g}"] if self.rate is not None else []
        parts += [f"fold{self.fold}"] if self.fold is not None else []
        return "-".join(parts)


@dataclass(frozen=True)
class Row:
    """A row of the table: a task, a start and a share of the labels."""

    task: str
    start: str
    share: float


class Sweep:
    """A grid of runs.

    Args:
        args: as `parser()` gives them.
        run: runs one command with its log file, and returns its exit status.

    Raises:
        SweepError: nothing to run, or data that are not given.
    """

    def __init__(self, args: argparse.Namespace, run: Callable[[Sequence[str], Path], int] | None = None):
        self._args, self._run = args, run or run_logged
        self.out: Path = args.out.absolute()
        self._settings = [_setting(text) for text in args.set]
        starts = [*args.masks]
        starts += [name for name, wanted in ((SCRATCH, args.scratch), (LATE, args.late)) if wanted]
        starts += [GIVEN] if args.pretrained else []
        starts += [ENCODER] if args.image_encoder else []
        if args.image_encoder and not args.pretrained:
            raise SweepError("--image_encoder is a part of a model: give --pretrained=EXPORT too")
        # Late fusion reads nothing but image and report, and writes none.
        pairs = [(task, start) for task in args.tasks for start in starts if (start, task) != (LATE, "generate")]
        self.rows = [Row(task, start, share) for task, start in pairs for share in args.shares]
        if not self.rows:
            raise SweepError("nothing to run: give --masks, --scratch, --late or --pretrained")
        if args.folds == 1 or args.folds < 0:
            raise SweepError(f"--folds={args.folds}: two folds or more")
        if args.folds and set(args.tasks) != {"classify"}:
            raise SweepError("--folds pools the predictions of classify; leave other tasks out")
        if args.variant != "phantom" and not (args.data or (args.finetune_data and not args.masks)):
            raise SweepError("no data: give --data=DATA, or --variant=phantom")
        if "vqa" in args.tasks and not args.vqa_data and args.variant != "phantom":
            raise SweepError("no questions: give --vqa_data=DATA, made by `python -m data_prep vqa_rad`")

    def execute(self) -> list[str]:
        """Runs what is missing, and writes the table after every run; returns the names of the runs that failed."""
        failed: list[str] = []
        for row in self.rows:
            for cell in self._tuning(row):
                if not self._trained(cell) and (name := self._train(cell)):
                    failed.append(name)
            for cell in self._cells(row):
                if self._tested(cell) is None and (name := self._finish(cell)):
                    failed.append(name)
                self.write_tables()
        return list(dict.fromkeys(failed))

    def write_tables(self) -> None:
        """DIR/table.md, table.csv, table.json and curves.png, of the rows that are done."""
        found = []
        for row in self.rows:
            cells = self._cells(row)
            repeats = list(self._repeats(cells))
            runs = [figures for folds in repeats if (figures := self._figures(folds)) is not None]
            found.append(grids.Row(row.task, row.start, row.share, cells[0].rate, runs, planned=len(repeats)))
        self.out.mkdir(parents=True, exist_ok=True)
        grids.write(self.out, found, FIGURES)

    def _cells(self, row: Row) -> list[Cell]:
        """All runs of a row, at its rate."""
        args, rate = self._args, self._rate(row)
        return [
            Cell(row.start, row.task, seed, model, row.share, fold, rate)
            for model in self._models(row.start)
            for seed in args.seeds
            for fold in (range(args.folds) if args.folds else (None,))
        ]

    def _repeats(self, cells: list[Cell]) -> Iterator[list[Cell]]:
        """The folds of each run."""
        folds = self._args.folds or 1
        return (cells[start : start + folds] for start in range(0, len(cells), folds))

    def _models(self, start: str) -> Sequence[int | None]:
        if start in (GIVEN, ENCODER):
            return range(len(self._args.pretrained)) if len(self._args.pretrained) > 1 else (None,)
        if start in (SCRATCH, LATE):
            return (None,)
        return self._args.pretrain_seeds or (None,)

    def _tuning(self, row: Row) -> list[Cell]:
        """The runs that choose a row's rate."""
        args = self._args
        model, fold = self._models(row.start)[0], 0 if args.folds else None
        return [Cell(row.start, row.task, args.seeds[0], model, row.share, fold, rate) for rate in args.rates]

    def _rate(self, row: Row) -> float | None:
        """The learning rate that is best on validation; the first where none has been tried."""
        if not self._args.rates:
            return None
        tried = {cell.rate: value for cell in self._tuning(row) if (value := self._validation(cell)) is not None}
        return max(tried, key=tried.__getitem__) if tried else self._args.rates[0]

    def _validation(self, cell: Cell) -> float | None:
        """The best figure on validation, the higher the better; None if the run is not done."""
        workdir = self._workdir(cell.name)
        if not self._trained(cell):
            return None
        checkpoint = json.loads((workdir / "config.json").read_text())["checkpoint"]
        sign = 1.0 if checkpoint["higher_is_better"] else -1.0
        rows = (json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines())
        values = [sign * value for row in rows if (value := row.get(checkpoint["metric"])) is not None]
        return max(values, default=None)

    def _trained(self, cell: Cell) -> bool:
        return (self._workdir(cell.name) / "export").is_dir()

    def _tested(self, cell: Cell) -> dict[str, Any] | None:
        """The test figures of a run that is done, else None."""
        path = self._workdir(cell.name) / "metrics.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def _figures(self, folds: list[Cell]) -> dict[str, Any] | None:
        """The test figures of a run, over all of its folds; None if one is missing."""
        found = [self._tested(cell) for cell in folds]
        if any(figures is None for figures in found):
            return None
        if not self._args.folds:
            return found[0]
        path = self._workdir(replace(folds[0], fold=None).name) / "metrics.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            files = [self._workdir(cell.name) / "predictions.jsonl" for cell in folds]
            write_metrics(path, {f"test/{name}": value for name, value in grids.pooled(files).items()})
        return json.loads(path.read_text())

    def _finish(self, cell: Cell) -> str | None:
        """Trains and tests a cell; the name of the run that failed, or None."""
        if not self._trained(cell) and (failed := self._train(cell)):
            return failed
        if self._start(cell.task, cell.name, self._fields(cell), "--eval_only", "--config.eval.split=test"):
            return cell.name
        return None

    def _train(self, cell: Cell) -> str | None:
        """Runs a cell, and the pre-training that it starts from; the name of the run that failed, or None."""
        if cell.start in KINDS:
            name, seed = self._pretraining(cell)
            if not (self._workdir(name) / "export").is_dir():
                fields = {"seed": seed, "model.attention": cell.start, "data.path": self._data("pretrain")}
                if self._start("pretrain", name, fields):
                    return name
        return cell.name if self._start(cell.task, cell.name, self._fields(cell)) else None

    def _pretraining(self, cell: Cell) -> tuple[str, int]:
        seed = cell.seed if cell.model is None else cell.model
        return f"pretrain-{cell.start}-seed{seed}", seed

    def _fields(self, cell: Cell) -> dict[str, object]:
        fields: dict[str, object] = {"seed": cell.seed, "data.path": self._data(cell.task)}
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
        part = "init.checkpoint" if cell.start == GIVEN else "init.resnet"
        return fields | {part: self._args.pretrained[cell.model or 0].absolute()}

    def _start(self, task: str, name: str, fields: dict[str, object], *more: str) -> int:
        variant = f":{self._args.variant}" if self._args.variant else ""
        own = {field: value for only, field, value in self._settings if only in ("", task)}
        command = [
            sys.executable,
            "-m",
            "medvill_jax.run",
            f"--config=configs/{task}.py{variant}",
            f"--workdir={self._workdir(name)}",
            *(f"--config.{field}={value}" for field, value in {**fields, **own}.items()),
            *more,
            *["--shared"] * self._args.shared,
        ]
        log = self.out / "logs" / f"{name}.log"
        print(f"{name}{' (test)' if more else ''}: {log}", flush=True)
        return self._run(command, log)

    def _workdir(self, name: str) -> Path:
        return self.out / "runs" / name

    def _data(self, task: str) -> Path:
        args = self._args
        given = args.vqa_data if task == "vqa" else args.data if task == "pretrain" else args.finetune_data or args.data
        if given:
            return given.absolute()
        return self._phantom(task == "vqa")

    def _phantom(self, questions: bool) -> Path:
        """The demo's data, made once for all runs."""
        from medvill_jax.data import records

        tree, out = self.out / "data" / "tree", self.out / "data" / ("vqa_records" if questions else "records")
        if out.is_dir():
            return out
        prep = [sys.executable, "-m", "data_prep"]
        shared = ["--shared"] * self._args.shared
        words = f"--tokenizer={self.out / 'data' / 'records' / records.TOKENIZER_FILE}"
        size = f"--image_size={self._args.image_size}"
        made = [*prep, "phantom", f"--out={tree}", f"--studies={self._args.studies}", "--seed=0", size, "--vqa"]
        made.append(f"--difficulty={self._args.difficulty}")
        commands = {
            "records": [*prep, "mimic_cxr", f"--source={tree}", f"--out={self.out / 'data' / 'records'}", size],
            "vqa_records": [*prep, "vqa_rad", f"--source={tree / 'vqa'}", f"--out={out}", size, words],
        }
        for name, making in (("tree", made), *commands.items()):
            there = self.out / "data" / name
            if there.is_dir() or (name == "vqa_records" and not questions):
                continue
            print(f"data: {there}", flush=True)
            if self._run([*making, *shared], self.out / "logs" / "data.log"):
                raise SweepError(f"the phantom data could not be made; see {self.out / 'logs' / 'data.log'}")
        return out


def run_logged(command: Sequence[str], log: Path) -> int:
    """Runs a command, its output appended to a log; returns its exit status."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def parser() -> argparse.ArgumentParser:
    """The command line."""

    def words(allowed: Sequence[str]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            found = [word for word in text.split(",") if word]
            if unknown := [word for word in found if word not in allowed]:
                raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(allowed)}")
            return found

        return parse

    out = Parser("python -m medvill_jax.tasks.sweep", _HELP, status=Exit.ERROR)
    out.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets runs, logs and the table")
    out.add_argument("--masks", type=words(KINDS), default=[], help=f"pre-training masks, of {','.join(KINDS)}")
    out.add_argument("--tasks", type=words(tuple(FIGURES)), required=True, help=f"of {','.join(FIGURES)}")
    out.add_argument("--seeds", type=functools.partial(_numbers, int), default=[0], help="e.g. 0,1,2")
    out.add_argument(
        "--pretrain_seeds",
        type=functools.partial(_numbers, int),
        default=[],
        help="of --masks; each model is fine-tuned with all --seeds",
    )
    out.add_argument(
        "--shares",
        type=functools.partial(_numbers, float),
        default=[1.0],
        help="of the training labels, e.g. 0.01,0.1,1 (default 1)",
    )
    out.add_argument(
        "--rates",
        type=functools.partial(_numbers, float),
        default=[],
        help="learning rates to choose from on validation, for every row",
    )
    out.add_argument("--folds", type=int, default=0, help="cross-validation by subject, predictions pooled")
    out.add_argument("--scratch", action="store_true", help="also fine-tune without pre-training")
    out.add_argument("--late", action="store_true", help="also the CNN + BERT baseline, without pre-training")
    out.add_argument(
        "--pretrained", type=_folders, default=[], metavar="EXPORT[,EXPORT]", help="also fine-tune these models"
    )
    out.add_argument("--image_encoder", action="store_true", help="also its image encoder alone, under a fresh BERT")
    out.add_argument("--variant", choices=("", "small", "phantom"), default="", help="of all configurations")
    out.add_argument("--data", type=Path, metavar="DATA", help="prepared data; the phantom variant makes its own")
    out.add_argument("--finetune_data", type=Path, metavar="DATA", help="fine-tune and test on these instead")
    out.add_argument("--vqa_data", type=Path, metavar="DATA", help="prepared questions, for vqa")
    out.add_argument("--studies", type=int, default=9000, help="phantom studies to make (default 9000)")
    out.add_argument("--difficulty", choices=("standard", "hard"), default="standard", help="of the phantom films")
    out.add_argument("--image_size", type=int, default=128, help="of the phantom films, pixels (default 128)")
    out.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[TASK:]FIELD=VALUE",
        help="a configuration field of all runs, or of one task's",
    )
    private.add_flag(out)
    return out


@command(interrupted="the same command goes on from here")
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    args = parser().parse_args(argv)
    sweep = Sweep(args)
    with private.files(args.shared):
        failed = sweep.execute()
    print((sweep.out / grids.TABLE).read_text(), end="")
    for name in failed:
        print(f"error: {name} failed; see {sweep.out / 'logs' / name}.log", file=sys.stderr)
    return Exit.ERROR if failed else Exit.DONE


def _numbers(kind: Callable[[str], Any], text: str) -> list[Any]:
    return [kind(each) for each in text.split(",")]


def _folders(text: str) -> list[Path]:
    return [Path(each) for each in text.split(",")]


def _setting(text: str) -> tuple[str, str, str]:
    """Task or "", field and value."""
    field, equals, value = text.partition("=")
    task, colon, rest = field.partition(":")
    if not equals or (colon and task not in (*FIGURES, "pretrain")):
        raise SweepError(f"--set={text}: expected FIELD=VALUE, or TASK:FIELD=VALUE with a task of {', '.join(FIGURES)}")
    return (task, rest, value) if colon else ("", field, value)


if __name__ == "__main__":
    sys.exit(main())
