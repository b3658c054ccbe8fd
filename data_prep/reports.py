"""Free-text radiology reports -> named sections of clean text.

Reports are typed by people: headers come in any spelling and case, with and without colon, alone on their line or in
the middle of one, sections repeat, and a wet read precedes the final report. What is recognised is in tables: `HEADERS`
has the words, `RULES` says where a word is a header. A new header is one more line there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from data_prep.cleaning import clean_text

__all__ = ["FULL", "HEADERS", "PREAMBLE", "RULES", "choose", "clean_text", "sections", "select"]

# Canonical section name -> the spellings that open it, mistyped ones included.
HEADERS: dict[str, tuple[str, ...]] = {
    "findings": (
        "(?:CHEST |RADIOGRAPHIC |PERTINENT )?FINDINGS?",
        "FINDING\\(S\\)",
        "FIDINGS?",
        "FINDNGS?",
        "FINDIGNS?",
        "FINIDNGS?",
        "FININGS?",
        "REPORT",
        "DESCRIPTION",
        "(?:RADIOGRAPHIC )?OBSERVATIONS?",
    ),
    "impression": (
        "(?:FINAL )?IMPRESSIONS?(?:/(?:PLAN|RECOMMENDATIONS?))?",
        "IMPRESSION\\(S\\)",
        "IMPRES+IO?N?S?",
        "IMPRSSION",
        "IMPRESSON",
        "IMRPESSION",
        "IMP",
        "OPINION",
        "INTERPRETATIONS?",
    ),
    "conclusion": ("CONCLUSIONS?", "SUMMARY"),
    "findings_impression": ("FINDINGS?(?:/| AND |, | & )IMPRESSIONS?", "IMPRESSIONS?(?:/| AND | & )FINDINGS?"),
    "indication": (
        "(?:CLINICAL )?INDICATIONS?",
        "INDICATIONS? FOR (?:THIS |THE )?(?:STUDY|EXAM(?:INATION)?)",
        "REASONS? FOR (?:THIS |THE )?(?:STUDY|EXAM(?:INATION)?)",
        "INDICATON",
        "INDICTION",
        "CLINICAL QUESTION",
    ),
    "history": (
        "(?:CLINICAL |PATIENT |MEDICAL |BRIEF )?HISTORY",
        "CLINICAL (?:INFORMATION|DETAILS)",
        "HISTORY OF PRESENT ILLNESS",
    ),
    "technique": ("TECHNIQUES?", "TECHNIQUE AND FINDINGS", "PROCEDURE", "PROCEDURE COMMENTS?", "VIEWS?"),
    "comparison": (
        "COMPARISONS?",
        "COMPARISON (?:STUD(?:Y|IES)|EXAM(?:INATION)?S?|FILMS?)",
        "COMPARED? (?:TO|WITH)",
        "COMPARISION",
        "COMPARSION",
        "COMPARISIONS?",
        "PRIOR (?:STUD(?:Y|IES)|EXAMS?)",
    ),
    "examination": ("EXAMINATIONS?", "EXAMS?", "TYPE OF EXAM(?:INATION)?", "STUDY"),
    "wet_read": ("WET READ(?:ING)?", "PRELIMINARY (?:REPORT|READ)"),
    "addendum": ("ADDENDUM(?: #?\\d+)?", "ADDENDA"),
    "notification": ("NOTIFICATIONS?", "CRITICAL RESULTS?", "COMMUNICATION"),
    "recommendation": ("RECOMMENDATIONS?(?:\\(S\\))?",),
    "note": ("NOTE", "COMMENTS?"),
    "dictated": ("DICTATED BY", "SIGNED BY", "ATTENDING", "END OF IMPRESSION"),
}
PREAMBLE = "preamble"
FULL = "full"
# Sections whose headers are words that nobody writes in capitals, or alone on a line, within a sentence.
STRONG = ("findings_impression", "findings", "impression", "conclusion", "comparison", "indication", "technique")
# Before a colon, these in capitals too.
CAPITALS = (*STRONG, "history", "wet_read", "addendum", "recommendation", "notification")
# Of these, words that are too common elsewhere.
WEAK_WORDS = ("REPORT", "DESCRIPTION", "IMP", "OPINION", "SUMMARY", "PROCEDURE", "PROCEDURE COMMENTS?", "VIEWS?")
# Whole lines that end whatever section stands before them -> the section that they open.
MARKERS = {
    r"\**\s*FINAL REPORT\s*\**": PREAMBLE,
    r"\**\s*FINAL ADDENDUM\s*\**": "addendum",
    r"[_=*-]{5,}": PREAMBLE,
}
_FINAL_REPORT = re.compile(r"^[^\S\n]*\**\s*FINAL REPORT\s*\**[^\S\n]*:?[^\S\n]*$", re.IGNORECASE | re.MULTILINE)


def _forms(names: Sequence[str], prefix: str, weak: bool) -> str:
    """An alternative with one group per section; longer spellings first, so that none is cut short."""
    parts = []
    for name in sorted(names, key=lambda name: name != "findings_impression"):
        forms = [form for form in HEADERS[name] if weak or form not in WEAK_WORDS]
        parts.append(f"(?P<{prefix}{list(HEADERS).index(name)}>{'|'.join(sorted(forms, key=len, reverse=True))})")
    return "(?:" + "|".join(parts) + ")"


_GAP = r"[^\S\n]*"
_EDGE = r"[^\S\n]*(?:[>#*]+[^\S\n]*)?"
# Most places are ruled out by a look at what follows, before any of the many spellings is tried.
_CAPITALS = r"(?=[A-Z]{3})"
# Name -> (what makes a word a header, pattern). The first rule that matches at a place decides.
RULES: dict[str, tuple[str, re.Pattern[str]]] = {
    "line_colon": (
        "any header, any case, at the start of a line, before a colon (also `;`, `::`, `: -`, `**FINDINGS:**`)",
        re.compile(rf"^{_EDGE}(?P<words>[A-Za-z][^\n:;：]{{1,60}})[:;：]+\**(?:{_GAP}-(?=\s))?", re.M),
    ),
    "capitals_colon": (
        "a header of `CAPITALS` in capitals anywhere in a line, before a colon: `... FINDINGS: ... IMPRESSION: ...`",
        re.compile(rf"(?<=\s){_CAPITALS}{_forms(CAPITALS, 'b', False)}{_GAP}:+", re.M),
    ),
    "sentence_colon": (
        "a strong header with a capital first letter after the end of a sentence, before a colon",
        re.compile(rf"(?<=[.;!?])\s+(?=[A-Z][a-z/& ,]{{2,40}}:)(?i:{_forms(STRONG, 'c', False)}){_GAP}:+", re.M),
    ),
    "alone": (
        "a strong header alone on its line without a colon, not in small letters",
        re.compile(rf"^{_EDGE}(?=[A-Z][^\n]{{2,40}}$)(?i:{_forms(STRONG, 'd', False)}){_GAP}[.*-]*{_GAP}$", re.M),
    ),
    "capitals_text": (
        "a strong header in capitals at the start of a line, without a colon, before text that is not in capitals",
        re.compile(
            rf"^{_GAP}{_CAPITALS}{_forms(STRONG, 'e', False)}(?:[^\S\n]+[-–—]+)?[^\S\n]+(?=\d|[A-Z](?:[a-z]|\s))", re.M
        ),
    ),
}
_MARKER = {
    section: re.compile(
        rf"^{_GAP}(?:{'|'.join(m for m, s in MARKERS.items() if s == section)}){_GAP}:?{_GAP}$", re.I | re.M
    )
    for section in dict.fromkeys(MARKERS.values())
}
_SPELLINGS = re.compile(_forms(list(HEADERS), "a", True), re.I)
_NAMES = tuple(HEADERS)


def sections(report: str) -> dict[str, str]:
    """Section name (a key of `HEADERS`, or "preamble" for what stands before any header) -> its raw text.

    A section that occurs more than once is joined in the order of the report. Sections without text are kept as "".
    Whatever stands between a wet read and the line FINAL REPORT belongs to the wet read.
    """
    text = report.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found: dict[str, list[str]] = {}
    cuts = _cuts(text)
    final = max((match.start() for match in _FINAL_REPORT.finditer(text)), default=-1)
    wet = False
    for i, (start, end, name) in enumerate(cuts):
        body = text[end : cuts[i + 1][0] if i + 1 < len(cuts) else len(text)].strip()
        wet = start < final and (wet or name == "wet_read")
        if wet:
            name = "wet_read"
        if name != PREAMBLE or body:
            found.setdefault(name, []).append(body)
    return {name: "\n".join(filter(None, bodies)) for name, bodies in found.items()}


def _cuts(text: str) -> list[tuple[int, int, str]]:
    """`(start, end, section)` of every header, in order, none within another."""
    found = []
    for rank, (_, pattern) in enumerate(RULES.values()):
        for match in pattern.finditer(text):
            words = match.groupdict().get("words")
            name = _name(str(match.lastgroup)) if words is None else _spelled(words)
            if name:
                found.append((match.start(), rank, match.end(), name))
    for section, pattern in _MARKER.items():
        found += [(match.start(), len(RULES), match.end(), section) for match in pattern.finditer(text)]
    cuts = [(0, 0, PREAMBLE)]
    for start, _, end, name in sorted(found):
        if start >= cuts[-1][1]:
            cuts.append((start, end, name))
    return cuts


def _name(group: str) -> str:
    """The section that a group of `_forms` stands for."""
    return _NAMES[int(group[1:])]


@functools.lru_cache(maxsize=10_000)
def _spelled(words: str) -> str:
    """The section that these words are a header of, "" if they are none."""
    match = _SPELLINGS.fullmatch(words.rstrip(" \t*"))
    return _name(str(match.lastgroup)) if match else ""


def select(report: str, wanted: Sequence[str]) -> str:
    """The clean text of the wanted sections, in the order of `wanted`; "" if the report has none of them.

    "full" is the whole report as written, headers included, without the line FINAL REPORT.
    """
    if list(wanted) == [FULL]:
        return clean_text(_FINAL_REPORT.sub("", report))
    there = sections(report)
    return " ".join(filter(None, (clean_text(there.get(name, "")) for name in wanted)))


def choose(report: str, choices: Sequence[Sequence[str]]) -> tuple[str, int]:
    """The clean text of the first of several choices of sections that the report has, and which; ("", -1) if none."""
    for place, wanted in enumerate(choices):
        text = select(report, wanted)
        if text:
            return text, place
    return "", -1
