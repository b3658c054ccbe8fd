"""Compares the generated reports of runs with those of a first run, on the same examples."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvill_jax import private
from medvill_jax.commands import Exit, Parser, command
from medvill_jax.errors import UserError
from medvill_jax.metrics import bootstrap, clinical, text
from medvill_jax.metrics.label_f1 import Uncertain
from medvill_jax.metrics.predictions import Prediction, read
from medvill_jax.metrics.report_scores import Labeler, metric_groups, subjects

_HELP = """\
Compares generated reports with those of a first run, on the same examples: the metrics of both, their difference, its
interval and p value.

  python -m medvill_jax.metrics.compare A/predictions.jsonl B/predictions.jsonl [C/predictions.jsonl ...]

Every line of each file is one example. All files have the same ids, in any order:

  {"id": "s1", "reference": "Small left effusion.", "hypothesis": "left pleural effusion ."}

How to read the table:
  A, B         the metrics of the two runs; higher is better. From 0 to 1, but cider from 0 to 10
  B - A        the difference
  95 % of it   its 95 % interval by the paired bootstrap, which resamples patients, or examples if the files do not say
               which examples are of one patient. An interval without 0: the runs differ beyond the choice of examples
  p            how often a difference this large arises when the runs' answers are swapped at random (two-sided),
               together for all examples of a patient. Choose one metric beforehand: of twenty metrics one has p below
               0.05 by chance
  p, Holm      with several runs: p corrected for the number of runs compared with A, for each metric by itself (Holm
               1979). Judge by this one
  bleuN_upstream compares cased with lower-cased text, as the released MedViLL code does, so even perfect reports stay
  far below 1. meteor needs Java, is left out without it, and has no interval.

The interval is about these two runs on other examples; it does not include the variation between training seeds.
Clinical metrics use the labels in the rows (reference_labels, hypothesis_labels) if every row has them, else
medvill_jax's rule-based labeler.

