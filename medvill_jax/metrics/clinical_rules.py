"""The rules of the labeler: which findings a sentence names, and whether it states, denies or doubts them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from medvill_jax.findings import ABSENT, NEGATIVE, POSITIVE, UNCERTAIN
from medvill_jax.metrics import clinical_phrases as phrases
from medvill_jax.metrics.clinical_phrases import CUES, OTHER
from medvill_jax.metrics.clinical_text import COLON, is_name

Span = tuple[int, int]

# The longest reach of a cue, in characters.
_AHEAD, _BACK, _ABOUT = 240, 160, 160


def _words(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{'|'.join(patterns)})(?!\w)")


_MENTIONS = {name: _words(patterns) for name, patterns in phrases.MENTIONS.items()}
_ANY = _words(pattern for patterns in phrases.MENTIONS.values() for pattern in patterns)
_NOT_MENTIONS = {name: _words(patterns) for name, patterns in phrases.NOT_MENTIONS.items()}
_SUBJECTS = {name: _words(patterns) for name, patterns in phrases.SUBJECTS.items()}
_HABITS = {name: [(re.compile(pattern), value) for pattern, value in rows] for name, rows in phrases.HABITS.items()}
_HINTS = {name: tuple(hints.split()) for name, hints in phrases.HINTS.items()}
_HISTORY = re.compile(r"(?<!\w)history of (?:(?!with|now|there|which|but)[\w',/-]{1,20} ){0,6}$")

_DENIES_AHEAD = _words(CUES["before", NEGATIVE])
_DENIES_AHEAD_PLAIN = _words(CUES["before", NEGATIVE] + CUES["before, plain", NEGATIVE])
_DENIES_BACK = _words(CUES["after", NEGATIVE])
_DOUBTS_AHEAD = _words(CUES["before", UNCERTAIN])
_DOUBTS_BACK = _words(CUES["after", UNCERTAIN])
_VALUES = [
    *((re.compile("|".join(rows)), verdict) for (where, verdict), rows in CUES.items() if where.endswith("value")),
    (_DENIES_AHEAD_PLAIN, NEGATIVE),
    (_DOUBTS_AHEAD, UNCERTAIN),
]
_BARE = re.compile("|".join(row for (where, _), rows in CUES.items() if where == "value" for row in rows))
_AMOUNT = re.compile("|".join(CUES["value", POSITIVE]))
# Words before a value, and separators of its parts.
_FILLER = re.compile(r"[\[(\"' ]*(?:- ?(?=[a-z])(?!ve))?(?:(?:there|this|it) (?:is|are) )?")
_PARTS = re.compile(r"[,;]\s*(?:and |but )?|(?<!\w)(?:but|however) ")
_DOUBLE = re.compile(r" (?:\w{1,14} )?(?:without|absen|negative|clear|free|resol)")
_BREAK = _words(phrases.BREAKS)
_AFFIRMS = _words(phrases.AFFIRMS)
_FRESH = re.compile(rf", (?:and )?(?:{'|'.join(phrases.FRESH)})(?!\w)")
_VERB = re.compile(rf"(?<!\w)(?:{'|'.join(phrases.VERBS)})(?!\w)")
# "No effusion is seen, ..." or "... is seen and ...": the denial reaches no further.
_CLOSED = re.compile(rf"(?<!\w)(?:{'|'.join(phrases.VERBS)})(?!\w)[^,]{{0,40}}?(?:,|(?<!\w)(?:and|with)(?!\w))")
_LISTED = re.compile(r"(?<!\w)(?:and|or|nor)(?!\w)")
_ONE = re.compile(r"(?:is|was|has)(?!\w)")
_OR = r"(?:and/or|or|versus|vs)"
_OR_BEFORE = re.compile(rf"(?:(?<!\w){_OR}|/) ?(?:[\w-]{{1,20}} ){{0,2}}$")
_OR_AFTER = re.compile(rf"^(?: ([\w-]{{1,20}}))?(?: {_OR}(?!\w)| ?/)")

_NOT_ASSESSED = _words(phrases.NOT_ASSESSED)
_HEALTHY = _words(phrases.HEALTHY)
_VERDICTS = (
    rf"(?<![\w-])(?:(?P<healthy>{'|'.join(phrases.HEALTHY)})|(?P<large>{'|'.join(phrases.ENLARGED)})|"
    rf"(?P<same>{'|'.join(phrases.SAME)}))(?!\w)"
)
_VERDICT = re.compile(_VERDICTS)
_BORDERLINE = re.compile(phrases.BORDERLINE)
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


@lru_cache(maxsize=10_000)
def read(sentence: str, habits: bool) -> tuple[tuple[str, int], ...]:
    """The findings that a sentence names, with its verdict on each.

    Args:
      sentence: one of `clinical_text.sentences`.
      habits: whether to reproduce the known misreadings of the CheXpert labeler.

    Returns:
      One pair per mention: a finding or `OTHER`, and `POSITIVE`, `NEGATIVE` or `UNCERTAIN`.
    """
    colon = COLON.search(sentence)
    if colon and is_name(sentence[: colon.start()]):
        return tuple(_item(sentence[: colon.start()], sentence[colon.end() :].strip(), habits))
    verdicts: list[tuple[str, int]] = []
    cues: _Cues | None = None
    for name, hints in _HINTS.items():
        # Hints are faster than patterns, and most sentences have none of most findings.
        if not any(hint in sentence for hint in hints):
            continue
        if habits and (value := _habit(name, sentence)) is not None:
            verdicts.append((name, value))
            continue
        cues = cues or _Cues(sentence, habits)
        named = _named(name, sentence)
        verdicts += [(name, cues.status(*span)) for span in named]
        for span in _spans(_SUBJECTS.get(name), sentence):
            if not _touches(span, named):
                verdicts += [(name, value) for value in _about(cues, span, habits)]
    return tuple(verdicts)


def _item(name: str, value: str, habits: bool) -> list[tuple[str, int]]:
    """Verdicts of "name: value": on the findings that the value names, and by the value on others in the name."""
    if not value:
        return []
    first, *rest = _PARTS.split(value, maxsplit=1)
    bare = _BARE.fullmatch(first)
    verdicts = list(read("".join(rest) if bare else value, habits))
    in_value = {finding for finding, _ in verdicts}
    verdict = _value(value, habits)
    for finding, hints in _HINTS.items():
        if finding in in_value or not any(hint in name for hint in hints):
            continue
        if _named(finding, name):
            verdicts += [(finding, verdict)]
        else:
            for organ in _spans(_SUBJECTS.get(finding), name):
                verdicts += [(finding, about) for about in _organ(name, organ, value, verdict, habits)]
    return [(finding, said) for finding, said in verdicts if said != ABSENT]


def _value(value: str, habits: bool) -> int:
    """The verdict of an item's value on its finding; `ABSENT` if it says nothing about it."""
    first, *others = [_FILLER.sub("", part, count=1) for part in _PARTS.split(value)]
    names_finding = bool(read(first, habits))
    verdict = next((verdict for pattern, verdict in _VALUES if pattern.match(first)), None)
    if verdict is None or (verdict == UNCERTAIN and names_finding):
        # "is not seen", "has resolved"
        verdict = _Cues(f"it {first}", habits).status(0, 2)
        if names_finding and _VERB.search(first):
            verdict = ABSENT
    # "None on the right, small on the left."
    amounts = [part for part in others if _AMOUNT.match(part) and not read(part, habits)]
    return _Cues(f"it {amounts[0]}", habits).status(0, 2) if amounts else verdict


