"""Values of public data sets in our terms: sex, age, view, split and labels."""

from __future__ import annotations

import re
from collections.abc import Iterable

from data_prep import views
from data_prep.sources.table import Source
from data_prep.splits import SPLIT_NAMES
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS, POSITIVE

_SEX = {"f": "F", "female": "F", "m": "M", "male": "M"}
# Years, or DICOM's age string: three digits and a unit.
_AGE = re.compile(r"0*(\d{1,3})(?:\.\d+)?\s*([YMWD]?)", re.IGNORECASE)
_OLDEST = 120


def sex(cell: str) -> str:
    """ "F" or "M"; "" for any other value."""
    return _SEX.get(cell.strip().casefold(), "")


def age(cell: str) -> str:
    """Whole years in decimal digits, "0" for months, weeks and days; "" for what is no age of a person."""
    match = _AGE.fullmatch(cell.strip())
    if match is None:
        return ""
    years = 0 if match[2].upper() in ("M", "W", "D") and match[2] else int(match[1])
    return str(years) if years <= _OLDEST else ""


def view(cell: str) -> str:
    """The usual name of a view, "" if it is unknown."""
    return views.find({"ViewPosition": [cell]}).name


def split(cell: str) -> str:
    """One of our splits; "" for a name that is not known."""
    return SPLIT_NAMES.get(cell.strip().lower(), "")


def labels(source: Source, found: Iterable[str]) -> tuple[int, ...] | str:
    """The labels of the findings that a source lists: positive if listed, not mentioned otherwise.

    A label without counterpart (null in the table) sets none. Returns the first label that is not in the table, if any.
    """
    values: dict[str, int] = dict.fromkeys(CHEXPERT_FINDINGS, ABSENT)
    for name in found:
        if name not in source.labels:
            return name
        for finding in (source.labels[name] or "").split(", "):
            if finding:
                values[finding] = POSITIVE
    return tuple(values.values())
