"""`medvill summary`: what the workdirs of runs hold, as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medvill_jax import private
from medvill_jax.commands import Exit, Parser, command
from medvill_jax.errors import ConfigError

_HELP = """\
Writes one HTML page about runs: what they must still prove, metrics with intervals and baselines, paired tests between
runs of one task on the examples that they share, curves, throughput, calibration and confusion, the configuration and
what differs from the default, the data card, the environment.

  medvill summary RUN --out=summary.html
  medvill summary RUN OTHER --out=both.html
  medvill summary RUN --out=films.html --examples=4

A RUN is the --workdir of a training, best after --eval_only, which writes most of the figures. It is only read.

The page is one file that needs no network: it fetches nothing, runs nothing, and prints. It holds numbers, names of
folders, findings and settings, but no report, film or identifier, unless --examples=N asks for N films of each run
beside their reports, questions and answers: then treat the page like the data of the run. The data have to be where
the run had them.

Exit status: 0 written, 2 something to correct, said in one line on stderr; then nothing is written.
"""


def parser() -> Parser:
    """The parser of the subcommand."""
    out = Parser("medvill summary", _HELP)
    out.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="workdir of a run")
    out.add_argument("--out", type=Path, required=True, metavar="FILE", help=".html to write")
    out.add_argument(
        "--examples", type=int, default=0, metavar="N", help="films to show beside their reports (default: none)"
    )
    private.add_flag(out)
    return out


@command(failed=Exit.USAGE, interrupted="nothing was written")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand; returns its exit status."""
    args = parser().parse_args(argv)
    if args.examples < 0:
        raise ConfigError(f"--examples={args.examples}: a number of films is 0 or more")
    if args.out.is_dir():
        raise ConfigError(f"--out={args.out}: a folder; name a file to write")
    if not args.out.absolute().parent.is_dir():  # said before the minutes that a page may take
        raise ConfigError(f"--out={args.out}: there is no folder {args.out.absolute().parent}")

    from medvill_jax.summary.page import page
    from medvill_jax.summary.runs import read_all

    content = page(read_all(args.runs), examples=args.examples)
    with private.files(args.shared):
        private.write(args.out, content)
    print(f"{args.out}: {len(args.runs)} {'run' if len(args.runs) == 1 else 'runs'}, {len(content.encode()):,} bytes")
    return Exit.DONE
