"""Labels of the 14 CheXpert findings from the text of a chest radiograph report, by rules, offline.

This labeler is neither the CheXpert labeler (Irvin et al., AAAI 2019) nor CheXbert (Smit et al., EMNLP 2020). It shares
no code, phrase list or weights with either, but has their findings and their four values. Its default style agrees with
the CheXpert labeler closely enough to replace it:

    label("Stable cardiomegaly. No effusion.")  ->  {..., "Cardiomegaly": 1, "Pleural Effusion": 0, ...}

    python -m medvill_jax.metrics.clinical --input=reports.jsonl --output=labels.jsonl

Sections that do not describe the image are left out, and the rest is split into sentences and items (`clinical_text`).
Words around a finding state, doubt or deny it (`clinical_rules`). All words and forms are data (`clinical_phrases`,
`clinical_forms`). A finding is positive if any sentence states it, else uncertain if any doubts it, else negative.
"No Finding" is positive if the report has text and neither states nor doubts any finding but devices; findings other
than the 14 count too, such as a granuloma. It is never negative or uncertain.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np

from medvill_jax import private
from medvill_jax.commands import Exit, Parser, command
from medvill_jax.errors import UserError
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN
from medvill_jax.metrics.clinical_rules import OTHER, read
from medvill_jax.metrics.clinical_text import sentences

NO_FINDING, DEVICES = "No Finding", "Support Devices"
# "chexpert" reproduces the known misreadings of the CheXpert labeler; "plain" does not.
Style = Literal["chexpert", "plain"]
STYLES: tuple[Style, ...] = get_args(Style)
# A statement outweighs a doubt, and a doubt a denial.
_WEIGHT = {NEGATIVE: 0, UNCERTAIN: 1, POSITIVE: 2}

_HELP = """\
Labels the 14 CheXpert findings in chest radiograph reports, by rules, without network or GPU. This is medvill_jax's own
labeler, not the CheXpert labeler and not CheXbert.

  python -m medvill_jax.metrics.clinical --input=reports.jsonl --output=labels.jsonl

Every line of the input is one report. Sections such as HISTORY or TECHNIQUE are left out, also in the middle of a line:

  {"id": "s1", "text": "Small left effusion. Possible pneumonia. No pneumothorax."}

Every line of the output is its labels, in the same order: 1 positive, 0 negative, -1 uncertain, null not mentioned:

  {"id": "s1", "labels": {"Atelectasis": null, ..., "Pleural Effusion": 1, "Pneumonia": -1, "Pneumothorax": 0, ...}}

The output appears only once it is complete. Exit status: 0 done, 1 something to correct, said in one line on stderr.
"""


class LabelError(UserError):
    """Something is wrong with the user's file; the message says what, and is shown without a trace."""


def label(text: str | None, *, style: Style = "chexpert") -> dict[str, int | None]:
    """The labels of one report.

    Args:
      text: an English report or sections of one, any Unicode. None and a text without letters mention nothing.
      style: "chexpert" to agree with the labels of the CheXpert labeler, including its known misreadings
        (`clinical_phrases.HABITS`, and organs named without a verdict); "plain" without these.

    Returns:
      Finding -> 1 positive, 0 negative, -1 uncertain, None not mentioned, for all findings in their order.

    Raises:
      TypeError: `text` is neither a string nor None.
      ValueError: an unknown style.
    """
    labels = _labels(text, style)
    return {name: None if (value := labels.get(name, ABSENT)) == ABSENT else value for name in CHEXPERT_FINDINGS}


def label_batch(texts: Iterable[str | None], *, style: Style = "chexpert") -> np.ndarray:
    """The labels of many reports, by `label`; arguments and errors as there.

    Returns:
      int8 `[N, 14]`, columns as `CHEXPERT_FINDINGS`: 1 positive, 0 negative, -1 uncertain, -2 not mentioned.
    """
    rows = [
        [labels.get(name, ABSENT) for name in CHEXPERT_FINDINGS] for labels in (_labels(text, style) for text in texts)
    ]
    return np.array(rows, np.int8).reshape(-1, len(CHEXPERT_FINDINGS))


