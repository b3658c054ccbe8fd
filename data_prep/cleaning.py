"""Text cleaning: what is taken out of a section before a model reads it. `clean_text` states the rules."""

from __future__ import annotations

import re
import unicodedata

# "1." or "2)" at the start of a line, or after the end of a sentence and before a capital.
_ENUMERATOR = re.compile(
    r"^[^\S\n]*(?P<line>\d{1,2})[.)][^\S\n]+(?=\S)|(?<=[.;!?])\s+(?P<within>\d{1,2})[.)][^\S\n]+(?=[A-Z_\[])",
    re.MULTILINE,
)
_MASK = re.compile(r"\[\*\*.*?\*\*\]|_{2,}", re.DOTALL)
_PUNCTUATED_MASK = re.compile(rf"(?<=[.,;:])\s*(?:{_MASK.pattern})\s*[.,;:]", re.DOTALL)
_EMPTY_BRACKETS = re.compile(r"\(\s*[,;:.\s]*\)|\[\s*\]")
_SPACE_BEFORE = re.compile(r"\s+([,;:.!?)\]](?:\s|$))")


def clean_text(text: str) -> str:
    """One line of plain text in its original case.

    * List numbers (`1.`, `2)`) at line starts and between sentences go, as long as they count up from 1; other numbers
      stay.
    * De-identification marks (`___`, `[** ... **]`) go, and with them brackets left empty and stray spaces before
      punctuation.
    * Control characters go; every run of white space becomes one space; a text without any letter or digit becomes "".
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    expected = 1
    pieces, end = [], 0
    for match in _ENUMERATOR.finditer(text):
        if int(match["line"] or match["within"]) == expected and (match["line"] or expected > 1):
            pieces += [text[end : match.start()], " " if match["within"] else ""]
            end, expected = match.end(), expected + 1
    text = "".join(pieces) + text[end:]
    text = _MASK.sub(" ", _PUNCTUATED_MASK.sub("", text))
    if not text.replace("\n", " ").replace("\t", " ").isprintable():
        text = "".join(c if c.isspace() or unicodedata.category(c)[0] != "C" else "" for c in text)
    text = _EMPTY_BRACKETS.sub(" ", text)
    text = _SPACE_BEFORE.sub(r"\1", " ".join(text.split()))
    return text if any(c.isalnum() for c in text) else ""
