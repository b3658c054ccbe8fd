"""Free-text radiology reports -> named sections of clean text.

Reports are typed by people: headers come in any case, sections repeat, and a wet read precedes the final report. What
is recognised is in tables; a new header is one more line there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Canonical section name -> the headers that open it (matched at the start of a line, in any case, before a colon).
HEADERS: dict[str, tuple[str, ...]] = {
    "findings": ("FINDINGS?", "REPORT", "CHEST FINDINGS?"),
    "impression": ("IMPRESSIONS?", "OPINION"),
    "conclusion": ("CONCLUSIONS?",),
    "findings_impression": ("FINDINGS?(?:/| AND |, | & )IMPRESSIONS?", "IMPRESSIONS?(?:/| AND | & )FINDINGS?"),
    "indication": (
        "INDICATIONS?",
        "CLINICAL INDICATIONS?",
        "INDICATIONS? FOR (?:STUDY|EXAM(?:INATION)?)",
        "REASONS? FOR (?:THIS |THE )?(?:STUDY|EXAM(?:INATION)?)",
    ),
    "history": ("HISTORY", "CLINICAL HISTORY", "PATIENT HISTORY", "CLINICAL INFORMATION", "MEDICAL HISTORY"),
    "technique": ("TECHNIQUES?", "PROCEDURE", "PROCEDURE COMMENTS?", "VIEWS?"),
    "comparison": ("COMPARISONS?", "COMPARISON STUD(?:Y|IES)", "COMPARED? (?:TO|WITH)"),
    "examination": ("EXAMINATIONS?", "EXAMS?", "TYPE OF EXAM(?:INATION)?", "STUDY"),
    "wet_read": ("WET READ(?:ING)?", "PRELIMINARY (?:REPORT|READ)"),
    "addendum": ("ADDENDUM(?: #?\\d+)?", "ADDENDA"),
    "notification": ("NOTIFICATIONS?", "CRITICAL RESULTS?", "COMMUNICATION"),
    "recommendation": ("RECOMMENDATIONS?(?:\\(S\\))?",),
    "note": ("NOTE", "COMMENTS?"),
    "dictated": ("DICTATED BY", "SIGNED BY", "ATTENDING", "END OF IMPRESSION"),
}
PREAMBLE = "preamble"
# Lines that end whatever section stands before them without opening a named one.
MARKERS = (r"\**\s*FINAL REPORT\s*\**", r"\**\s*FINAL ADDENDUM\s*\**", r"[_=*-]{5,}")

_NAMES = {f"h{i}": name for i, name in enumerate(HEADERS)}
_HEADER = re.compile(
    r"^[^\S\n]*(?:"
    + "|".join(f"(?P<h{i}>{'|'.join(forms)})" for i, forms in enumerate(HEADERS.values()))
    + r")[^\S\n]*:",
    re.IGNORECASE | re.MULTILINE,
)
_MARKER = re.compile(rf"^[^\S\n]*(?:{'|'.join(MARKERS)})[^\S\n]*:?[^\S\n]*$", re.IGNORECASE | re.MULTILINE)
_ENUMERATOR = re.compile(r"^[^\S\n]*(\d{1,2})[.)][^\S\n]+(?=\S)", re.MULTILINE)
_MASK = re.compile(r"\[\*\*.*?\*\*\]|_{2,}", re.DOTALL)
_PUNCTUATED_MASK = re.compile(rf"(?<=[.,;:])\s*(?:{_MASK.pattern})\s*[.,;:]", re.DOTALL)
_EMPTY_BRACKETS = re.compile(r"\(\s*[,;:.\s]*\)|\[\s*\]")
_SPACE_BEFORE = re.compile(r"\s+([,;:.!?)\]](?:\s|$))")


def clean_text(text: str) -> str:
    """One line of plain text in its original case.

    * List numbers at line starts (`1.`, `2)`) go, as long as they count up from 1; other numbers stay.
    * De-identification marks (`___`, `[** ... **]`) go, and with them brackets left empty and stray spaces before
      punctuation.
    * Control characters go; every run of white space becomes one space; a text without any letter or digit becomes "".
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    expected = 1
    pieces, end = [], 0
    for match in _ENUMERATOR.finditer(text):
        if int(match[1]) == expected:
            pieces.append(text[end : match.start()])
            end, expected = match.end(), expected + 1
    text = "".join(pieces) + text[end:]
    text = _MASK.sub(" ", _PUNCTUATED_MASK.sub("", text))
    text = "".join(c if c.isspace() or unicodedata.category(c)[0] != "C" else "" for c in text)
    text = _EMPTY_BRACKETS.sub(" ", text)
    text = _SPACE_BEFORE.sub(r"\1", " ".join(text.split()))
    return text if any(c.isalnum() for c in text) else ""


def sections(report: str) -> dict[str, str]:
    """Section name (a key of `HEADERS`, or "preamble" for what stands before any header) -> its raw text.

    A section that occurs more than once is joined in the order of the report. Sections without text are kept as "".
    """
    text = report.replace("\r\n", "\n").replace("\r", "\n")
    cuts = [(m.start(), m.end(), _NAMES[str(m.lastgroup)]) for m in _HEADER.finditer(text)]
    cuts += [(m.start(), m.end(), PREAMBLE) for m in _MARKER.finditer(text)]
    cuts = [(0, 0, PREAMBLE), *sorted(cuts)]
    found: dict[str, list[str]] = {}
    for i, (_, start, name) in enumerate(cuts):
        body = text[start : cuts[i + 1][0] if i + 1 < len(cuts) else len(text)].strip()
        if name != PREAMBLE or body:
            found.setdefault(name, []).append(body)
    return {name: "\n".join(filter(None, bodies)) for name, bodies in found.items()}


def select(report: str, wanted: Sequence[str]) -> str:
    """The clean text of the wanted sections, in the order of `wanted`; "" if the report has none of them."""
    there = sections(report)
    return " ".join(filter(None, (clean_text(there.get(name, "")) for name in wanted)))
