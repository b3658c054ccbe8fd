"""The table of sources, `fields.json`: what each is, which files and columns are read, and where these are documented.

A source is an object with

* `title`, `page` (official), `licence`, `language` (of its texts, ISO 639-1; "" without texts);
* `files`: key -> the names that the file may have, as patterns; the first key is the main file;
* `fields`: our field -> `column` (its name in the file), `cited` (the official page that names this column, or null if
  none was found), and if needed `file` (not the main one), `optional` (may be missing) and `note`;
* `labels`: label of the source -> finding of CheXpert, several with ", " between them, or null for none.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvill_jax.data.records import DataError
from medvill_jax.findings import CHEXPERT_FINDINGS

TABLE_FILE = Path(__file__).with_name("fields.json")


@dataclass(frozen=True)
class Field:
    """One of our fields in a source: its column, and the page that documents it, "" if none was found."""

    column: str
    file: str
    cited: str = ""
    optional: bool = False
    note: str = ""


@dataclass(frozen=True)
class Source:
    """One source of the table."""

    name: str
    title: str
    page: str
    licence: str
    language: str
    files: dict[str, tuple[str, ...]]
    fields: dict[str, Field]
    labels: dict[str, str | None]

    def columns(self, file: str = "") -> dict[str, Field]:
        """The fields that are read from a file of the source; "" for the main one."""
        file = file or next(iter(self.files))
        return {name: field for name, field in self.fields.items() if field.file == file}

    @property
    def unverified(self) -> tuple[str, ...]:
        """The fields whose column no official page names."""
        return tuple(name for name, field in self.fields.items() if not field.cited)


@functools.cache
def sources() -> dict[str, Source]:
    """Every source of the table, by name. Raises `ValueError` if the table is not as described above."""
    return {name: _source(name, entry) for name, entry in json.loads(TABLE_FILE.read_text("utf-8")).items()}


def accepted(name: str, accept_unverified: bool) -> Source:
    """A source whose mappings are all verified, or accepted as they are.

    Raises `DataError` with the mappings that no official page confirms.
    """
    source = sources()[name]
    if source.unverified and not accept_unverified:
        named = ", ".join(f"{field} = {source.fields[field].column!r}" for field in source.unverified)
        raise DataError(
            f"no official page of {source.title} was found that names these columns: {named}; compare them with your "
            "copy, then give --accept_unverified"
        )
    return source


def _source(name: str, entry: dict[str, Any]) -> Source:
    files = {key: tuple(names) for key, names in entry["files"].items()}
    main = next(iter(files))
    fields = {
        field: Field(**{"file": main, **value, "cited": value["cited"] or ""})
        for field, value in entry["fields"].items()
    }
    labels = entry.get("labels", {})
    if unknown := {field.file for field in fields.values()} - files.keys():
        raise ValueError(f"{name}: no file {', '.join(sorted(unknown))} in {TABLE_FILE.name}")
    findings = {finding for value in labels.values() if value for finding in value.split(", ")}
    if unknown := findings - set(CHEXPERT_FINDINGS):
        raise ValueError(f"{name}: no finding {', '.join(sorted(unknown))} in {TABLE_FILE.name}")
    texts = {key: entry[key] for key in ("title", "page", "licence", "language")}
    return Source(name=name, **texts, files=files, fields=fields, labels=labels)
