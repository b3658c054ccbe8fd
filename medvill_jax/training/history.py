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
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return [_line(path, number, line) for number, line in enumerate(lines, 1)]


def _line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or type(row.get("step")) is not int or not all(map(_is_value, row.values())):
        raise HistoryError(f"{path}, line {number}: not a line of metrics; restore the file, or remove this line")
    return row


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, int | float)
