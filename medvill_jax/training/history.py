"""The metrics of every logged step of a run, `metrics.jsonl`: one JSON object a line, with its `step`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medvill_jax.errors import UserError

METRICS_FILE = "metrics.jsonl"


class HistoryError(UserError):
    """A file of metrics has a damaged line; the message names it."""


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, in its order: `step`, an int, and metrics by name, None where they are undefined.

    An unfinished last line, which a run leaves that is killed while writing, is left out. A file that does not exist
    has no lines.

    Raises:
        HistoryError: a line is something else.
    """
    rows = []
    for number, row in enumerate(objects(path), 1):
        if row is None or type(row.get("step")) is not int or not all(map(_is_value, row.values())):
            raise HistoryError(f"{path}, line {number}: not a line of metrics; restore the file, or remove this line")
        rows.append(row)
    return rows


def objects(path: Path) -> list[dict[str, Any] | None]:
    """The JSON objects of a file's lines, without an unfinished last one; None for a line that holds something else.

    A file that does not exist has no lines.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return [_object(line) for line in lines]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, int | float)
