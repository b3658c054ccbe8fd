"""Reads csv tables in every form that programs write, and label files, which are such tables."""

from __future__ import annotations

import codecs
import contextlib
import csv
import functools
import gzip
import io
import itertools
import re
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from data_prep.ids import MISSING, number
from medvill_jax.data.records import DataError
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN

LABEL_VALUES = {1.0: POSITIVE, 0.0: NEGATIVE, -1.0: UNCERTAIN}
# --uncertain -> the value that replaces -1.
UNCERTAIN_AS = {"separate": UNCERTAIN, "positive": POSITIVE, "negative": NEGATIVE, "ignore": ABSENT}
DELIMITERS = (",", ";", "\t", "|")
# Byte order mark -> encoding; of marks that begin alike, the longer is first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = {b"PK\x03\x04": "an Excel workbook or a zip file", b"\xd0\xcf\x11\xe0": "an Excel workbook"}
# A first line that sets the delimiter for Excel.
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
# Names of the column of row numbers that pandas writes.
_ROW_NUMBERS = re.compile(r"(unnamed.*|index|level_\d+)?", re.IGNORECASE)
# Characters; a cell is an id, a path or a report.
_LARGEST_CELL = 1 << 20
_LARGEST_LINE = 4 << 20
_MOST_LINES = 1000  # of one row
_MOST_PACKED = 3


class Cells(dict[str, str]):
    """A row of a table, column -> cell; `fault` says why the cells may be in wrong columns, "" if they are not."""

    fault = ""


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Cells]:
    """The rows of a csv table without blank ones.

    Compression, encoding, delimiter (comma, semicolon, tab or bar) and line ends are found from the content of the
    file, not its name. Case and punctuation of column names do not matter; rows have the names of `columns` and
    `optional`. Bytes that are not text become U+FFFD, which no id has. A cell in quotation marks may hold line breaks;
    a quotation mark that is never closed spoils its row only, not those after it.

    Raises `DataError` if one of `columns` is missing, or the file is damaged or not a table.
    """
    csv.field_size_limit(_LARGEST_CELL)
    try:
        with _text(path) as file:
            lines = deque[str]()
            rest = _lines(file, path)
            header, delimiter = _header(rest, columns, path)
            names = _names(header, (*columns, *optional), path)
            needed = max(names.index(name) for name in columns)
            for cells in _records(lines, rest, delimiter, len(header)):
                if any(cell.strip() for cell in cells):
                    yield _row(cells, names, needed)
    except (EOFError, gzip.BadGzipFile, zlib.error, csv.Error, UnicodeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}): download it again") from error


def _row(cells: list[str], names: list[str], needed: int) -> Cells:
    padded = cells + [""] * (len(names) - len(cells))
    row = Cells({name: cell.strip() for name, cell in zip(names, padded, strict=False) if name})
    if len(cells) <= needed:
        row.fault = f"the row has {len(cells)} cells, the header {len(names)}: it is cut"
    elif any(cell.strip() for cell in cells[len(names) :]):
        row.fault = f"the row has {len(cells)} cells, the header {len(names)}"
    return row


