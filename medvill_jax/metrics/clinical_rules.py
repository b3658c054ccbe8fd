"""Reading a report sentence by sentence: which findings it names, and whether it states, denies or doubts them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

from medvill_jax.metrics import clinical_phrases as phrases
from medvill_jax.metrics.clinical_phrases import ABSENT, NEGATIVE, OTHER, POSITIVE, UNCERTAIN

Span = tuple[int, int]

# Anything longer is no sentence. The cut bounds the work of all that follows, whatever the text.
_LONGEST = 400
# Characters that a cue reaches over, at most.
_AHEAD, _BACK, _ABOUT = 160, 90, 160


def _words(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{'|'.join(patterns)})(?!\w)")


_MENTIONS = {name: _words(patterns) for name, patterns in phrases.MENTIONS.items()}
_NOT_MENTIONS = {name: _words(patterns) for name, patterns in phrases.NOT_MENTIONS.items()}
_SUBJECTS = {name: _words(patterns) for name, patterns in phrases.SUBJECTS.items()}
_HABITS = {name: [(re.compile(pattern), value) for pattern, value in rows] for name, rows in phrases.HABITS.items()}
_HINTS = {name: tuple(hints.split()) for name, hints in phrases.HINTS.items()}
_HISTORY = re.compile(r"(?<!\w)history of (?:[\w'-]{1,20} ){0,5}$")

_DENIES_AHEAD = _words(phrases.DENIES_AHEAD)
_DENIES_AHEAD_PLAIN = _words(phrases.DENIES_AHEAD + phrases.DENIES_AHEAD_PLAIN)
_DENIES_BACK = _words(phrases.DENIES_BACK)
_DOUBTS_AHEAD = _words(phrases.DOUBTS_AHEAD)
_DOUBTS_BACK = _words(phrases.DOUBTS_BACK)
_DOUBLE = re.compile(r" (?:\w{1,14} )?(?:without|absen|negative|clear|free)")
_BREAK = _words(phrases.BREAKS)
_AFFIRMS = _words(phrases.AFFIRMS)
_FRESH = re.compile(rf", (?:and )?(?:{'|'.join(phrases.FRESH)})(?!\w)")
_VERB = re.compile(rf"(?<!\w)(?:{'|'.join(phrases.VERBS)})(?!\w)")
# "No effusion is seen, ..." or "... is seen and ...": the denial has been spent.
_CLOSED = re.compile(rf"(?<!\w)(?:{'|'.join(phrases.VERBS)})(?!\w)[^,]{{0,40}}?(?:,|(?<!\w)(?:and|with)(?!\w))")
_OR = r"(?:and/or|or|versus|vs)"
_OR_BEFORE = re.compile(rf"(?:(?<!\w){_OR}|/) ?(?:[\w-]{{1,20}} ){{0,2}}$")
_OR_AFTER = re.compile(rf"^(?: [\w-]{{1,20}})?(?: {_OR}(?!\w)| ?/)")

_UNREAD = _words(phrases.UNREAD)
_HEALTHY = _words(phrases.HEALTHY)
_VERDICTS = (
    rf"(?<![\w-])(?:(?P<healthy>{'|'.join(phrases.HEALTHY)})|(?P<large>{'|'.join(phrases.ENLARGED)})|"
    rf"(?P<same>{'|'.join(phrases.SAME)}))(?!\w)"
)
_VERDICT = re.compile(_VERDICTS)
# "Normal size and contour of the HEART", "unchanged HEART".
_VERDICT_BEFORE = re.compile(
    _VERDICTS + r" (?:(?:in )?(?:the )?(?:size|contour|configuration|appearance|shape|width|caliber)"
    r"(?:(?:,| and|, and) (?:size|contour|configuration|appearance|shape))? (?:of )?)?(?:the )?$"
)
# "Normal heart size and MEDIASTINUM".
_VERDICT_SHARED = re.compile(
    _VERDICTS
    + r" (?:(?:heart|cardiac|cardiomediastinal|mediastinal|hilar|aortic|size|silhouettes?|contours?|and|the),? )"
    r"{1,6}$"
)

_PLAIN_MARKS = str.maketrans({"’": "'", "‘": "'", "–": "-", "—": "-", "‐": "-", "‑": "-"})
_SENTENCE_END = re.compile(
    r"(?<=[.!?])\s+|(?<=[a-z\d)])\.(?=[A-Z])|;|\n[^\S\n]*\n|(?<![^\s.:])\(?\d{1,2}[.)]\s|\n[^\S\n]*[-*•]\s"
)
_HEADER = re.compile(r"^[^\S\n]*([A-Za-z][A-Za-z /&]{2,40}):", re.MULTILINE)
_ASIDE = re.compile(rf"(?<![a-z])(?:{'|'.join(phrases.ASIDES)})(?![a-z])")
_ASIDE_END = re.compile(r"\S[^\S\n]*\n[^\S\n]*\n")


def sentences(text: str) -> Iterator[str]:
    """The sentences that describe the image, in lower case, with single blanks and without numbering.

    Sections under a header such as INDICATION or TECHNIQUE at the start of a line are left out, up to the next header
    or blank line; where neither follows, one sentence is.
    """
    text = unicodedata.normalize("NFKC", text).translate(_PLAIN_MARKS)
    for piece in _SENTENCE_END.split(_described(text)):
        words = " ".join(piece.lower().split()).strip(" .")
        while len(words) > _LONGEST:
            cut = words.rfind(" ", 1, _LONGEST)
            cut = cut if cut > 0 else _LONGEST
            yield words[:cut]
            words = words[cut:].lstrip()
        if words:
            yield words


def _described(text: str) -> str:
    headers = list(_HEADER.finditer(text))
    if not headers:
        return text
    kept = [text[: headers[0].start()]]
    ends = [header.start() for header in headers[1:]] + [len(text)]
    for header, end in zip(headers, ends, strict=True):
        start = header.end()
        if _ASIDE.search(header[1].lower()):
            blank = _ASIDE_END.search(text, start, end)
            if blank is None and end == len(text):
                blank = re.compile(r"[.!?]\s").search(text, start)
            start = blank.end() if blank else end
        # The line break keeps sections apart.
        kept.append("\n\n" + text[start:end])
    return "".join(kept)


@lru_cache(maxsize=10_000)
def read(sentence: str, habits: bool) -> tuple[tuple[str, int], ...]:
    """What a sentence says of each finding that it names.

    Args:
      sentence: one of `sentences`.
      habits: misread what the CheXpert labeler is known to misread.

    Returns:
      Pairs of a finding, or `OTHER`, and `POSITIVE`, `NEGATIVE` or `UNCERTAIN`, one per mention.
    """
    found: list[tuple[str, int]] = []
    cues: _Cues | None = None
    for name, hints in _HINTS.items():
        # Most sentences are spared the patterns of most findings.
        if not any(hint in sentence for hint in hints):
            continue
        if habits and (value := _habit(name, sentence)) is not None:
            found.append((name, value))
            continue
        cues = cues or _Cues(sentence, habits)
        named = _named(name, sentence)
        found += [(name, cues.status(*span)) for span in named]
        for span in _spans(_SUBJECTS.get(name), sentence):
            if not _touches(span, named):
                found += [(name, value) for value in _about(cues, span, habits)]
    return tuple(found)


def _habit(name: str, sentence: str) -> int | None:
    return next((value for pattern, value in _HABITS.get(name, ()) if pattern.search(sentence)), None)


def _named(name: str, sentence: str) -> list[Span]:
    spans = _spans(_MENTIONS[name], sentence)
    if spans:
        others = _spans(_NOT_MENTIONS.get(name), sentence)
        spans = [span for span in spans if not _touches(span, others)]
        if "history of" in sentence:
            spans = [span for span in spans if not _HISTORY.search(sentence[max(0, span[0] - 120) : span[0]])]
    return spans


def _about(cues: _Cues, organ: Span, habits: bool) -> list[int]:
    """What is said about the size of an organ: one value, or none."""
    text, (start, end) = cues.text, organ
    before = text[max(0, start - 90) : start]
    verdict = _VERDICT_BEFORE.search(before) or _VERDICT_SHARED.search(before)
    where = organ
    if verdict is None:
        # "Otherwise normal" is said of the organ still.
        right = min((a for a, b in cues.breaks if a >= end and text[a:b] != "otherwise"), default=len(text))
        verdict = _VERDICT.search(text, end, min(right, end + _ABOUT))
        where = verdict.span() if verdict else organ
    if verdict is None:
        # The CheXpert labeler takes an organ named without a verdict for its finding, and "stable" for a doubt.
        return [POSITIVE] if habits and not _UNREAD.search(text) else []
    if verdict["healthy"]:
        return [NEGATIVE]
    if verdict["large"]:
        return [cues.status(*where)]
    if _HEALTHY.search(text):
        return [NEGATIVE]
    return [UNCERTAIN] if habits else []


class _Cues:
    """The denials and doubts of one sentence, found once and asked for every mention in it."""

    def __init__(self, text: str, habits: bool) -> None:
        self.text = text
        self.breaks = _spans(_BREAK, text)
        self.doubts_ahead = _spans(_DOUBTS_AHEAD, text)
        self.doubts_back = _spans(_DOUBTS_BACK, text)
        # The "not" of "cannot be excluded" denies nothing.
        ahead = _DENIES_AHEAD if habits else _DENIES_AHEAD_PLAIN
        doubts = self.doubts_ahead + self.doubts_back
        self.denies_ahead = [span for span in _spans(ahead, text) if not _touches(span, doubts)]
        self.denies_back = [span for span in _spans(_DENIES_BACK, text) if not _touches(span, doubts)]

    def status(self, start: int, end: int) -> int:
        """`POSITIVE`, `NEGATIVE` or `UNCERTAIN` for what is named at `[start, end)`."""
        text = self.text
        left = max((b for _, b in self.breaks if b <= start), default=0)
        right = min((a for a, _ in self.breaks if a >= end), default=len(text))

        denials = self._ahead(self.denies_ahead, left, start)
        # "Not without", "not entirely clear of": two denials make a statement.
        if len(denials) > 1 and _DOUBLE.match(text[denials[-2][1] : start]):
            denials = denials[:-2]
        if denials or any(not _VERB.search(text[end:a]) for a, _ in self._back(self.denies_back, end, right)):
            return NEGATIVE

        if any(not self._affirmed(b, start) for _, b in self._ahead(self.doubts_ahead, left, start)):
            return UNCERTAIN
        if self._back(self.doubts_back, end, right):
            return UNCERTAIN
        if _OR_BEFORE.search(text[max(0, start - 60) : start]) or _OR_AFTER.search(text[end : end + 40]):
            return UNCERTAIN
        return UNCERTAIN if text.endswith("?") else POSITIVE

    def _ahead(self, cues: list[Span], left: int, start: int) -> list[Span]:
        return [cue for cue in cues if left <= cue[0] and cue[1] <= start and self._reaches(cue[1], start)]

    def _back(self, cues: list[Span], end: int, right: int) -> list[Span]:
        return [cue for cue in cues if end <= cue[0] <= end + _BACK and cue[1] <= right]

    def _reaches(self, cue_end: int, start: int) -> bool:
        """Whether what stands between a cue and a later mention lets the cue reach it."""
        if start - cue_end > _AHEAD:
            return False
        between = self.text[cue_end:start]
        if "," not in between:
            return not _CLOSED.search(between)
        if _CLOSED.search(between):
            return False
        # "No effusion, mild edema" but "no consolidation, large effusion, or pneumothorax".
        fresh = [match.end() for match in _FRESH.finditer(between)]
        return not fresh or " or " in self.text[cue_end + fresh[-1] :]

    def _affirmed(self, doubt_end: int, start: int) -> bool:
        """Whether a statement follows on a doubt about something else: "probably lobar, consistent with pneumonia"."""
        between = self.text[doubt_end:start]
        affirms = _AFFIRMS.search(between)
        return affirms is not None and len(between[: affirms.start()].split()) > 1


def _spans(pattern: re.Pattern[str] | None, text: str) -> list[Span]:
    return [match.span() for match in pattern.finditer(text)] if pattern else []


def _touches(span: Span, others: list[Span]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)


__all__ = ["ABSENT", "NEGATIVE", "OTHER", "POSITIVE", "UNCERTAIN", "read", "sentences"]
