"""Predictions: a JSON line for every request, read with all checks, and written one by one.

    {"id": "5f2c...", "findings": {"Edema": 0.81, "Fracture": 0.02}}
    {"id": "5f2c...", "report": "Small left effusion."}
    {"id": "5f2c...", "answer": "yes"}
    {"id": "5f2c...", "error": "why there is no answer"}

Further keys are ignored. A request without a line, or with an error or null, has a missing answer.
"""

from __future__ import annotations

import json
import numbers
import reprlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from medvill_jax import private
from medvill_jax.audit.errors import AuditError

# A report, an answer, or the probability of every finding.
Answer = str | dict[str, float]
# Task -> the key of its answers.
KEYS = {"findings": "findings", "report": "report", "ask": "answer"}


def read(path: Path, ids: Collection[str], task: str, names: Collection[str] = ()) -> dict[str, Answer]:
    """The answers of a file of predictions by the ids of their requests; missing ones are left out.

    Args:
        path: the file.
        ids: of all requests of its condition.
        task: a key of `KEYS`.
        names: the findings that count; others are left out of an answer.

    Raises:
        AuditError: a line of another form, of an unknown request, or of one that was answered before; with its number.
        OSError: the file cannot be read.
    """
    answers: dict[str, Answer] = {}
    lines: dict[str, int] = {}
    known = frozenset(ids)
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = _row(line, where)
        identifier = row.get("id")
        if not isinstance(identifier, str):
            raise AuditError(f'{where}: expected an object like {{"id": "5f2c...", "{KEYS[task]}": ...}}')
        if identifier not in known:
            raise AuditError(
                f"{where}: no request of {path.parent / 'requests.jsonl'} has the id {identifier!r}; is this of other "
                "data, or of another condition?"
            )
        if identifier in lines:
            raise AuditError(f"{where}: the id {identifier!r} was on line {lines[identifier]} already")
        lines[identifier] = number
        if KEYS[task] not in row and row.get("error") is None:
            raise AuditError(f"{where}: neither {KEYS[task]!r} nor 'error' is in the row")
        if _answered(row, task):
            answers[identifier] = checked(row[KEYS[task]], task, where, names)
    return answers


def checked(answer: Any, task: str, where: str, names: Collection[str] = ()) -> Answer:
    """An answer of the right form. Raises `AuditError` for any other, and says `where`."""
    if task != "findings":
        if not isinstance(answer, str):
            raise AuditError(f"{where}: {KEYS[task]!r} is a {type(answer).__name__}, not a text")
        return answer
    if not isinstance(answer, Mapping):
        raise AuditError(f'{where}: "findings" is a {type(answer).__name__}, not an object like {{"Edema": 0.81}}')
    found = {name: answer[name] for name in names if name in answer}
    if not found:
        raise AuditError(f"{where}: none of the findings of the data is named there; they are {', '.join(names)}")
    for name, value in found.items():
        # Compared before it becomes a float, which whole numbers can be too large for.
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not (number and 0 <= cast("float", value) <= 1):
            told = reprlib.repr(value) if number else f"a {type(value).__name__}"
            raise AuditError(f"{where}: {name} is {told}, not a probability from 0 to 1")
    return {name: float(value) for name, value in found.items()}


def unfinished(path: Path, task: str) -> dict[str, bytes]:
    """The whole lines of a file of predictions that have answers, by id; none if there is no file."""
    if not path.is_file():
        return {}
    rows: dict[str, bytes] = {}
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.strip():
            continue
        try:
            row = _row(line, f"{path}, line {number}")
        except AuditError:
            if line.endswith((b"\n", b"\r")):
                raise
            continue  # the last one, of which a part was written
        if isinstance(row.get("id"), str) and _answered(row, task):
            rows[row["id"]] = line.rstrip(b"\r\n") + b"\n"
    return rows


def add(path: Path, kept: Iterable[bytes], told: Iterable[tuple[str, str, Answer | None]], task: str) -> None:
    """Writes a file of predictions anew: lines that are kept, then answers as they come, each at once.

    Args:
        path: the file.
        kept: from `unfinished`.
        told: (id, why there is no answer or "", the answer).
        task: a key of `KEYS`.
    """
    private.write(path, b"".join(kept))
    with open(path, "ab", opener=private.opener) as file:
        for identifier, error, answer in told:
            row = {"id": identifier, **({"error": error} if error else {KEYS[task]: answer})}
            file.write((json.dumps(row, allow_nan=False) + "\n").encode())
            file.flush()  # whatever happens to this program, its lines are whole


def _answered(row: Mapping[str, Any], task: str) -> bool:
    """Whether a row has an answer; an error without words is none."""
    return row.get(KEYS[task]) is not None and not row.get("error")


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise AuditError(f"{where}: not UTF-8 text") from error
    except (RecursionError, ValueError) as error:
        told = f" (column {error.colno}: {error.msg})" if isinstance(error, json.JSONDecodeError) else ""
        raise AuditError(f"{where}: not JSON{told}") from error
    if not isinstance(row, dict):
        raise AuditError(f"{where}: not a JSON object")
    return row