def _organ(name: str, organ: Span, value: str, verdict: int, habits: bool) -> list[int]:
    """The verdict of "name: value" on an organ in the name: one value, or none."""
    around = _VERDICT.search(name)
    if around and around["large"]:
        return [verdict]
    size = _VERDICT.search(value)
    # "Mediastinum: heart size is normal" says nothing of the mediastinum.
    if size and not read(value[: size.end()], False):
        if _BORDERLINE.match(value, size.start()):
            return [UNCERTAIN]
        return _about(_Cues(f"{name} {value}", habits), organ, habits)
    return [NEGATIVE] if verdict == NEGATIVE and not read(value, habits) else []


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
    """The verdict of a sentence on the size of an organ: one value, or none."""
    text, (start, end) = cues.text, organ
    before = text[max(0, start - 90) : start]
    verdict = _VERDICT_BEFORE.search(before) or _VERDICT_SHARED.search(before)
    span = organ
    if verdict is None:
        # "Otherwise normal" is still about the organ.
        right = min((a for a, b in cues.breaks if a >= end and text[a:b] != "otherwise"), default=len(text))
        verdict = _VERDICT.search(text, end, min(right, end + _ABOUT))
        span = verdict.span() if verdict else organ
    if verdict is None:
        # The CheXpert labeler takes an organ named without a verdict for its finding, and "stable" for a doubt.
        return [POSITIVE] if habits and not _NOT_ASSESSED.search(text) else []
    if verdict["healthy"]:
        return [NEGATIVE]
    if verdict["large"]:
        if not habits and _BORDERLINE.match(text, verdict.start()):
            return [UNCERTAIN]
        return [cues.status(*span)]
    if _HEALTHY.search(text):
        return [NEGATIVE]
    return [UNCERTAIN] if habits else []


