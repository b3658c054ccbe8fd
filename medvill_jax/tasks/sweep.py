"""The paper's ablations as one command: a grid of runs, each of them resumable, and one table of their test figures.

    python -m medvill_jax.tasks.sweep --out=DIR --masks=bar,s2s --tasks=classify,retrieve --seeds=0,1,2 --data=DATA

A cell of the grid is a start, a task and a seed. Starts are the attention masks of pre-training (`--masks`), and with
`--scratch` fine-tuning without pre-training, with `--late` the CNN + BERT baseline without it, with
`--pretrained=EXPORT` a model that is there already, and with `--image_encoder` that part of it under a fresh BERT.
Every run is a process of its own under DIR/runs, a `run.py` as one would type it, so the sweep can be stopped at any
time and the same command goes on.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medvill_jax import private
from medvill_jax.metrics.command import Parser
from medvill_jax.metrics.figures import replace_file
from medvill_jax.models.masks import KINDS

ROOT = Path(__file__).parents[2]
# Task -> the figures of its metrics.json that go into the table.
FIGURES = {
    "classify": ("test/auroc_macro", "test/auroc_micro", "test/auprc_macro", "test/auprc_micro"),
    "retrieve": ("test/i2r/mrr", "test/r2i/mrr"),
    "vqa": ("test/accuracy", "test/accuracy_closed", "test/accuracy_open"),
    "generate": ("test/clinical_micro_f1_14", "test/bleu4"),
}
SCRATCH, LATE, GIVEN, ENCODER = "scratch", "late fusion", "pretrained", "image encoder"
TABLE = "table"

_HELP = """\
Runs a grid of pre-training and fine-tuning runs and writes one table with means and standard deviations over seeds.

  python -m medvill_jax.tasks.sweep --out=DIR --masks=bar,s2s --tasks=classify,retrieve --seeds=0,1 --data=DATA
  python -m medvill_jax.tasks.sweep --out=DIR --variant=phantom --masks=bar --scratch --tasks=classify --seeds=0,1,2 \\
      --set=classify:data.fraction=0.1
  transfer:  --data=A --finetune_data=B pre-trains on A, fine-tunes and tests on B

