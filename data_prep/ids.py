"""Identifiers in every form in which spreadsheets, pandas and JSON write them.

All forms of a whole number are one id: 10000032, "10000032", 10000032.0, "10000032,00", "10,000,032" and
"1.0000032E+07". A form that has lost digits ("1.00E+07") or is ambiguous ("100.000") stays as it is. Leading zeros
count: "007" and 7 are two ids.
"""

from __future__ import annotations

import math
import re
from typing import Any

# Spellings of a missing value.
MISSING = frozenset({"", "nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat"})
# Around an id: the signs that make a spreadsheet keep a number as text, and invisible characters.
_WRAPPED = (re.compile(r'=?"([^"]*)"'), re.compile(r"'([^']*)'?"))
_UNSEEN = "\ufeff\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060"
# Forms of a whole number; the group holds its digits and their thousands separators.
_WHOLE = (
    re.compile(r"([0-9]{4,})[.,]0*"),
    re.compile(r"([0-9]{1,3})[.,](?!000$)0*"),
    *(
        re.compile(rf"([0-9]{{1,3}}(?:{mark}[0-9]{{3}}){{2,}})(?:{point}0*)?")
        for mark, point in ((",", r"\."), (r"\.", ","), ("[ \u00a0\u202f'’]", "[.,]"))
    ),
)
_EXPONENT = re.compile(r"([0-9])[.,]([0-9]+)[eE]\+?0*([0-9]{1,2})")
_LARGEST_EXACT = 2.0**53
# First letters of subject and study folders.
_LETTERS = ("p", "s", "P", "S")


def identifier(cell: str) -> str:
    """The id in a table cell or a string; "" for a missing value."""
    if cell.isascii() and cell.isdigit():
        return cell
    text = cell.strip().strip(_UNSEEN).strip()
    for wrapped in _WRAPPED:
        if (match := wrapped.fullmatch(text)) is not None:
            text = match[1].strip()
    if text.casefold() in MISSING:
        return ""
    for form in _WHOLE:
        if (match := form.fullmatch(text)) is not None:
            return "".join(filter(str.isdigit, match[1]))
    if (match := _EXPONENT.fullmatch(text)) is not None:
        decimals, exponent = match[2], int(match[3])
        if len(decimals) >= exponent and not decimals[exponent:].strip("0"):
            return match[1] + decimals[:exponent]
    return text


def identifier_of(value: Any) -> str | None:
    """The id in a JSON value; "" for a missing value, None for a value that cannot be an id."""
    if value is None or isinstance(value, str):
        return identifier(value or "")
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) <= _LARGEST_EXACT else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def number(cell: str) -> str:
    """The id in a cell where ids are numbers with or without a letter: "s50414267" is 50414267."""
    text = identifier(cell)
    if text[:1] in _LETTERS and text[1:2].isdigit():
        text = identifier(text[1:])
    return text.lstrip("0") or text if text.isascii() and text.isdigit() else text
