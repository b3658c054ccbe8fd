"""The runs of a sweep: the rows of its table, and the cells of each."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medvill_jax.errors import UserError

# Task -> the metrics of its metrics.json that go into the table.
METRICS = {
    "classify": ("test/auroc_macro", "test/auroc_micro", "test/auprc_macro", "test/auprc_micro"),
    "retrieve": ("test/i2r/mrr", "test/r2i/mrr"),
    "vqa": ("test/accuracy", "test/accuracy_closed", "test/accuracy_open"),
    "generate": ("test/clinical_micro_f1_14", "test/bleu4"),
}
SCRATCH, LATE, PRETRAINED, ENCODER = "scratch", "late fusion", "pretrained", "image encoder"


class SweepError(UserError):
    """The grid cannot be run; the message says why."""


@dataclass(frozen=True)
class Cell:
    """One fine-tuning run.

    Attributes:
        start: what it starts from, such as the attention mask of its pre-training.
        task: its name.
        seed: of the fine-tuning.
        model: which of several pre-trained models; None if there is one, or none.
        share: of the training labels.
        fold: of a cross-validation; None for the splits of the data.
        rate: peak learning rate; None for that of the configuration.
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
        """The name of its folder."""
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


class Grid:
    """The runs that the command line requests.

    Args:
        args: parsed by `command.parser()`.

    Attributes:
        rows: of the table.

    Raises:
        SweepError: nothing to run, or no data.
    """

    def __init__(self, args: argparse.Namespace):
        self._args = args
        starts = [*args.masks]
        starts += [name for name, wanted in ((SCRATCH, args.scratch), (LATE, args.late)) if wanted]
        starts += [PRETRAINED] if args.pretrained else []
        starts += [ENCODER] if args.image_encoder else []
        if args.image_encoder and not args.pretrained:
            raise SweepError("--image_encoder is a part of a model: give --pretrained=EXPORT too")
        # Late fusion cannot write reports.
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

    def cells(self, row: Row, rate: float | None) -> list[Cell]:
        """All runs of a row, at a learning rate."""
        args = self._args
        return [
            Cell(row.start, row.task, seed, model, row.share, fold, rate)
            for model in self._models(row.start)
            for seed in args.seeds
            for fold in (range(args.folds) if args.folds else (None,))
        ]

    def tuning(self, row: Row) -> list[Cell]:
        """The runs by which a row's learning rate is chosen."""
        args = self._args
        model, fold = self._models(row.start)[0], 0 if args.folds else None
        return [Cell(row.start, row.task, args.seeds[0], model, row.share, fold, rate) for rate in args.rates]

    def repeats(self, cells: list[Cell]) -> Iterator[list[Cell]]:
        """The folds of each run."""
        folds = self._args.folds or 1
        return (cells[start : start + folds] for start in range(0, len(cells), folds))

    def _models(self, start: str) -> Sequence[int | None]:
        if start in (PRETRAINED, ENCODER):
            return range(len(self._args.pretrained)) if len(self._args.pretrained) > 1 else (None,)
        if start in (SCRATCH, LATE):
            return (None,)
        return self._args.pretrain_seeds or (None,)
