"""The file of generated reports, with one row per example: written during generation, read for scoring.

    {"id": "s1", "reference": "Small left effusion.", "hypothesis": "left pleural effusion .", "log_prob": -4.2,
     "reference_labels": {"Pleural Effusion": 1}, "hypothesis_labels": {"Pleural Effusion": 1}, "subject": 0}

`subject` is a whole number, the same for all examples of a patient, but not an identifier of the patient; intervals
resample subjects if every row has one. `log_prob` is the sum of the natural log-probabilities of the tokens of the
hypothesis, including the closing [SEP]. Labels are 1 positive, 0 negative, -1 uncertain; a finding that is missing or
null is not mentioned. All but the first three keys may be null or missing; further keys are ignored.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvill_jax import private
from medvill_jax.errors import UserError
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN


class PredictionError(UserError):
    """Something is wrong with a prediction file; the message says what and where, and is shown without a trace."""


@dataclass(frozen=True)
class Prediction:
    """A generated report (hypothesis) and its reference; labels are 14 values as a row of `clinical.label_batch`."""

    id: str
    reference: str
    hypothesis: str
    log_prob: float | None = None
    reference_labels: tuple[int, ...] | None = None
    hypothesis_labels: tuple[int, ...] | None = None
    subject: int | None = None


def read(path: str | Path) -> list[Prediction]:
    """All rows of a prediction file, in its order.

    An incomplete last line, which a run leaves that is killed while writing, is left out.

    Raises:
      PredictionError: no such file, no row in it, a row of another form (with its line), or an id twice.
    """
    path = Path(path)
    rows, _ = _load(path)
    if not rows:
        raise PredictionError(f"{path}: holds no prediction")
    return rows


class Writer:
    """Writes rows one at a time, and continues the file of an interrupted run:

        with Writer(path) as out:
            for example in examples:
                if example.id not in out.done:
                    out.write(Prediction(...))

    `write` returns once the operating system has the row. Only one writer may use a file at a time.

    Attributes:
      done: the ids of the rows in the file.

    Raises:
      PredictionError: a file that cannot be written, or one with a damaged row; an incomplete last line is removed
        instead.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        rows, size = _load(self.path) if self.path.exists() else ([], 0)
        self.done: set[str] = {row.id for row in rows}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab", opener=private.opener)  # noqa: SIM115
            self._file.truncate(size)
            if rows and self.path.read_bytes()[size - 1 : size] != b"\n":
                self._file.write(b"\n")
                self._file.flush()
        except OSError as error:
            raise PredictionError(f"{self.path}: {error.strerror or error}") from error

    def write(self, row: Prediction) -> None:
        """Appends a row.

        Raises:
          PredictionError: the file has a row of this id, or cannot be written.
          ValueError: labels that are not 14 of 1, 0, -1, -2; a log-probability that is not finite.
        """
        if row.id in self.done:
            raise PredictionError(f"{self.path}: {row.id!r} is there already")
        if row.log_prob is not None and not math.isfinite(row.log_prob):
            raise ValueError(f"{row.id!r}: log_prob is {row.log_prob}")
        fields = {
            "id": row.id,
            "reference": row.reference,
            "hypothesis": row.hypothesis,
            "log_prob": None if row.log_prob is None else float(row.log_prob),
            "reference_labels": _named(row.reference_labels, row.id),
            "hypothesis_labels": _named(row.hypothesis_labels, row.id),
            "subject": row.subject,
        }
        try:
            self._file.write(json.dumps(fields).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise PredictionError(f"{self.path}: {error.strerror or error}") from error
        self.done.add(row.id)

    def close(self) -> None:
        """Closes the file, with all rows flushed to disk."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _named(labels: Sequence[int] | None, identifier: str) -> dict[str, int] | None:
    if labels is None:
        return None
    values = [int(value) for value in labels]
    if len(values) != len(CHEXPERT_FINDINGS) or not set(values) <= {POSITIVE, NEGATIVE, UNCERTAIN, ABSENT}:
        raise ValueError(f"{identifier!r}: labels {values}; expected {len(CHEXPERT_FINDINGS)} of 1, 0, -1 and -2")
    return {name: value for name, value in zip(CHEXPERT_FINDINGS, values, strict=True) if value != ABSENT}


def _load(path: Path) -> tuple[list[Prediction], int]:
    """The rows, and their size in bytes: less than that of the file if its last line is incomplete."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PredictionError(f"{path}: {error.strerror or error}") from error
    rows: list[Prediction] = []
    lines: dict[str, int] = {}
    size = 0
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        if line.strip():
            try:
                row = _row(line)
            except PredictionError as error:
                if not line.endswith((b"\n", b"\r")) and size + len(line) == len(data):
                    break
                raise PredictionError(f"{path}, line {number}: {error}") from error
            if row.id in lines:
                raise PredictionError(f"{path}, line {number}: the id {row.id!r} was on line {lines[row.id]} already")
            lines[row.id] = number
            rows.append(row)
        size += len(line)
    return rows, size


def _row(line: bytes) -> Prediction:
    try:
        row: Any = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PredictionError("not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise PredictionError(f"not JSON (column {error.colno}: {error.msg})") from error
    except (RecursionError, ValueError) as error:
        raise PredictionError(f"JSON that cannot be read ({type(error).__name__})") from error
    if not isinstance(row, dict):
        raise PredictionError('expected an object like {"id": "s1", "reference": "...", "hypothesis": "..."}')
    if missing := [key for key in ("id", "reference", "hypothesis") if key not in row]:
        raise PredictionError(f"no {' and no '.join(missing)} in the row")
    identifier = row["id"]
    if not isinstance(identifier, str | int) or isinstance(identifier, bool):
        raise PredictionError("id must be a string or a whole number")
    for key in ("reference", "hypothesis"):
        if not isinstance(row[key], str):
            raise PredictionError(f"{key} must be a string")
    log_prob = row.get("log_prob")
    if log_prob is not None and (not _is_number(log_prob) or not math.isfinite(log_prob)):
        raise PredictionError("log_prob must be a finite number or null")
    subject = row.get("subject")
    if subject is not None and (not isinstance(subject, int) or isinstance(subject, bool)):
        raise PredictionError("subject must be a whole number or null")
    return Prediction(
        id=str(identifier),
        reference=row["reference"],
        hypothesis=row["hypothesis"],
        log_prob=None if log_prob is None else float(log_prob),
        reference_labels=_labels(row, "reference_labels"),
        hypothesis_labels=_labels(row, "hypothesis_labels"),
        subject=subject,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _labels(row: dict[str, Any], key: str) -> tuple[int, ...] | None:
    named = row.get(key)
    if named is None:
        return None
    if not isinstance(named, dict):
        raise PredictionError(f'{key} must be an object like {{"Edema": 1}}, or null')
    if unknown := sorted(named.keys() - set(CHEXPERT_FINDINGS)):
        raise PredictionError(f"{key} names {unknown[0]!r}, which is not one of the 14 findings")
    for name, value in named.items():
        if value is not None and (isinstance(value, bool) or value not in (POSITIVE, NEGATIVE, UNCERTAIN)):
            raise PredictionError(f"{key}: {name} is {value!r}; expected 1, 0, -1 or null")
    return tuple(ABSENT if (value := named.get(name)) is None else int(value) for name in CHEXPERT_FINDINGS)
