"""`medvill index`: makes an index of films and their reports, in which `medvill web` finds similar ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from medvill_jax import private
from medvill_jax.commands import Exit, Parser, command

_HELP = """\
Makes an index of a data set that `medvill prep` prepared: every film as the model sees it, and its report. Then
`medvill web --index=FILE` shows the reports of the films that are most like the one that was opened.

  medvill index DATA --model=EXPORT --out=films.index
  medvill index DATA --model=EXPORT --out=held_out.index --split=validation

The index belongs to the model: another one needs another index. It holds the reports, so treat it like the data; it is
readable by you alone unless you say --shared. Exit status: 0 done, 2 something to correct, 130 interrupted.
"""
SPLITS = ("train", "validation", "test")


def parser() -> Parser:
    """The parser of the subcommand."""
    out = Parser("medvill index", _HELP)
    out.add_argument("data", metavar="DATA", help="a prepared data set of films with reports")
    out.add_argument("--model", required=True, metavar="EXPORT", help="trained model, that of the page")
    out.add_argument("--out", required=True, type=Path, metavar="FILE", help="the index; replaced if it exists")
    out.add_argument("--split", choices=SPLITS, default="train", help="default: train")
    private.add_flag(out)
    return out


@command(failed=Exit.USAGE, interrupted="nothing was written")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand; returns its exit status."""
    args = parser().parse_args(argv)

    from medvill_jax.app import similar
    from medvill_jax.app.model import load

    index = similar.build(load(args.model), args.data, args.split, progress=sys.stderr.isatty())
    with private.files(args.shared):
        index.write(args.out)
    print(f"{args.out}: {len(index.reports)} films of {args.split} with their reports", file=sys.stderr)
    return Exit.DONE
