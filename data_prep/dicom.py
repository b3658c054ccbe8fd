"""Which view a DICOM file shows, by its header; decoding is `medvill_jax.films.dicom`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_prep import views
from medvill_jax.films.dicom import ASPECTS, NORMALIZATIONS, VOI_FUNCTIONS, to_gray

__all__ = ["ASPECTS", "NORMALIZATIONS", "VOI_FUNCTIONS", "to_gray", "view_fields", "view_position"]


def view_position(path: Path) -> str | None:
    """The view of a DICOM file (see `views.find`), "" where it does not tell; None where the file cannot be read."""
    fields = view_fields(path)
    return None if fields is None else views.find(fields).name


def view_fields(path: Path) -> dict[str, list[str]] | None:
    """What `views.FIELDS` say in a DICOM file; None where the file cannot be read."""
    if not path.is_file():
        return None
    try:
        from medvill_jax.films.dicom_file import read

        with open(path, "rb") as file:
            header = read(file, views.FIELDS)
    except Exception:  # bad bytes make pydicom raise nearly anything
        return None
    return {name: _texts(header, name) for name in views.FIELDS}


def _texts(header: Any, name: str) -> list[str]:
    """The values of an element as text; of a sequence, every code and its meaning."""
    try:
        value = header.get(name)
        if header[name].VR == "SQ":
            codes = ("CodeValue", "LongCodeValue", "CodeMeaning")
            return [str(item[code].value) for item in value for code in codes if code in item]
        return [value] if isinstance(value, str) else [str(part) for part in value]
    except Exception:  # absent, empty, or bad bytes: it says nothing
        return []