@contextlib.contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """A file as text, decompressed as often as it is compressed, which its name may not tell after a download."""
    with contextlib.ExitStack() as stack:
        data: Any = stack.enter_context(open(path, "rb"))
        for _ in range(_MOST_PACKED):
            if data.peek(2)[:2] == b"\x1f\x8b":
                data = stack.enter_context(io.BufferedReader(gzip.GzipFile(fileobj=data, mode="rb")))  # pyright: ignore
        head = data.peek(1 << 10)
        for mark, what in _NO_TEXT.items():
            if head.startswith(mark):
                raise DataError(f"{path} is {what}, not a csv table: save the table as csv")
        encoding = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
        if encoding is None:
            # In UTF-16, every other byte of Latin letters is zero.
            zeros = [head[start : 1 << 10 : 2].count(0) for start in (0, 1)]
            wide = max(zeros) > len(head) // 4 > 4 * min(zeros)
            encoding = ("utf-16-be", "utf-16-le")[zeros[1] > zeros[0]] if wide else "utf-8"
        yield stack.enter_context(io.TextIOWrapper(data, encoding, errors="replace"))


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file; refuses a line too long for memory, which a small gzip file can hold."""
    while line := file.readline(_LARGEST_LINE):
        if len(line) == _LARGEST_LINE:
            raise DataError(f"{path} is damaged (a line of more than {_LARGEST_LINE} characters): download it again")
        yield line


def _header(lines: Iterator[str], columns: Sequence[str], path: Path) -> tuple[list[str], str]:
    """The names of the columns, and the delimiter: the first that yields all of `columns`."""
    line, delimiters = next((line for line in lines if line.strip()), ""), DELIMITERS
    if (match := _SEPARATOR.fullmatch(line)) is not None:
        line, delimiters = next(lines, ""), (match[1], *DELIMITERS)
    headers = [(_cells(line, delimiter), delimiter) for delimiter in delimiters]
    names_by = {delimiter: {_plain(name) for name in header} for header, delimiter in headers}
    for header, delimiter in headers:
        if all(_plain(name) in names_by[delimiter] for name in columns):
            return header, delimiter
    header, delimiter = max(headers, key=lambda each: len(each[0]))
    missing = ", ".join(name for name in columns if _plain(name) not in names_by[delimiter])
    raise DataError(f"{path} has no column {missing}; it has {', '.join(map(str.strip, header))[:300]}")


def _names(header: list[str], known: Sequence[str], path: Path) -> list[str]:
    """The name of each column in the rows, "" for a column that is left out."""
    names = [name.strip() for name in header]
    for name in known:
        places = [place for place, other in enumerate(names) if _plain(other) == _plain(name)]
        exact_places = [place for place in places if names[place] == name]
        if len(places) > 1 and len(exact_places) != 1:
            raise DataError(f"{path} has the column {name} twice: remove one of them")
        for place in places:
            names[place] = name if [place] in (places, exact_places) else ""
    return ["" if _ROW_NUMBERS.fullmatch(name) else name for name in names]


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _records(ahead: deque[str], lines: Iterator[str], delimiter: str, width: int) -> Iterator[list[str]]:
    """The cells of every row. A row continues on the next lines if these close its quotation mark and complete it."""
    while True:
        line = ahead.popleft() if ahead else next(lines, None)
        if line is None:
            return
        if '"' not in line:
            yield line.rstrip("\n").split(delimiter)
            continue
        cells, text, count = _quoted(line, delimiter), line, 0
        if cells:
            yield cells
            continue
        while cells is None and count < _MOST_LINES and len(text) < _LARGEST_CELL:
            if count == len(ahead):
                if (after := next(lines, None)) is None:
                    break
                ahead.append(after)
            text, count = text + ahead[count], count + 1
            if '"' in ahead[count - 1]:
                cells = _quoted(text, delimiter)
        if cells and len(cells) == width:
            for _ in range(count):
                ahead.popleft()
            yield cells
        else:
            yield _cells(line, delimiter)


def _quoted(text: str, delimiter: str) -> list[str] | None:
    """The cells of a text; None if a quotation mark is not closed, [] if one is at a wrong place."""
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        return None if "unexpected end" in str(error) else []


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def some_rows(path: Path, columns: Sequence[str], first: int = 40, every: int = 5000) -> list[Cells]:
    """A sample of rows for finding a layout: the `first` ones, and then one of `every` rows."""
    rows = read_table(path, columns)
    head = list(itertools.islice(rows, first))
    return head + list(itertools.islice(rows, 0, None, every))


class Labels:
    """A label file: study -> one value per finding of `CHEXPERT_FINDINGS`.

    Raises `DataError` if the file is damaged, or lacks columns or has others.
    """

    def __init__(self, path: Path):
        self._rows: dict[str, tuple[str, tuple[int, ...] | tuple[str, str]]] = {}
        self._disagree: set[str] = set()
        known: dict[Any, Any] = {}
        for count, row in enumerate(read_table(path, ("subject_id", "study_id", *CHEXPERT_FINDINGS))):
            unknown = row.keys() - {"subject_id", "study_id", *CHEXPERT_FINDINGS} if not count else ()
            if unknown:
                raise DataError(f"{path} has columns that are not among the 14 findings: {', '.join(sorted(unknown))}")
            values = ("malformed_row", f"in the label file {row.fault}") if row.fault else _label_row(row)
            study, entry = number(row["study_id"]), (number(row["subject_id"]), known.setdefault(values, values))
            if self._rows.setdefault(study, entry) != entry:
                self._disagree.add(study)

    def of(self, study: str, subject: str) -> tuple[int, ...] | tuple[str, str]:
        """The values of a study, or `(reason, detail)` of a rejection."""
        if study not in self._rows:
            return "no_labels", f"study {study} has no row in the label file"
        if study in self._disagree:
            return "labels_disagree", f"study {study} has several rows in the label file that differ"
        of_subject, values = self._rows[study]
        if of_subject != subject:
            return "tables_disagree", f"study {study} is of subject {of_subject[:20]!r} in the label file"
        return values


@functools.lru_cache(maxsize=256)
def label_value(cell: str) -> int | None:
    """The label in a cell, in any form of a number; None if it is not a label.

    True and false are not labels: false could mean "negative" or "not mentioned".
    """
    text = cell.strip().replace("\u2212", "-").replace(",", ".")
    if text.casefold() in MISSING:
        return ABSENT
    try:
        return LABEL_VALUES.get(float(text)) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def _label_row(row: Cells) -> tuple[int, ...] | tuple[str, str]:
    values = []
    for name in CHEXPERT_FINDINGS:
        value = label_value(row[name])
        if value is None:
            return "bad_label_value", f"{name} is {row[name][:40]!r}"
        values.append(value)
    return tuple(values)


def settle_uncertain(values: tuple[int, ...], how: str) -> tuple[int, ...]:
    """The values with -1 replaced as `UNCERTAIN_AS` says."""
    return tuple(UNCERTAIN_AS[how] if value == UNCERTAIN else value for value in values)