Exit status: 0 done, 1 something to correct, said in one line on stderr.
"""


class CompareError(UserError):
    """The files do not belong together; the message says why, and is shown without a trace."""


@dataclass(frozen=True)
class Row:
    """One metric of the first run (a) and of another run (b).

    `run` numbers the other runs from 1. `p_holm` is `p` corrected for the number of other runs. The last four are NaN
    for a metric that cannot be resampled.
    """

    run: int
    name: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


def compare(
    a: Sequence[Prediction],
    *others: Sequence[Prediction],
    labeler: Labeler | None = clinical.label_batch,
    uncertain: Uncertain = "positive",
    meteor: bool = True,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> list[Row]:
    """Every metric of `report_scores.score` in a first run and in each of the others; arguments as there.

    Returns:
      One row for each other run and metric, sorted by run, with the difference b - a, its 95 % interval (paired
      bootstrap), p (two-sided approximate randomisation) and p corrected for the number of other runs. Both resample
      `subjects_of` the runs.

    Raises:
      CompareError: other ids, another reference, reference label or subject for the same id.
      PredictionError, MissingExtra: as in `report_scores.score`.
    """
    runs = aligned(a, *others)
    rows_of: list[list[Row]] = [[] for _ in others]
    options: dict[str, Any] = {"clusters": subjects_of(runs), "resamples": resamples, "seed": seed}
    groups_of_a, *groups_of_others = (metric_groups(run, labeler=labeler, uncertain=uncertain) for run in runs)
    for group_a, *groups_b in zip(groups_of_a, *groups_of_others, strict=True):
        results = [bootstrap.paired(group_a.rows, group.rows, group_a.statistic, **options) for group in groups_b]
        corrected = bootstrap.holm(np.stack([result.p for result in results], -1))  # [K, others]
        for run, (group_b, result) in enumerate(zip(groups_b, results, strict=True)):
            columns = (result.difference, result.low, result.high, result.p, corrected[:, run])
            values = group_a.values().values(), group_b.values().values()
            rows = zip(group_a.names, *values, *(column.tolist() for column in columns), strict=True)
            rows_of[run] += [Row(run + 1, *row) for row in rows]
    if meteor and text.meteor_missing() is None:
        references = [example.reference for example in a]
        first, *rest = (text.meteor(references, [example.hypothesis for example in run]) for run in runs)
        for run, value in enumerate(rest):
            rows_of[run].append(Row(run + 1, "meteor", first, value, value - first, *[math.nan] * 4))
    return [row for rows in rows_of for row in rows]


def aligned(a: Sequence[Prediction], *others: Sequence[Prediction]) -> list[Sequence[Prediction]]:
    """All runs in the order of the first; `CompareError` if they are not of the same examples."""
    return [a, *(_in_order_of(a, b, _letter(run)) for run, b in enumerate(others, 1))]


def subjects_of(runs: Sequence[Sequence[Prediction]]) -> list[int] | None:
    """The subject of each example, from any of the `aligned` runs that has one in every row; None if no run has.

    Raises:
      CompareError: runs that group the examples into different subjects. How they number these does not matter.
    """
    known = [of_run for run in runs if (of_run := subjects(run)) is not None]
    # `numbered` gives the same numbers to the same grouping.
    if len({tuple(bootstrap.numbered(of_run, len(of_run)).tolist()) for of_run in known}) > 1:
        raise CompareError("the files say differently which examples are of one subject; write them from the same data")
    return known[0] if known else None


def _letter(run: int) -> str:
    return chr(ord("A") + run)


def _in_order_of(a: Sequence[Prediction], b: Sequence[Prediction], letter: str) -> list[Prediction]:
    """The rows of b in the order of a."""
    of_a, of_b = {example.id: example for example in a}, {example.id: example for example in b}
    if of_a.keys() != of_b.keys():
        sides = ((of_a.keys() - of_b.keys(), "A"), (of_b.keys() - of_a.keys(), letter))
        missing = [f"{len(only)} only in {run} (such as {min(only)!r})" for only, run in sides if only]
        shared = len(of_a.keys() & of_b.keys())
        raise CompareError(f"the files hold different examples: {shared} ids in both, {', '.join(missing)}")
    for key in ("reference", "reference_labels"):
        other = [name for name, example in of_a.items() if getattr(example, key) != getattr(of_b[name], key)]
        if other:
            raise CompareError(f"{len(other)} of {len(a)} ids have another {key} in {letter} (such as {other[0]!r})")
    have = [all(example.hypothesis_labels is not None for example in run) for run in (a, b)]
    if have[0] != have[1]:
        raise CompareError(f"only {'A' if have[0] else letter} carries hypothesis_labels in every row; use one labeler")
    return [of_b[example.id] for example in a]


def table(rows: Sequence[Row]) -> str:
    """The rows as text, one metric a line, in one block for each run that is compared with the first."""
    runs = sorted({row.run for row in rows})
    return "\n\n".join(_block([row for row in rows if row.run == run], several=len(runs) > 1) for run in runs)


def _block(rows: Sequence[Row], *, several: bool) -> str:
    letter = _letter(rows[0].run)
    lines = [("", "A", letter, f"{letter} - A", "95 % of it", "p", "p, Holm")]
    for row in rows:
        interval = "-" if math.isnan(row.low) else f"[{row.low:+.4f}, {row.high:+.4f}]"
        cells = (_cell(row.a), _cell(row.b), _cell(row.difference, "+.4f"), interval, _cell(row.p), _cell(row.p_holm))
        lines.append((row.name, *cells))
    # The correction for a single comparison changes nothing.
    lines = [line if several else line[:-1] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(value: float, form: str = ".4f") -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"


def _write(target: Path, rows: Sequence[Row], head: dict[str, object], paths: Sequence[Path]) -> None:
    def plain(value: float) -> float | None:
        return None if math.isnan(value) else value

    comparisons = [
        {
            "b": str(path),
            "figures": {
                row.name: {
                    "a": plain(row.a),
                    "b": plain(row.b),
                    "difference": plain(row.difference),
                    "ci95": None if math.isnan(row.low) else [row.low, row.high],
                    "p": plain(row.p),
                    "p_holm": plain(row.p_holm),
                }
                for row in rows
                if row.run == run
            },
        }
        for run, path in enumerate(paths, 1)
    ]
    try:
        private.write(target, json.dumps({**head, "comparisons": comparisons}, indent=2) + "\n")
    except OSError as error:
        raise CompareError(f"{target}: {error.strerror or error}") from error


def _positive(argument: str) -> int:
    value = int(argument)
    if value < 1:
        raise ValueError(argument)
    return value


_positive.__name__ = "whole number above 0"  # what argparse calls it in its message


@command(interrupted="nothing was written")
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 done, 1 something to correct, 130 interrupted."""
    parser = Parser("python -m medvill_jax.metrics.compare", _HELP, status=Exit.ERROR)
    parser.add_argument("a", metavar="A", type=Path, help="predictions.jsonl of one run")
    parser.add_argument("others", metavar="B", type=Path, nargs="+", help="those of the runs to compare with it")
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the table here, in full precision")
    parser.add_argument(
        "--uncertain",
        choices=("positive", "negative", "ignore"),
        default="positive",
        help="what an uncertain finding counts as in clinical metrics (default: %(default)s)",
    )
    parser.add_argument(
        "--resamples", type=_positive, default=bootstrap.RESAMPLES, help="how many (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resamples, 0 or more (default: %(default)s)")
    parser.add_argument("--no-meteor", action="store_true", help="leave METEOR out; it starts Java for each run")
    private.add_flag(parser)
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error("--seed must be 0 or more")
    runs = aligned(*(read(path) for path in (args.a, *args.others)))
    options = {"uncertain": args.uncertain, "resamples": args.resamples, "seed": args.seed}
    rows = compare(*runs, meteor=not args.no_meteor, **options)
    drawn = bootstrap.resampled(subjects_of(runs), len(runs[0]))
    if args.json:
        with private.files(args.shared):
            _write(args.json, rows, {"a": str(args.a), "examples": len(runs[0]), **drawn, **options}, args.others)
    print("\n".join(f"{_letter(run)}: {path}" for run, path in enumerate((args.a, *args.others))))
    print(f"{len(runs[0])} examples, {args.resamples} resamples, seed {args.seed}")
    print(f"{bootstrap.resampled_words(drawn)}\n")
    print(table(rows))
    if not args.no_meteor and (missing := text.meteor_missing()):
        print(f"\n{missing}")
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
