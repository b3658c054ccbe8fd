"""`medvill calibrate`: measures whether an export tells right sentences from wrong ones, and records it there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from medvill_jax.commands import Exit, Parser, command

_HELP = """\
Measures on films with reports how far the matching head of an export tells right sentences from wrong ones, and records
it in the export's config.json. Then `medvill predict --verify` can mark or drop the sentences that a film does not
support. The export writes reports and matches: it was trained by configs/multitask.py, best with --config.sentences=1.

  medvill calibrate DATA --model=RUN/export

A report of every film of the split is written, and its sentences are compared with the film's own report by the labeler
of `medvill labels`. Sentences that affirm a finding and sentences that deny findings have a calibration each. Where the
scores do not rank right sentences above wrong ones, sentences stay unchecked, and `medvill predict` says so.

DATA is a prepared data set; take the split that chose the checkpoint, not the one that is to be reported. The export
says which it was, and an older calibration is replaced. Exit status: 0 done, 2 something to correct, 130 interrupted.
"""
SPLITS = ("validation", "test", "train")


def parser() -> Parser:
    """The parser of the subcommand."""
    out = Parser("medvill calibrate", _HELP)
    out.add_argument("data", metavar="DATA", help="a prepared data set of films with reports")
    out.add_argument("--model", required=True, type=Path, metavar="EXPORT", help="folder of the export, on this disk")
    out.add_argument("--split", choices=SPLITS, default="validation", help="default: validation")
    return out


@command(failed=Exit.USAGE, interrupted="nothing was recorded")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand; returns its exit status."""
    args = parser().parse_args(argv)

    from medvill_jax.app import calibrating
    from medvill_jax.app.model import load

    if args.split != SPLITS[0]:
        print(
            f"warning: calibrated on {args.split}, so figures on {args.split} will look too good; take {SPLITS[0]}",
            file=sys.stderr,
        )
    calibrating.require_place(args.model)
    model = load(args.model)
    written = calibrating.write(model, args.data, args.split, progress=sys.stderr.isatty())
    calibration = calibrating.fit(written)
    calibrating.record(args.model, calibration, calibrating.made_with(model, args.data, args.split))
    print(f"{args.model}: sentences of {len(written)} reports of {args.split}, judged by the films' own reports")
    print("\n".join(calibrating.lines(calibration, args.split)))
    return Exit.DONE
