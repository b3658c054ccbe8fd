"""Finds the files of a source and reads their rows under our names of the fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.files import hidden
from data_prep.sources.table import Source
from data_prep.tables import read_table
from medvill_jax.data.records import DataError


class Fields(dict[str, str]):
    """A row, our field -> cell; `fault` says why the cells may be in wrong columns, "" if they are not."""

    fault = ""


def find(source: Source, folder: Path, file: str = "") -> Path:
    """The file of a source in `folder` or a folder in it; "" for the main one. Raises `DataError` if there is none."""
    names = source.files[file or next(iter(source.files))]
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: --source is the folder of your copy of {source.title}")
    for name in names:
        for pattern in (name, f"*/{name}"):
            found = sorted(path for path in folder.glob(pattern) if path.is_file() and not hidden(path.name))
            if found:
                return found[0]
    raise DataError(f"{folder} has no {' or '.join(names)}, as downloaded from {source.page}")


def rows(source: Source, path: Path, file: str = "") -> Iterator[Fields]:
    """The rows of a table. Raises `DataError` with all columns that are missing, or if the table is damaged."""
    fields = source.columns(file)
    needed = [field.column for field in fields.values() if not field.optional]
    optional = [field.column for field in fields.values() if field.optional]
    for cells in read_table(path, needed, optional):
        row = Fields({name: cells.get(field.column, "") for name, field in fields.items()})
        row.fault = cells.fault
        yield row


def named(source: Source, item: Mapping[str, Any], path: Path, file: str = "") -> dict[str, Any]:
    """The fields of an object of a JSON file. Raises `DataError` with all keys that it lacks; `path` is for the error.

    Call it on the first object only if others may lack keys; `None` stands for an optional key that is missing.
    """
    fields = source.columns(file)
    missing = [field.column for field in fields.values() if not field.optional and field.column not in item]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(map(str, item))[:300]}")
    return {name: item.get(field.column) for name, field in fields.items()}


def images(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """File name -> path of all images below a folder; of equal names, the first path in alphabetical order."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes):
        if not hidden(path.name):
            found.setdefault(path.name, path)
    return found