Stop it with Ctrl-C; the same command goes on. DIR/table.md and DIR/table.csv are written anew after every run.
Exit status: 0 done, 1 something to correct or a run failed (each is named, with its log), 130 interrupted.
"""


class SweepError(Exception):
    """The grid cannot be run as asked; the message says why."""


@dataclass(frozen=True)
class Cell:
    """One fine-tuning run: what it starts from, its task and its seed."""

    start: str
    task: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.task}-{self.start.replace(' ', '_')}-seed{self.seed}"


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
        self.cells = [Cell(start, task, seed) for task in args.tasks for start in starts for seed in args.seeds]
        # Late fusion reads nothing but image and report, and writes none.
        self.cells = [cell for cell in self.cells if not (cell.start == LATE and cell.task == "generate")]
        if not self.cells:
            raise SweepError("nothing to run: give --masks, --scratch, --late or --pretrained")
        if args.variant != "phantom" and not (args.data or (args.finetune_data and not args.masks)):
            raise SweepError("no data: give --data=DATA, or --variant=phantom")
        if "vqa" in args.tasks and not args.vqa_data and args.variant != "phantom":
            raise SweepError("no questions: give --vqa_data=DATA, made by `python -m data_prep vqa_rad`")

    def execute(self) -> list[str]:
        """Runs what is missing, and writes the table after every run; returns the names of the runs that failed."""
        failed: list[str] = []
        for cell in self.cells:
            if self.figures(cell) is None and (name := self._finish(cell)):
                failed.append(name)
            self.write_tables()
        return failed

    def figures(self, cell: Cell) -> dict[str, float | None] | None:
        """The test figures of a cell that is done, else None."""
        path = self._workdir(cell.name) / "metrics.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def write_tables(self) -> None:
        """DIR/table.md and DIR/table.csv, of the cells that are done."""
        rows = list(self._rows())
        lines = ["| task | start | figure | mean | sd | seeds |", "|---|---|---|---|---|---|"]
        lines += [f"| {' | '.join(map(_shown, row))} |" for row in rows]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("task", "start", "figure", "mean", "sd", "seeds"), *rows])
        self.out.mkdir(parents=True, exist_ok=True)
        replace_file(self.out / f"{TABLE}.md", ("\n".join(lines) + "\n").encode())
        replace_file(self.out / f"{TABLE}.csv", text.getvalue().encode())

    def _rows(self) -> Iterator[tuple[str, str, str, float | None, float | None, int]]:
        for task, start in dict.fromkeys((cell.task, cell.start) for cell in self.cells):
            seeds = [self.figures(cell) for cell in self.cells if (cell.task, cell.start) == (task, start)]
            for figure in FIGURES[task]:
                values = [value for found in seeds if found and (value := found.get(figure)) is not None]
                mean = statistics.fmean(values) if values else None
                yield task, start, figure, mean, statistics.stdev(values) if len(values) > 1 else None, len(values)

    def _finish(self, cell: Cell) -> str | None:
        """Runs a cell, and the pre-training that it starts from; the name of the run that failed, or None."""
        fields = {"seed": cell.seed, "data.path": self._data(cell.task)}
        if cell.start == LATE:
            fields |= {"fusion": "late"} | ({"inputs": "image+report"} if cell.task == "classify" else {})
        elif cell.start == GIVEN:
            fields["init.checkpoint"] = self._args.pretrained.absolute()
        elif cell.start == ENCODER:
            fields["init.resnet"] = self._args.pretrained.absolute()
        elif cell.start != SCRATCH:
            name = f"pretrain-{cell.start}-seed{cell.seed}"
            export = self._workdir(name) / "export"
            if not export.is_dir():
                pretraining = {"seed": cell.seed, "model.attention": cell.start, "data.path": self._data("pretrain")}
                if self._start("pretrain", name, pretraining):
                    return name
            fields["init.checkpoint"] = export
        if self._start(cell.task, cell.name, fields):
            return cell.name
        if self._start(cell.task, cell.name, fields, "--eval_only", "--config.eval.split=test"):
            return cell.name
        return None

    def _start(self, task: str, name: str, fields: dict[str, object], *more: str) -> int:
        variant = f":{self._args.variant}" if self._args.variant else ""
        own = {field: value for only, field, value in self._settings if only in ("", task)}
        command = [
            sys.executable,
            str(ROOT / "run.py"),
            f"--config={ROOT / 'configs' / task}.py{variant}",
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
        commands = {
            "records": [*prep, "mimic_cxr", f"--source={tree}", f"--out={self.out / 'data' / 'records'}", size],
            "vqa_records": [*prep, "vqa_rad", f"--source={tree / 'vqa'}", f"--out={out}", size, words],
        }
        for name, command in (("tree", made), *commands.items()):
            there = self.out / "data" / name
            if there.is_dir() or (name == "vqa_records" and not questions):
                continue
            print(f"data: {there}", flush=True)
            if self._run([*command, *shared], self.out / "logs" / "data.log"):
                raise SweepError(f"the phantom data could not be made; see {self.out / 'logs' / 'data.log'}")
        return out


def run_logged(command: Sequence[str], log: Path) -> int:
    """Runs a command from the project's folder, its output appended to a log; returns its exit status."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def parser() -> argparse.ArgumentParser:
    """The command line."""

    def words(allowed: Sequence[str]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            found = [word for word in text.split(",") if word]
            if unknown := [word for word in found if word not in allowed]:
                raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(allowed)}")
            return found

        return parse

    out = Parser("python -m medvill_jax.tasks.sweep", _HELP)
    out.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets runs, logs and the table")
    out.add_argument("--masks", type=words(KINDS), default=[], help=f"pre-training masks, of {','.join(KINDS)}")
    out.add_argument("--tasks", type=words(tuple(FIGURES)), required=True, help=f"of {','.join(FIGURES)}")
    out.add_argument("--seeds", type=_numbers, default=[0], help="e.g. 0,1,2")
    out.add_argument("--scratch", action="store_true", help="also fine-tune without pre-training")
    out.add_argument("--late", action="store_true", help="also the CNN + BERT baseline, without pre-training")
    out.add_argument("--pretrained", type=Path, metavar="EXPORT", help="also fine-tune this model")
    out.add_argument("--image_encoder", action="store_true", help="also its image encoder alone, under a fresh BERT")
    out.add_argument("--variant", choices=("", "small", "phantom"), default="", help="of all configurations")
    out.add_argument("--data", type=Path, metavar="DATA", help="prepared data; the phantom variant makes its own")
    out.add_argument("--finetune_data", type=Path, metavar="DATA", help="fine-tune and test on these instead")
    out.add_argument("--vqa_data", type=Path, metavar="DATA", help="prepared questions, for vqa")
    out.add_argument("--studies", type=int, default=9000, help="phantom studies to make (default 9000)")
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


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    args = parser().parse_args(argv)
    try:
        sweep = Sweep(args)
        with private.files(args.shared):
            failed = sweep.execute()
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print((sweep.out / f"{TABLE}.md").read_text(), end="")
    for name in failed:
        print(f"error: {name} failed; see {sweep.out / 'logs' / name}.log", file=sys.stderr)
    return 1 if failed else 0


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def _setting(text: str) -> tuple[str, str, str]:
    """Task or "", field and value."""
    field, equals, value = text.partition("=")
    task, colon, rest = field.partition(":")
    if not equals or (colon and task not in (*FIGURES, "pretrain")):
        raise SweepError(f"--set={text}: expected FIELD=VALUE, or TASK:FIELD=VALUE with a task of {', '.join(FIGURES)}")
    return (task, rest, value) if colon else ("", field, value)


def _shown(value: object) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
