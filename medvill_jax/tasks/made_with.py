"""What the files of an evaluation were made with: a note beside each of them, so that no other evaluation takes it up.

A note is JSON: the checkpoint (its step, and a checksum of its arrays), the evaluated records (a fingerprint of all
they hold), and whatever else the file depends on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medvill_jax import private


def fits(note: Path, made_with: Mapping[str, Any]) -> bool:
    """Whether a note is there and says the same; one that cannot be read does not."""
    try:
        return json.loads(note.read_text()) == json.loads(json.dumps(made_with))
    except (FileNotFoundError, ValueError):
        return False


def write(note: Path, made_with: Mapping[str, Any]) -> None:
    """Writes a note; whoever reads sees the old one or the new one."""
    private.write(note, json.dumps(made_with, indent=2) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], made_with: Mapping[str, Any]) -> None:
    """Writes a file of JSON lines and its note, `NAME.json` beside `NAME.jsonl`."""
    note = path.with_suffix(".json")
    note.unlink(missing_ok=True)
    private.write(path, "".join(json.dumps(row) + "\n" for row in rows))
    write(note, made_with)
