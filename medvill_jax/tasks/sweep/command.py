"""The command line of `python -m medvill_jax.tasks.sweep`."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medvill_jax import private
from medvill_jax.commands import Exit, Parser, command
from medvill_jax.metrics import grids
from medvill_jax.models.attention_masks import KINDS
from medvill_jax.tasks.sweep.grid import METRICS
from medvill_jax.tasks.sweep.sweep import Sweep

_HELP = """\
Runs a grid of pre-training and fine-tuning runs and writes one table with means and standard deviations over them.

  python -m medvill_jax.tasks.sweep --out=DIR --masks=bar,s2s --tasks=classify,retrieve --seeds=0,1 --data=DATA
  python -m medvill_jax.tasks.sweep --out=DIR --variant=phantom --masks=bar --scratch --tasks=classify --seeds=0,1,2 \\
      --pretrain_seeds=0,1 --shares=0.01,0.1,1 --rates=2e-4,5e-4,1e-3
  transfer:  --data=A --finetune_data=B pre-trains on A, fine-tunes and tests on B; --folds=5 cross-validates on B

Stop it with Ctrl-C; the same command goes on. DIR/table.md, table.csv, table.json (all runs and the chosen rates) and,
with several shares, curves.png are written anew after every run.
Exit status: 0 done, 1 a mistake to correct, or runs that failed (named, with their logs), 130 interrupted.
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""

    def names_of(allowed: Sequence[str]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            words = [word for word in text.split(",") if word]
            if unknown := [word for word in words if word not in allowed]:
                raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(allowed)}")
            return words

        return parse

    out = Parser("python -m medvill_jax.tasks.sweep", _HELP, status=Exit.ERROR)
    out.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for runs, logs and the table")
    out.add_argument("--masks", type=names_of(KINDS), default=[], help=f"pre-training masks, some of {','.join(KINDS)}")
    out.add_argument(
        "--tasks", type=names_of(tuple(METRICS)), required=True, help=f"fine-tuning tasks, some of {','.join(METRICS)}"
    )
    out.add_argument(
        "--seeds", type=functools.partial(_numbers, int), default=[0], help="of fine-tuning, e.g. 0,1,2 (default 0)"
    )
    out.add_argument(
        "--pretrain_seeds",
        type=functools.partial(_numbers, int),
        default=[],
        help="of the pre-training of --masks; each model is fine-tuned with all --seeds",
    )
    out.add_argument(
        "--shares",
        type=functools.partial(_numbers, float),
        default=[1.0],
        help="shares of the training labels, e.g. 0.01,0.1,1 (default 1)",
    )
    out.add_argument(
        "--rates",
        type=functools.partial(_numbers, float),
        default=[],
        help="learning rates, of which every row uses the best on validation",
    )
    out.add_argument("--folds", type=int, default=0, help="cross-validation by subject, predictions pooled")
    out.add_argument("--scratch", action="store_true", help="also fine-tune without pre-training")
    out.add_argument("--late", action="store_true", help="also the CNN + BERT baseline, without pre-training")
    out.add_argument(
        "--pretrained", type=_folders, default=[], metavar="EXPORT[,EXPORT]", help="also fine-tune these models"
    )
    out.add_argument("--image_encoder", action="store_true", help="also its image encoder alone, under a fresh BERT")
    out.add_argument("--variant", choices=("", "small", "phantom"), default="", help="variant of all configurations")
    out.add_argument("--data", type=Path, metavar="DATA", help="prepared data; the phantom variant makes its own")
    out.add_argument("--finetune_data", type=Path, metavar="DATA", help="fine-tune and test on these instead")
    out.add_argument("--vqa_data", type=Path, metavar="DATA", help="prepared questions, for vqa")
    out.add_argument("--studies", type=int, default=9000, help="phantom studies to make (default 9000)")
    out.add_argument(
        "--difficulty", choices=("standard", "hard"), default="standard", help="difficulty of the phantom films"
    )
    out.add_argument("--image_size", type=int, default=128, help="side of the phantom films, pixels (default 128)")
    out.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[TASK:]FIELD=VALUE",
        help="sets a configuration field of all runs, or of one task's",
    )
    private.add_flag(out)
    return out


@command(interrupted="the same command goes on from here")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the sweep of a command line; returns the exit status."""
    args = parser().parse_args(argv)
    sweep = Sweep(args)
    with private.files(args.shared):
        failed = sweep.execute()
    print((sweep.out / grids.TABLE).read_text(), end="")
    for name in failed:
        print(f"error: {name} failed; see {sweep.out / 'logs' / name}.log", file=sys.stderr)
    return Exit.ERROR if failed else Exit.DONE


def _numbers(kind: Callable[[str], Any], text: str) -> list[Any]:
    return [kind(number) for number in text.split(",")]


def _folders(text: str) -> list[Path]:
    return [Path(folder) for folder in text.split(",")]
