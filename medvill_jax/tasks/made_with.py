"""Notes of what the files of an evaluation were made with, so that no other evaluation continues them.

A note is a JSON file next to the file: the checkpoint (its step, and a checksum of its arrays), the evaluated records
(a fingerprint of their contents), and whatever else the file depends on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medvill_jax import private

# Of the answers to single examples, of every task.
PREDICTIONS_FILE = "predictions.jsonl"


def fits(note: Path, made_with: Mapping[str, Any]) -> bool:
    """Whether a note exists and says the same; one that cannot be read does not."""
    try:
        return json.loads(note.read_text()) == json.loads(json.dumps(made_with))
    except (FileNotFoundError, ValueError):
        return False


def write(note: Path, made_with: Mapping[str, Any]) -> None:
    """Writes a note; readers see the old one or the new one, never a part."""
    private.write(note, json.dumps(made_with, indent=2) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], made_with: Mapping[str, Any]) -> None:
    """Writes a file of JSON lines and its note, `NAME.json` next to `NAME.jsonl`."""
    note = path.with_suffix(".json")
    note.unlink(missing_ok=True)
    private.write(path, "".join(json.dumps(row) + "\n" for row in rows))
    write(note, made_with)
