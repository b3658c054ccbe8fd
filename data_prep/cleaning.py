"""Text cleaning: what is taken out of a section before a model reads it. `clean_text` states the rules."""

from __future__ import annotations

import re
import unicodedata

# "1." or "2)" at the start of a line, or after the end of a sentence and before a capital.
_ENUMERATOR = re.compile(
    r"^[^\S\n]*(?P<line>\d{1,2})[.)][^\S\n]+(?=\S)|(?<=[.;!?])[^\S\n]+(?P<within>\d{1,2})[.)][^\S\n]+(?=[A-Z_\[])",
    re.MULTILINE,
)
# What stands for a word that was taken out of a report, one form a line: MIMIC-CXR's, MIMIC-III's, Open-I's. The last
# is often part of a word (x-XXXX, XXXX-year-old, XXXX's, 60XXXX), of which nothing is left then.
MARKS = (
    r"_{2,}",
    r"\[\*\*[^\]]{0,200}\*\*\]",
    r"/?(?<![\w'’-])(?:[\w'’]+-+)*\w*?[Xx]{4,}\w*(?:['’-]+\w+)*-*/?",
)
# Whole or not at all: no part of one is tried on its own.
MARK = re.compile(rf"(?>{'|'.join(MARKS)})")
_PUNCTUATED_MARK = re.compile(rf"(?:(?<=[.,;:])|\A)\s*{MARK.pattern}\s*[.,;:]")
_BRACKETED_MARK = re.compile(rf"\[\s*(?:{MARK.pattern}[\s,;:.]*)+\]")
# An empty box stays: "[ ] Edema" ticks nothing off, and without it would say that there is edema.
_EMPTY_BRACKETS = re.compile(r"\(\s*[,;:.\s]*\)|<\s*>")
_SPACE_BEFORE = re.compile(r"(?<!\[)\s+([,;:.!?)\]]\.?(?:\s|$))")
MARK_RULES = ("drop", "keep")


def clean_text(text: str, marks: str = "drop") -> str:
    """One line of plain text in its original case.

    * List numbers (`1.`, `2)`) at line starts and between sentences go, as long as they count up from 1; other numbers
      stay.
    * De-identification marks (`MARKS`: `___`, `[** ... **]`, `XXXX`) go, and with them brackets left empty and stray
      spaces before punctuation; boxes (`[ ]`) stay. With `marks="keep"` they stay, unless there is nothing else.
    * Control characters go; every run of white space becomes one space; a text without any letter or digit becomes "".
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    expected = 1
    pieces, end = [], 0
    for match in _ENUMERATOR.finditer(text):
        if int(match["line"] or match["within"]) == expected and (match["line"] or expected > 1):
            pieces += [text[end : match.start()], " " if match["within"] else ""]
            end, expected = match.end(), expected + 1
    kept = _tidy("".join(pieces) + text[end:])
    without = _tidy(MARK.sub(" ", _PUNCTUATED_MARK.sub("", _BRACKETED_MARK.sub(" ", kept))))
    return kept if without and marks == "keep" else without


def _tidy(text: str) -> str:
    if not text.replace("\n", " ").replace("\t", " ").isprintable():
        text = "".join(c if c.isspace() or unicodedata.category(c)[0] != "C" else "" for c in text)
    text = _EMPTY_BRACKETS.sub(" ", text)
    text = _SPACE_BEFORE.sub(r"\1", " ".join(text.split()))
    return text if any(c.isalnum() for c in text) else ""
