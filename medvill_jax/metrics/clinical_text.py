"""Splits the text of a report into the sentences and items that describe the image, in lower case."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from medvill_jax.metrics import clinical_forms as forms
from medvill_jax.metrics import clinical_phrases as phrases

# Longer sentences are split here, which bounds the work of all patterns.
_LONGEST = 400
# A heading is at most this many characters before its colon.
_HEADING_LENGTH = 80
# The most words in the name of an item.
_NAME_WORDS = 9


class _Rewriting:
    """Replaces patterns by words, one row of a table after the other."""

    def __init__(self, rows: tuple[tuple[str, str], ...], flags: int = 0) -> None:
        self.rows = [(re.compile(pattern, flags), words) for pattern, words in rows]
        # Most texts match no row.
        self.any = re.compile("|".join(pattern for pattern, _ in rows), flags)

    def __call__(self, text: str, count: int = 0) -> str:
        if self.any.search(text):
            for pattern, words in self.rows:
                text = pattern.sub(words, text, count=count)
        return text


_PLAIN_MARKS = str.maketrans({"’": "'", "‘": "'", "–": "-", "—": "-", "‐": "-", "‑": "-", "−": "-"})
_DEIDENTIFIED = re.compile("|".join(forms.DEIDENTIFIED))
_BLANKS = re.compile(r"[^\S\n]+")
_BOLD = re.compile(r"\*{2,}")
_ANSWER = r"(?i:no|none|nil|not seen|absent|negative|yes|present|possible)(?!\w)"
# Ends of sentences.
_SENTENCE_ENDS = (
    # Full stops, but not the dots between a finding and its value; "effusion.No"; a question mark without an answer.
    r"(?<=[.!])(?<!\.\.\.)\s+",
    r"(?<=[a-z\d)])\.(?=[A-Z])",
    rf"(?<=\?)\s+(?!\s|{_ANSWER})",
    rf";(?!\s*{_ANSWER}\s*(?:[.,;]|$))",
    # "1.", "(2)", "a)"; "1" or "#1:" before a capital letter.
    r"(?<![^\s.:])(?<!: )(?:\(?\d{1,2}[.)]|\(?[a-h]\))\s",
    r"(?<!\S)#?\d{1,2}[:-]? (?=[A-Z][a-z])",
    # Bullets, boxes, blank lines, and lines that begin with a capital.
    r"[•·]",
    r"\n ?(?:[-*•·>|├└│─]+|(?=[\[☐☑☒✓✔✅❌✗✘]))\s?",
    r"\n ?\n",
    r"(?<![,:\s]) ?\n(?= ?[A-Z][a-z])",
    # Lines such as "EFFUSION - small".
    r"\n ?(?=[A-Za-z][A-Za-z/ ]{1,40} -+ )",
)
_SENTENCE_END = re.compile("|".join(_SENTENCE_ENDS))
_LIST_MARK = re.compile(r"^(?:[-*•·>|├└│─]+(?!ve ) ?|\(?\d{1,2}[.)] )")
_SHORT = _Rewriting(forms.SHORT, re.IGNORECASE)
_PATIENT = re.compile(rf"(?<!\w)(?:{'|'.join(forms.PATIENT)})(?!\w)")

# A heading ends in a colon; a heading alone on its line also in a dash or at the end of the line.
_HEADING_END = re.compile(r"(?<!\d):+|:+(?!\d)| - |(?<=\S) ?\n|(?<=[A-Z]{3}) (?=[A-Z][a-z\s]|\d[.)])")
_BOUNDARY = re.compile(r"[.;!?:]\s|\n")
_INDENT = re.compile(r"[\s>#*•\-_|(]*(?:\d{1,2}[.)]\s*)?")
_ASIDE_END = re.compile(r"\S ?\n ?\n")
_FULL_STOP = re.compile(r"[.!?]\s")
_GOES_ON = re.compile(rf"\s*(?:{'|'.join(forms.INDICATIONS)})", re.IGNORECASE)
_STATING = re.compile(rf"(?<!\w)(?:{'|'.join(forms.STATING)})(?!\w)")


def _heading_pattern(where: str, patterns: tuple[str, ...]) -> re.Pattern[str]:
    words = f"(?:{'|'.join(patterns)})"
    return re.compile({"end": rf"(?<![a-z]){words}$", "all": rf"^{words}$"}.get(where, rf"(?<![a-z]){words}(?![a-z])"))


_HEADINGS = [(opens, where, _heading_pattern(where, rows)) for (opens, where), rows in forms.HEADINGS.items()]
_ITEMS = _Rewriting(forms.ITEMS)
_NAMES = "|".join(
    pattern
    for table in (phrases.MENTIONS, phrases.SUBJECTS, {"": forms.ORGANS})
    for rows in table.values()
    for pattern in rows
)
_NAME = rf"(?:(?:{forms.QUALIFIERS}) ){{0,3}}(?:{_NAMES})(?: (?:{forms.QUALIFIERS}))?"
_NAMED = rf"(?<![\w-]){_NAME}(?:(?: ?[/&,] ?| and | or |, and |, or ){_NAME}){{0,4}}"
# A colon, but not that of a time of day.
COLON = re.compile(r" ?(?:(?<!\d):|:(?!\d))")
_ITEM = re.compile(rf"{_NAMED}{COLON.pattern}")
_VALUE = "|".join(pattern for (where, _), rows in phrases.CUES.items() for pattern in rows if where == "value")
_SEPARATED = re.compile(rf"(^|[,;] )({_NAMED})(?:{forms.SEPARATORS})(?=(?:{_VALUE})(?: ?$| ?[,;(]| {_NAMED} ?[-=|:]))")


# A line that ends in a finding, and a next line that begins a new statement.
_NAMED_LAST = re.compile(rf"(?<![\w-])(?:{_NAMES}) ?$", re.IGNORECASE)
_NEW_LINE = re.compile(rf" ?(?:no|without|{'|'.join(phrases.NEW)})(?!\w)", re.IGNORECASE)


class _Heading(NamedTuple):
    start: int
    end: int
    # The section that it opens, as in `HEADINGS`; "" for words before a colon at the start of a line.
    opens: str
    starts_line: bool


def sentences(text: str) -> Iterator[str]:
    """The sentences that describe the image, in lower case, with single blanks and without numbering.

    Every item is one sentence of the form "pneumothorax: none". Sections under a heading such as INDICATION or
    TECHNIQUE are left out, up to the next heading of a section or a blank line. If neither follows, only the first
    sentence of the section and those that continue it are left out. De-identification marks are removed.
    """
    text = unicodedata.normalize("NFKC", text).translate(_PLAIN_MARKS)
    text = _BLANKS.sub(" ", _BOLD.sub("", _DEIDENTIFIED.sub(" ", text)))
    text = _separate_lines(_SHORT(text))
    heading = ""
    for piece in _SENTENCE_END.split(_described(text)):
        words = _LIST_MARK.sub("", " ".join(piece.lower().split())).strip(" .|")
        if not words or _PATIENT.search(words):
            continue
        words = f"{heading} {words}" if heading else words
        # The value of an item is on the next line.
        heading = words if words.endswith(":") and len(words) < _HEADING_LENGTH else ""
        if heading:
            continue
        while len(words) > _LONGEST:
            cut = words.rfind(" ", 1, _LONGEST)
            cut = cut if cut > 0 else _LONGEST
            yield from _items(words[:cut])
            words = words[cut:].lstrip()
        if words:
            yield from _items(words)
    if heading:
        yield heading


def _separate_lines(text: str) -> str:
    """The text with a blank line between the lines of a list without marks: "No effusion\nSmall pneumothorax"."""
    lines = text.split("\n")
    for i, (line, following) in enumerate(itertools.pairwise(lines)):
        if line and _NEW_LINE.match(following) and _NAMED_LAST.search(line[-40:]):
            lines[i] = line + "\n"
    return "\n".join(lines)


def is_name(words: str) -> bool:
    """Whether words before a colon can be the name of an item, and not a sentence."""
    return len(words.split()) <= _NAME_WORDS and not _STATING.search(words)


@lru_cache(maxsize=10_000)
def _items(sentence: str) -> tuple[str, ...]:
    """The items of a sentence as "name: value", or the sentence itself if it has none."""
    while (rewritten := _ITEMS(sentence, count=1)) != sentence:
        sentence = rewritten
    while separated := _SEPARATED.search(sentence):
        sentence = f"{sentence[: separated.end(2)]}: {sentence[separated.end() :]}"
    starts = [match.start() for match in _ITEM.finditer(sentence)] if ":" in sentence else []
    if not starts or not is_name(sentence[: starts[0]]):
        return (sentence,)
    pieces = (sentence[start:end] for start, end in zip([0, *starts[1:]], [*starts[1:], len(sentence)], strict=True))
    return tuple(re.sub(r"(?<=\w) -$", "", piece.strip(" ;,|.")) for piece in pieces)


def _described(text: str) -> str:
    """The text without the sections that are left out, and without the headings of all others."""
    headings = _headings(text)
    read_later = max((heading.start for heading in headings if heading.opens == "read"), default=-1)
    kept = [text[: headings[0].start] if headings else text]
    for i, heading in enumerate(headings):
        last = i + 1 == len(headings)
        start, end = heading.end, len(text) if last else headings[i + 1].start
        if heading.opens == "left out to its end":
            start = end
        elif heading.opens == "left out":
            if blank := _ASIDE_END.search(text, start, end):
                start = blank.end()
            elif not last and (headings[i + 1].starts_line or read_later > heading.start):
                start = end
            else:
                start = _after_indication(text, start, end)
        # The blank line separates sections.
        kept.append("\n\n" + text[heading.start if not heading.opens else start : end])
    return "".join(kept)


def _after_indication(text: str, start: int, end: int) -> int:
    while stop := _FULL_STOP.search(text, start, end):
        start = stop.end()
        if not _GOES_ON.match(text, start, end):
            return start
    return end


def _headings(text: str) -> list[_Heading]:
    headings: list[_Heading] = []
    boundary = 0
    for mark in _HEADING_END.finditer(text):
        begin = max(boundary, mark.start() - _HEADING_LENGTH)
        whole = begin == boundary
        for edge in _BOUNDARY.finditer(text, begin, mark.start()):
            begin, whole = edge.end(), True
        start = begin + len(_INDENT.match(text[begin : mark.start()])[0])  # pyright: ignore[reportOptionalSubscript]
        words = text[start : mark.start()].rstrip()
        colon = ":" in mark[0]
        if not words or (not colon and not words[0].isupper()):
            continue
        opens, offset = _opens(words.lower(), whole, colon)
        # Within a line, a heading is not in lower case, unless it ends a section that is left out. Without a colon, a
        # heading is alone on its line or in capitals.
        inside = bool(headings) and headings[-1].opens == "left out" and opens == "read"
        if (offset and words[offset].islower() and not inside) or (offset and mark[0] != " " and not colon):
            opens = ""
        if mark[0] == " " and not words[offset:].isupper():
            opens = ""
        starts_line = whole and (begin == 0 or text[begin - 1] == "\n")
        if opens or (colon and starts_line):
            headings.append(_Heading(start + offset if opens else start, mark.end(), opens, starts_line))
            boundary = mark.end()
    return headings


@lru_cache(maxsize=10_000)
def _opens(words: str, whole: bool, colon: bool) -> tuple[str, int]:
    """The section that a heading of these words opens ("" for none), and where in the words the heading begins."""
    name = whole and is_name(words)
    for opens, where, pattern in _HEADINGS:
        if where == "end" or (name and colon):
            match = pattern.search(words)
            if match:
                return opens, match.start() if where == "end" else 0
    return "", 0
