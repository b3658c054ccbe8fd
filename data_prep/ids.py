"""Identifiers, in the forms that spreadsheets, pandas and JSON give them. What is known of these forms is in tables.

A whole number means itself however it was written: 10000032, "10000032", 10000032.0, "10000032,00", "10,000,032" and
"1.0000032E+07" are one id. A form that hides digits ("1.00E+07") or may mean two numbers ("100.000") stays as it is,
and so do zeros in front: "007" is another id than 7.
"""

from __future__ import annotations

import math
import re
from typing import Any

# What programs write where there is nothing.
MISSING = frozenset({"", "nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat"})
# Around an id: what a spreadsheet is told by, so that it keeps a number as text; and marks that nobody sees.
_WRAPPED = (re.compile(r'=?"([^"]*)"'), re.compile(r"'([^']*)'?"))
_UNSEEN = "\ufeff\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060"
# Forms of a whole number, whose group holds its digits and what parts their thousands.
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
# Of subjects and studies, in the names of their folders.
_LETTERS = ("p", "s", "P", "S")


def identifier(cell: str) -> str:
    """The id that a cell of a table, or a string, stands for; "" where it stands for none."""
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
        after, exponent = match[2], int(match[3])
        if len(after) >= exponent and not after[exponent:].strip("0"):
            return match[1] + after[:exponent]
    return text


def identifier_of(value: Any) -> str | None:
    """The id that a value of JSON stands for; "" where it stands for none, None where it can be no id."""
    if value is None or isinstance(value, str):
        return identifier(value or "")
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) <= _LARGEST_EXACT else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def number(cell: str) -> str:
    """The id that a cell stands for where ids are numbers, with or without a letter: "s50414267" is 50414267."""
    text = identifier(cell)
    if text[:1] in _LETTERS and text[1:2].isdigit():
        text = identifier(text[1:])
    return text.lstrip("0") or text if text.isascii() and text.isdigit() else text
