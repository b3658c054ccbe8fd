"""Whether one run's reports are better than another's, on the same examples."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medvill_jax.metrics import bootstrap, clinical, text
from medvill_jax.metrics.command import MissingExtra, Parser
from medvill_jax.metrics.generation import Labeler, parts
from medvill_jax.metrics.label_f1 import Uncertain
from medvill_jax.metrics.predictions import Prediction, PredictionError, read

_HELP = """\
Compares two runs' generated reports on the same examples: both figures, their difference, how sure it is.

  python -m medvill_jax.metrics.compare A/predictions.jsonl B/predictions.jsonl

Every line of either file is one example, matched by id, in any order:

  {"id": "s1", "reference": "Small left effusion.", "hypothesis": "left pleural effusion ."}

How to read the table:
  A, B         the figures of the two runs; higher is better. 0 to 1, but for cider (0 to 10)
  B - A        the difference
  95 % of it   interval of the difference from resampled examples (paired bootstrap). Without 0 in it, the runs differ
               by more than the choice of examples explains
  p            how often a difference this large arises when the runs' answers are swapped at random (two-sided). Look
               at the figure that was chosen beforehand: of twenty figures one is below 0.05 by chance
  bleuN_upstream compares cased with lower-cased text, as the released MedViLL code does; even perfect reports stay
  far below 1 in it. meteor has no interval; it needs Java and is left out without it.

What differs between two training seeds is not in the interval: it is about these two runs on other such examples.
Clinical figures use labels in the rows (reference_labels, hypothesis_labels) where every row has them, else
medvill_jax's rule-based labeler.