def _labels(text: str | None, style: Style) -> dict[str, int]:
    if not isinstance(text, str | None):
        raise TypeError(f"a report is a string or None, not {type(text).__name__}")
    if style not in STYLES:
        raise ValueError(f"style={style!r}; there are {', '.join(STYLES)}")
    labels: dict[str, int] = {}
    empty = True
    for sentence in sentences(text or ""):
        empty = empty and not any(map(str.isalpha, sentence))
        for name, value in read(sentence, style == "chexpert"):
            if name not in labels or _WEIGHT[value] > _WEIGHT[labels[name]]:
                labels[name] = value
    if not empty and all(value == NEGATIVE or name == DEVICES for name, value in labels.items()):
        labels[NO_FINDING] = POSITIVE
    labels.pop(OTHER, None)
    return labels


def label_file(source: Path, target: Path, *, style: Style = "chexpert") -> int:
    """Labels a `.jsonl` of `{"id": str or int, "text": str or null}` into one of `{"id", "labels"}`; see `--help`.

    Reads and writes row by row. `target` is replaced only once all rows are written, and may be `source` itself.

    Returns:
      The number of rows.

    Raises:
      LabelError: a file that cannot be read or written, or a row of another form, with its line.
    """
    if target.is_dir():
        raise LabelError(f"{target}: is a folder, not a file to write")
    try:
        with source.open("rb") as lines, private.replaced(target) as part, part.open("w", encoding="utf-8") as out:
            count = 0
            for identifier, text in _rows(lines, str(source)):
                out.write(json.dumps({"id": identifier, "labels": label(text, style=style)}) + "\n")
                count += 1
    except OSError as error:
        raise LabelError(f"{error.filename or source}: {error.strerror or error}") from error
    return count


def _rows(lines: IO[bytes], where: str) -> Iterator[tuple[str | int, str | None]]:
    from tqdm import tqdm

    size = os.fstat(lines.fileno()).st_size
    with tqdm(total=size, unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        for number, line in enumerate(lines, 1):
            bar.update(len(line))
            if line.strip():
                yield _row(line, f"{where}, line {number}")


def _row(line: bytes, where: str) -> tuple[str | int, str | None]:
    try:
        row: Any = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise LabelError(f"{where}: not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise LabelError(f"{where}: not JSON (column {error.colno}: {error.msg})") from error
    except (RecursionError, ValueError) as error:
        raise LabelError(f"{where}: JSON that cannot be read ({type(error).__name__})") from error
    if not isinstance(row, dict):
        raise LabelError(f'{where}: expected an object like {{"id": "s1", "text": "..."}}')
    missing = [key for key in ("id", "text") if key not in row]
    if missing:
        raise LabelError(f"{where}: no {' and no '.join(missing)} in the row")
    if not isinstance(row["id"], str | int) or isinstance(row["id"], bool):
        raise LabelError(f"{where}: id must be a string or a whole number")
    if not isinstance(row["text"], str | None):
        raise LabelError(f"{where}: text must be a string or null")
    return row["id"], row["text"]


@command(interrupted="nothing was written")
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 done, 1 something to correct, 130 interrupted."""
    parser = Parser("python -m medvill_jax.metrics.clinical", _HELP, status=Exit.ERROR)
    parser.add_argument("--input", type=Path, required=True, help=".jsonl with one report per line: id, text")
    parser.add_argument("--output", type=Path, required=True, help=".jsonl to write, one row of labels per report")
    parser.add_argument(
        "--style",
        choices=STYLES,
        default="chexpert",
        help="chexpert: agree with the CheXpert labeler, including its known misreadings; "
        "plain: without these (default: %(default)s)",
    )
    private.add_flag(parser)
    args = parser.parse_args(argv)
    with private.files(args.shared):
        count = label_file(args.input, args.output, style=args.style)
    print(f"{count} reports labelled: {args.output}")
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
