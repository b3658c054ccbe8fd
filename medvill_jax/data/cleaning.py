"""Text cleaning: the rules by which a report section becomes model input (see `clean_text`)."""

from __future__ import annotations

import re
import unicodedata

# "1." or "2)" at the start of a line, or after the end of a sentence and before a capital.
_ENUMERATOR = re.compile(
    r"^[^\S\n]*(?P<line>\d{1,2})[.)][^\S\n]+(?=\S)|(?<=[.;!?])[^\S\n]+(?P<within>\d{1,2})[.)][^\S\n]+(?=[A-Z_\[])",
    re.MULTILINE,
)
# De-identification marks, which replace words of a report: of MIMIC-CXR, MIMIC-III and Open-I, one a line. Open-I's is
# often part of a word (x-XXXX, XXXX-year-old, XXXX's, 60XXXX); the whole word counts as the mark.
MARKS = (
    r"_{2,}",
    r"\[\*\*[^\]]{0,200}\*\*\]",
    r"/?(?<![\w'’-])(?:[\w'’]+-+)*\w*?[Xx]{4,}\w*(?:['’-]+\w+)*-*/?",
)
# Atomic: a mark matches as a whole or not at all.
MARK = re.compile(rf"(?>{'|'.join(MARKS)})")
_PUNCTUATED_MARK = re.compile(rf"(?:(?<=[.,;:])|\A)\s*{MARK.pattern}\s*[.,;:]")
_BRACKETED_MARK = re.compile(rf"\[\s*(?:{MARK.pattern}[\s,;:.]*)+\]")
# Empty square brackets stay: "[ ] Edema" is an unticked box, and "Edema" alone would state that there is edema.
_EMPTY_BRACKETS = re.compile(r"\(\s*[,;:.\s]*\)|<\s*>")
_SPACE_BEFORE = re.compile(r"(?<!\[)\s+([,;:.!?)\]]\.?(?:\s|$))")
MARK_RULES = ("drop", "keep")


def clean_text(text: str, marks: str = "drop") -> str:
    """The text on one line, without list numbers, de-identification marks and control characters; its case stays.

    * List numbers (`1.`, `2)`) at line starts and between sentences are removed as long as they count up from 1; other
      numbers stay.
    * De-identification marks (`MARKS`: `___`, `[** ... **]`, `XXXX`) are removed, with brackets that become empty and
      spaces before punctuation; boxes (`[ ]`) stay. With `marks="keep"` the marks stay, unless the text has nothing
      else.
    * Control characters are removed, every run of white space becomes one space, and a text without any letter or digit
      becomes "".
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    expected = 1
    pieces, end = [], 0
    for match in _ENUMERATOR.finditer(text):
        if int(match["line"] or match["within"]) == expected and (match["line"] or expected > 1):
            pieces += [text[end : match.start()], " " if match["within"] else ""]
            end, expected = match.end(), expected + 1
    with_marks = _tidy("".join(pieces) + text[end:])
    without_marks = _tidy(MARK.sub(" ", _PUNCTUATED_MARK.sub("", _BRACKETED_MARK.sub(" ", with_marks))))
    return with_marks if without_marks and marks == "keep" else without_marks


def _tidy(text: str) -> str:
    if not text.replace("\n", " ").replace("\t", " ").isprintable():
        text = "".join(c if c.isspace() or unicodedata.category(c)[0] != "C" else "" for c in text)
    text = _EMPTY_BRACKETS.sub(" ", text)
    text = _SPACE_BEFORE.sub(r"\1", " ".join(text.split()))
    return text if any(c.isalnum() for c in text) else ""