Exit status: 0 done, 1 something to correct, said in one line on stderr.
"""


class CompareError(Exception):
    """The two files do not belong together; the message says why, and is shown without a trace."""


@dataclass(frozen=True)
class Row:
    """One figure of two runs; the last three are NaN for a figure that cannot be resampled."""

    name: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float


def compare(
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    *,
    labeler: Labeler | None = clinical.label_batch,
    uncertain: Uncertain = "positive",
    meteor: bool = True,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> list[Row]:
    """Every figure of `generation.score` in both runs; arguments as there.

    Returns:
      Rows with b - a, its 95 % interval (paired bootstrap) and p (two-sided approximate randomisation).

    Raises:
      CompareError: other ids, or another reference or reference label for the same id.
      ValueError, MissingExtra: as in `generation.score`.
    """
    b = _matched(a, b)
    found: list[Row] = []
    pairs = [parts(each, labeler=labeler, uncertain=uncertain) for each in (a, b)]
    for of_a, of_b in zip(*pairs, strict=True):
        result = bootstrap.paired(of_a.rows, of_b.rows, of_a.figure, resamples=resamples, seed=seed)
        columns = (result.difference.tolist(), result.low.tolist(), result.high.tolist(), result.p.tolist())
        values = zip(of_a.names, of_a.values().values(), of_b.values().values(), *columns, strict=True)
        found += [Row(*each) for each in values if not each[0].startswith("clinical_empty_")]
    if meteor and text.meteor_missing() is None:
        references = [each.reference for each in a]
        one, other = (text.meteor(references, [each.hypothesis for each in run]) for run in (a, b))
        found.append(Row("meteor", one, other, other - one, math.nan, math.nan, math.nan))
    return found


def _matched(a: Sequence[Prediction], b: Sequence[Prediction]) -> list[Prediction]:
    """The rows of b in the order of a."""
    of_a, of_b = {each.id: each for each in a}, {each.id: each for each in b}
    if of_a.keys() != of_b.keys():
        missing = [f"{len(only)} only in {run} (such as {min(only)!r})" for only, run in _only(of_a, of_b) if only]
        shared = len(of_a.keys() & of_b.keys())
        raise CompareError(f"the files hold different examples: {shared} ids in both, {', '.join(missing)}")
    for key in ("reference", "reference_labels"):
        other = [name for name, each in of_a.items() if getattr(each, key) != getattr(of_b[name], key)]
        if other:
            raise CompareError(f"{len(other)} of {len(a)} ids have another {key} in B (such as {other[0]!r})")
    have = [all(each.hypothesis_labels is not None for each in run) for run in (a, b)]
    if have[0] != have[1]:
        raise CompareError(f"only {'A' if have[0] else 'B'} carries hypothesis_labels in every row; use one labeler")
    return [of_b[each.id] for each in a]


def _only(a: dict[str, Prediction], b: dict[str, Prediction]) -> list[tuple[set[str], str]]:
    return [(a.keys() - b.keys(), "A"), (b.keys() - a.keys(), "B")]


def table(rows: Sequence[Row]) -> str:
    """The rows as text, one figure a line."""
    lines = [("", "A", "B", "B - A", "95 % of it", "p")]
    for row in rows:
        sure = "-" if math.isnan(row.low) else f"[{row.low:+.4f}, {row.high:+.4f}]"
        lines.append((row.name, _cell(row.a), _cell(row.b), _cell(row.difference, "+.4f"), sure, _cell(row.p)))
    widths = [max(len(line[k]) for line in lines) for k in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(width) if k == 0 else cell.rjust(width) for k, (cell, width) in enumerate(each)).rstrip()
        for each in (zip(line, widths, strict=True) for line in lines)
    )


def _cell(value: float, form: str = ".4f") -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"


def _write(target: Path, rows: Sequence[Row], examples: int, args: argparse.Namespace) -> None:
    def plain(value: float) -> float | None:
        return None if math.isnan(value) else value

    figures = {
        row.name: {
            "a": plain(row.a),
            "b": plain(row.b),
            "difference": plain(row.difference),
            "ci95": None if math.isnan(row.low) else [row.low, row.high],
            "p": plain(row.p),
        }
        for row in rows
    }
    head = {"a": str(args.a), "b": str(args.b), "examples": examples, "resamples": args.resamples, "seed": args.seed}
    try:
        target.write_text(json.dumps({**head, "uncertain": args.uncertain, "figures": figures}, indent=2) + "\n")
    except OSError as error:
        raise CompareError(f"{target}: {error.strerror or error}") from error


def _positive(given: str) -> int:
    value = int(given)
    if value < 1:
        raise ValueError(given)
    return value


_positive.__name__ = "whole number above 0"  # what argparse calls it in its message


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 done, 1 something to correct, 130 interrupted."""
    parser = Parser("python -m medvill_jax.metrics.compare", _HELP)
    parser.add_argument("a", metavar="A", type=Path, help="predictions.jsonl of one run")
    parser.add_argument("b", metavar="B", type=Path, help="predictions.jsonl of the other")
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the table here, in full precision")
    parser.add_argument(
        "--uncertain",
        choices=("positive", "negative", "ignore"),
        default="positive",
        help="what an uncertain finding counts as in clinical figures (default: %(default)s)",
    )
    parser.add_argument(
        "--resamples", type=_positive, default=bootstrap.RESAMPLES, help="how many (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resamples, 0 or more (default: %(default)s)")
    parser.add_argument("--no-meteor", action="store_true", help="leave METEOR out; it starts Java twice")
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error("--seed must be 0 or more")
    try:
        a, b = read(args.a), read(args.b)
        rows = compare(
            a, b, uncertain=args.uncertain, meteor=not args.no_meteor, resamples=args.resamples, seed=args.seed
        )
        if args.json:
            _write(args.json, rows, len(a), args)
    except (CompareError, PredictionError, MissingExtra, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        return 130
    print(f"A: {args.a}\nB: {args.b}\n{len(a)} examples, {args.resamples} resamples, seed {args.seed}\n")
    print(table(rows))
    if not args.no_meteor and (missing := text.meteor_missing()):
        print(f"\n{missing}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
