"""The csv tables of a source, plain or gzipped, and the label files among them."""

from __future__ import annotations

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from medvill_jax.data.records import ABSENT, CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN, DataError

LABEL_VALUES = {"1": POSITIVE, "0": NEGATIVE, "-1": UNCERTAIN}
# What --uncertain makes of -1.
UNCERTAIN_AS = {"separate": UNCERTAIN, "positive": POSITIVE, "negative": NEGATIVE, "ignore": ABSENT}
# A cell is an id, a path or a report; nobody types more.
_LARGEST_CELL = 1 << 20
_LARGEST_LINE = 4 << 20


def read_table(path: Path, columns: Sequence[str], multiline: bool = False) -> Iterator[dict[str, str]]:
    """The rows of a `.csv` or `.csv.gz`, blank lines left out.

    Bytes that are no UTF-8 become U+FFFD, which no id has. A cell may hold line breaks only with `multiline`: without,
    a stray quotation mark spoils one row instead of swallowing those after it.

    Raises `DataError` if columns are missing, or the file is damaged.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    csv.field_size_limit(_LARGEST_CELL)
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="" if multiline else None) as file:
            typed = _lines(file, path)
            lines: Iterator[list[str]] = csv.reader(typed) if multiline else (_cells(line) for line in typed)
            header = [name.strip() for name in next(lines, [])]
            missing = [name for name in columns if name not in header]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(header)[:300]}")
            for cells in lines:
                if any(cells):
                    cells += [""] * (len(header) - len(cells))
                    yield {name: cell.strip() for name, cell in zip(header, cells, strict=False) if name}
    except (EOFError, gzip.BadGzipFile, zlib.error, csv.Error) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}): download it again") from error


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file; a gzipped one may hold one that no memory does."""
    while line := file.readline(_LARGEST_LINE):
        if len(line) == _LARGEST_LINE:
            raise DataError(f"{path} is damaged (a line of more than {_LARGEST_LINE} characters): download it again")
        yield line


def _cells(line: str) -> list[str]:
    if '"' not in line:
        return line.rstrip("\n").split(",")
    return next(csv.reader([line]), [])


def some_rows(path: Path, columns: Sequence[str], first: int = 40, every: int = 5000) -> list[dict[str, str]]:
    """A few rows to try a layout on: the first ones, and some of all places."""
    rows = read_table(path, columns)
    head = list(itertools.islice(rows, first))
    return head + list(itertools.islice(rows, 0, None, every))


class Labels:
    """One label file: study -> one value per `CHEXPERT_FINDINGS`.

    `DataError` if the file is damaged, or has other columns.
    """

    def __init__(self, path: Path):
        self._rows: dict[str, tuple[str, tuple[int, ...] | str]] = {}
        self._disagree: set[str] = set()
        known: dict[tuple[int, ...], tuple[int, ...]] = {}
        for number, row in enumerate(read_table(path, ("subject_id", "study_id", *CHEXPERT_FINDINGS))):
            unknown = row.keys() - {"subject_id", "study_id", *CHEXPERT_FINDINGS} if not number else ()
            if unknown:
                raise DataError(f"{path} has columns that are none of the 14 findings: {', '.join(sorted(unknown))}")
            values = _label_row(row)
            # A few thousand different rows of labels serve all studies.
            values = values if isinstance(values, str) else known.setdefault(values, values)
            there = self._rows.setdefault(row["study_id"], (row["subject_id"], values))
            if there != (row["subject_id"], values):
                self._disagree.add(row["study_id"])

    def of(self, study: str, subject: str) -> tuple[int, ...] | tuple[str, str]:
        """The values, or `(reason, detail)` of a rejection."""
        if study not in self._rows:
            return "no_labels", f"study {study} has no row in the label file"
        if study in self._disagree:
            return "labels_disagree", f"study {study} has several rows in the label file that differ"
        of_subject, values = self._rows[study]
        if of_subject != subject:
            return "tables_disagree", f"study {study} is of subject {of_subject[:20]!r} in the label file"
        if isinstance(values, str):
            return "bad_label_value", values
        return values


def _label_row(row: dict[str, str]) -> tuple[int, ...] | str:
    values = []
    for name in CHEXPERT_FINDINGS:
        cell = row[name]
        value = ABSENT if not cell else LABEL_VALUES.get(cell.removesuffix(".0"))
        if value is None:
            return f"{name} is {cell[:40]!r}"
        values.append(value)
    return tuple(values)


def settle_uncertain(values: tuple[int, ...], how: str) -> tuple[int, ...]:
    """The values with -1 replaced as `UNCERTAIN_AS` says."""
    return tuple(UNCERTAIN_AS[how] if value == UNCERTAIN else value for value in values)