class _Cues:
    """The denials and doubts of one sentence, which decide on every mention in it."""

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
        """`POSITIVE`, `NEGATIVE` or `UNCERTAIN` for the mention at `[start, end)`."""
        text = self.text
        left = max((b for _, b in self.breaks if b <= start), default=0)
        right = min((a for a, _ in self.breaks if a >= end), default=len(text))

        denials = self._ahead(self.denies_ahead, left, start)
        # Two denials make a statement: "not without", "not entirely clear of".
        if len(denials) > 1 and _DOUBLE.match(text[denials[-2][1] : start]):
            denials = denials[:-2]
        if denials or any(self._reaches_back(end, a) for a, _ in self._back(self.denies_back, end, right)):
            return NEGATIVE

        if any(not self._affirmed(b, start) for _, b in self._ahead(self.doubts_ahead, left, start)):
            return UNCERTAIN
        if self._back(self.doubts_back, end, right):
            return UNCERTAIN
        if _OR_BEFORE.search(text[max(0, start - 60) : start]):
            return UNCERTAIN
        # "Opacities, atelectasis or infiltrate" states the opacities.
        if (choice := _OR_AFTER.search(text[end : end + 40])) and not _ANY.fullmatch(choice[1] or ""):
            return UNCERTAIN
        return UNCERTAIN if text.endswith("?") else POSITIVE

    def _ahead(self, cues: list[Span], left: int, start: int) -> list[Span]:
        return [cue for cue in cues if left <= cue[0] and cue[1] <= start and self._reaches(cue[1], start)]

    def _back(self, cues: list[Span], end: int, right: int) -> list[Span]:
        return [cue for cue in cues if end <= cue[0] <= end + _BACK and cue[1] <= right]

    def _reaches_back(self, end: int, cue_start: int) -> bool:
        """Whether a denial after a mention reaches it: A in "A, B and C are absent", but not in "A, B is absent"."""
        between = self.text[end:cue_start]
        if _VERB.search(between):
            return False
        return "," not in between or _LISTED.search(between) is not None or not _ONE.match(self.text, cue_start)

    def _reaches(self, cue_end: int, start: int) -> bool:
        """Whether a cue reaches a later mention across the text between them."""
        if start - cue_end > _AHEAD:
            return False
        between = self.text[cue_end:start].replace(" - ", ", ")
        if "," not in between:
            return not _CLOSED.search(between)
        if _CLOSED.search(between):
            return False
        # "No effusion, mild edema" but "no consolidation, large effusion, or pneumothorax".
        fresh = [match.end() for match in _FRESH.finditer(between)]
        return not fresh or " or " in self.text[cue_end + fresh[-1] :]

    def _affirmed(self, doubt_end: int, start: int) -> bool:
        """Whether a mention is stated after a doubt about another word: "probably lobar, consistent with pneumonia"."""
        between = self.text[doubt_end:start]
        affirms = _AFFIRMS.search(between)
        return affirms is not None and len(between[: affirms.start()].split()) > 1


def _spans(pattern: re.Pattern[str] | None, text: str) -> list[Span]:
    return [match.span() for match in pattern.finditer(text)] if pattern else []


def _touches(span: Span, others: list[Span]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)


__all__ = ["OTHER", "read"]
