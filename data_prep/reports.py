"""Free-text radiology reports -> named sections of clean text.

Reports are typed by people: headings come in any spelling and case, with and without a colon, alone on a line or in the
middle of one, and name a section or the views; sections repeat, paragraphs lack headings, and a wet read or an addendum
precedes the final report. The tables of `headings` say which words make a heading; the rules of this file say where
they are one. No rule depends on the words of a sentence, so `Lungs: clear.` and `HEART: normal.` are text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from data_prep import headings
from data_prep.headings import DESCRIBING, LAST_PARAGRAPH, PREAMBLE, SECTIONS
from medvill_jax.data.cleaning import MARK, clean_text

__all__ = [
    "DESCRIBING",
    "FULL",
    "LAST_PARAGRAPH",
    "PREAMBLE",
    "SECTIONS",
    "choose",
    "clean_text",
    "described",
    "sections",
    "select",
]

FULL = "full"
# Section of a name of views; `_opened` decides which section such a name opens.
_VIEWS = "views"
_SECTION_OF = {word: name for name, words in headings.WORDS.items() for word in words.split()}
_PHRASES = {phrase: name for name, phrases in headings.PHRASES.items() for phrase in phrases}
_JOINING = frozenset(headings.JOINING.split())
_SIDES = frozenset(headings.SIDES.split())
_OF_VIEWS = frozenset(headings.VIEWS.split())
_WEAK = frozenset(headings.WEAK.split())
_CHEST = frozenset(headings.CHEST.split())
_NAMING_VIEWS = _OF_VIEWS | _CHEST | _SIDES | _JOINING | frozenset(headings.VIEWED.split())
_IN_HEADINGS = (
    frozenset(_SECTION_OF)
    | frozenset(headings.BESIDE.split())
    | _NAMING_VIEWS
    | frozenset(word for phrase in _PHRASES for word in phrase.split())
)
# Sections with a heading that describe the image.
_TITLED = frozenset(DESCRIBING) - {PREAMBLE, LAST_PARAGRAPH}
# Readings that precede the final report; descriptions before it belong to them.
_BEFORE_FINAL = ("wet_read", "addendum")

_MARK = MARK.pattern
_CLOCK = r"(?<![A-Za-z])[ap]\.\s?m\.?(?![A-Za-z])"
_NUMBER = r"#?\d(?:[\d:/.-]*\d)?(?:st|nd|rd|th|hrs?|h|am|pm)?(?![A-Za-z\d])"
_NOISE = re.compile(rf"{_MARK}|{_CLOCK}|{_NUMBER}", re.I)
_TOKEN = re.compile(rf"(?P<noise>{_NOISE.pattern})|(?P<word>[A-Za-z]+(?:[-'’][A-Za-z]+)*)|(?P<other>[^\W\d_])", re.I)
_HEADING = re.compile(r"[A-Za-z\s,;/&()\[\]#*.'’_-]+")
_WORD = re.compile(r"[a-z]+(?:[-'’][a-z]+)*|&")
# Characters of the longest heading.
_LONGEST = 160
# A line of fewer characters was not wrapped: it ends where its text ends.
_WRAPPED = 40

_LINE = re.compile(r"[^\n]+")
_EDGE = re.compile(r"[^\S\n]*(?:[>#*•-]+[^\S\n]*)?")
# The colon in 10:11 ends no heading. A semicolon does, but only for a heading at the start of a line.
_COLON = re.compile(r"(?:(?<!\d)[:：]|[:：](?!\d)|;)[:;：]*\**(?:[^\S\n]*-(?=\s))?")
_DASH = re.compile(r"(?<=\s)[-–—]+(?=\s)")
_STOP = re.compile(r"\.(?=\s|$)")
_BEFORE_COLON = " .,*-–—"
_ENDS = ".:;!?)]_*="
_DATED = re.compile(rf"(?!\s*\d{{1,2}}\.\s)(?:[\s,]*(?:{_NOISE.pattern}))+[\s,]*\.(?=\s)", re.I)
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_PARAGRAPH_END = re.compile(r"\S[^\S\n]*\n[^\S\n]*\n\s*")
_MARKERS = {
    name: re.compile(rf"(?:{'|'.join(m for m, n in headings.MARKERS.items() if n == name)})\s*:?", re.I)
    for name in dict.fromkeys(headings.MARKERS.values())
}
_PAGE_BREAK = re.compile(rf"\f|^[^\S\n]*(?:{'|'.join(headings.PAGE_BREAKS)})[^\S\n]*$", re.I | re.M)


class _Kind(NamedTuple):
    """The section that the words of a heading name, or `_VIEWS`, and the form of these words."""

    section: str
    plain: bool  # has no joining words, which occur in sentences too
    weak: bool  # only words of `headings.WEAK` name it
    many: bool  # has several words


class _Title(NamedTuple):
    """A possible heading from `start` to `end`, where its body begins; of equal starts the lowest rank counts."""

    start: int
    rank: int
    end: int
    section: str
    colon: bool
    capitals: bool
    leads: bool  # begins its line
    fresh: bool  # the text before it is complete


class _Cut(NamedTuple):
    """The heading of a section, from `start` to `end`; the section goes on to the next cut."""

    start: int
    end: int
    section: str
    named: bool  # by its views


def sections(report: str) -> dict[str, str]:
    """Section (of `SECTIONS`) -> its raw text.

    "preamble" is the text before any heading, "last_paragraph" the paragraphs that follow a section of one paragraph,
    such as an indication. A name of views opens the findings. Sections that occur several times are joined in the order
    of the report; sections without text are "". Descriptions in a wet read or an addendum before the line FINAL REPORT
    belong to "wet_read" or "addendum", whatever their headings.
    """
    text, cuts = _cuts(report)
    bodies_of: dict[str, list[str]] = {}
    for cut, following in zip(cuts, (*cuts[1:], None), strict=True):
        body = text[cut.end : following.start if following else len(text)].strip()
        if cut.named and _names_views(body):
            body = ""
        if cut.section != PREAMBLE or body:
            bodies_of.setdefault(cut.section, []).append(body)
    return {name: "\n".join(filter(None, bodies)) for name, bodies in bodies_of.items()}


def select(report: str, wanted: Sequence[str], marks: str = "drop") -> str:
    """The clean text of the wanted sections on one line, in the order of `wanted`; "" if the report has none of them.

    "full" is the whole report with its headings, but without the line FINAL REPORT. Every section is a paragraph of it,
    with an empty line in between, and a heading without a colon gets one, so that it differs from text. `marks`: see
    `clean_text`.
    """
    if list(wanted) == [FULL]:
        text, cuts = _cuts(report)
        pieces = []
        for cut, following in zip(cuts, (*cuts[1:], None), strict=True):
            heading, body = text[cut.start : cut.end], text[cut.end : following.start if following else len(text)]
            if cut.section == PREAMBLE:
                heading = ""
            elif heading.strip() and not _COLON.search(heading):
                heading = clean_text(heading, marks).rstrip(_BEFORE_COLON) + ": "
            pieces.append(clean_text(heading + body, marks))
        return "\n\n".join(filter(None, pieces))
    bodies = sections(report)
    return " ".join(filter(None, (clean_text(bodies.get(name, ""), marks) for name in wanted)))


def choose(report: str, choices: Sequence[Sequence[str]], marks: str = "drop") -> tuple[str, int]:
    """The clean text of the first choice of sections that the report has, and its index; ("", -1) if none."""
    for place, wanted in enumerate(choices):
        text = select(report, wanted, marks)
        if text:
            return text, place
    return "", -1


def described(report: str, wanted: Sequence[str] = (FULL,), marks: str = "drop") -> str:
    """The clean text of the wanted sections that are in `DESCRIBING`, without headings: the input of the labeler.

    For "full", a wet read counts only if no other section describes the image: the final report supersedes it.
    """
    if list(wanted) == [FULL]:
        present = sections(report)
        final = [name for name in present if name in DESCRIBING and name != "wet_read"]
        return select(report, final, marks) or select(report, ("wet_read",), marks)
    return select(report, [name for name in wanted if name in DESCRIBING], marks)


@functools.lru_cache(maxsize=16)
def _cuts(report: str) -> tuple[str, tuple[_Cut, ...]]:
    """The report without page breaks, and the headings of its sections."""
    text = report.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = _PAGE_BREAK.sub("", text)
    cuts = [_Cut(0, 0, PREAMBLE, False)]
    final = -1
    for title in sorted(_titles(text)):
        before = cuts[-1]
        if title.start < before.end:
            continue
        section = title.section
        if section == _VIEWS:
            section = _opened(title, before.section, text[before.end : title.start])
        if section:
            cuts.append(_Cut(title.start, title.end, section, title.section == _VIEWS))
        if section == PREAMBLE and "FINAL" in text[title.start : title.end].upper():
            final = title.start
    return text, tuple(_without_heading(text, _of_readings(cuts, final)))


def _of_readings(cuts: list[_Cut], final: int) -> Iterator[_Cut]:
    """Assigns descriptions before the final report to the reading that they belong to."""
    reading = ""
    for cut in cuts:
        if cut.start >= final:
            reading = ""
        elif cut.section in _BEFORE_FINAL:
            reading = cut.section
        yield cut._replace(section=reading) if reading and cut.section in DESCRIBING else cut


def _without_heading(text: str, cuts: Iterator[_Cut]) -> Iterator[_Cut]:
    """Adds a "last_paragraph" after the one paragraph of a section in `SHORT`."""
    all_cuts = list(cuts)
    for cut, following in zip(all_cuts, (*all_cuts[1:], None), strict=True):
        yield cut
        if cut.section in headings.SHORT:
            end = following.start if following else len(text)
            match = _PARAGRAPH_END.search(text, cut.end, end)
            if match and text[match.end() : end].strip():
                yield _Cut(match.end(), match.end(), LAST_PARAGRAPH, False)


def _titles(text: str) -> Iterator[_Title]:
    """Every possible heading, line by line."""
    above, fresh = _NOTHING, True
    end = 0
    for line in _LINE.finditer(text):
        if line[0].isspace():
            continue
        if _BLANK_LINE.search(text, end, line.start() + 1):
            above, fresh = _NOTHING, True
        stripped = line[0].strip()
        marker = next((name for name, pattern in _MARKERS.items() if pattern.fullmatch(stripped)), None)
        edge = _EDGE.match(text, line.start(), line.end())
        lead = edge.end() if edge else line.start()
        place = _Place(text, line.start(), lead, line.end(), fresh, len(above.words) < _WRAPPED)
        titles = [*_before_colons(place, above), *_without_colon(place)] if marker is None else []
        if marker is not None:
            titles = [_Title(line.start(), 0, line.end(), marker, True, True, True, True)]
        yield from titles
        fresh = stripped[-1] in _ENDS or any(title.end == line.end() for title in titles)
        above, end = _Above(line.start(), stripped), line.end()


class _Above(NamedTuple):
    """The line above, if no blank line is in between."""

    start: int
    words: str


_NOTHING = _Above(0, "")


class _Place(NamedTuple):
    """A line of a text; its first word begins at `lead`."""

    text: str
    start: int
    lead: int
    end: int
    fresh: bool
    short: bool  # the line above is too short to have been wrapped

    def title(self, begin: int, rank: int, end: int, kind: _Kind) -> _Title:
        leads = begin == self.lead
        words = self.text[begin:end]
        return _Title(
            self.start if leads else begin, rank, end, kind.section, rank == 0, _capitals(words), leads, self.fresh
        )


def _before_colons(place: _Place, above: _Above) -> Iterator[_Title]:
    """Headings that end in a colon: of the words before it, the longest run that is a heading at its place."""
    text, begin = place.text, place.lead
    for colon in _COLON.finditer(text, place.lead, place.end):
        stop, lenient = colon.start(), colon[0][0] == ";"
        tokens = _known_before(text, max(begin, stop - _LONGEST), stop)
        for number, token in enumerate(tokens[1:], 1):
            if token is None or (lenient and token.start() != place.lead):
                continue
            kind = _kind(text[token.start() : stop])
            if kind is not None and _stands(place, token.start(), stop, tokens[number - 1], kind):
                title = place.title(token.start(), 0, colon.end(), kind)
                if kind.section == _VIEWS:
                    dated = _DATED.match(text, title.end)
                    title = title._replace(end=dated.end() if dated else title.end)
                yield title
                break
        else:
            # A name of views may begin on the line above.
            words = f"{above.words} {text[place.lead : stop].strip()}"
            whole = begin == place.lead and above.words and ":" not in above.words and len(words) < _LONGEST
            kind = _kind(words) if whole else None
            if kind is not None and kind.section == _VIEWS:
                yield _Title(above.start, 0, colon.end(), _VIEWS, True, _capitals(words), True, True)
        if not lenient:
            begin = colon.end()


def _known_before(text: str, begin: int, stop: int) -> list[re.Match[str] | None]:
    """The heading words that end at `stop`, after the last other word, or after None if there is no other."""
    tokens = list(_TOKEN.finditer(text, begin, stop))
    place = len(tokens)
    while place and (tokens[place - 1]["noise"] or _in_headings(tokens[place - 1]["word"])):
        place -= 1
    return [tokens[place - 1] if place else None, *tokens[place:]]


def _stands(place: _Place, begin: int, stop: int, before: re.Match[str] | None, kind: _Kind) -> bool:
    """Whether `text[begin:stop]`, of `kind` and before a colon, is a heading at its place; `before` precedes it."""
    text = place.text
    words = text[begin:stop]
    capitals = _capitals(words)
    if begin == place.lead:
        if kind.section == _VIEWS:
            return capitals or place.fresh or (place.short and (kind.many or text[begin].isupper()))
        return capitals or place.fresh or kind.plain
    if not (words[0].isalpha() or (words.split()[0].isdigit() and kind.section == _VIEWS)):
        return False
    last = text[place.start : begin].rstrip()[-1:]
    ended = last in ".;!?:"
    if capitals:
        apart = before is not None and before["word"] is not None and not before["word"].isupper()
        strong = kind.section in headings.STRONG and kind.plain
        return ended or (not kind.weak and (apart or strong) and (kind.section != _VIEWS or apart))
    if ended:
        return kind.plain and not kind.weak if kind.section != _VIEWS else kind.many
    describes = kind.section in ("findings", "impression", "findings_impression", "conclusion")
    return describes and kind.plain and not kind.weak and not kind.many and text[begin].isupper() and last != ","


def _without_colon(place: _Place) -> Iterator[_Title]:
    """Headings alone on a line, before a full stop or a dash, or in capitals before text in lower case."""
    text, lead = place.text, place.lead
    line = text[lead : place.end].rstrip()
    bare = line.rstrip(".*_->]# \t")
    kind = _kind(bare) if len(bare) < _LONGEST else None
    if kind is not None:
        if kind.section == _VIEWS:
            yield place.title(lead, 1, place.end, kind)
        elif place.fresh or not (kind.weak or line.endswith(".")):
            strong = kind.section in headings.STRONG and kind.plain and line[:1].isupper()
            sure = not kind.weak or (kind.many and line[:1].isupper())
            if _capitals(bare) or (sure and (strong or place.fresh)):
                yield place.title(lead, 1, place.end, kind)._replace(colon=True)
    within = min(place.end, lead + _LONGEST)
    first = _TOKEN.match(text, lead, within)
    if first is None or not (first["noise"] or _in_headings(first["word"])):
        return
    ends = [match for pattern in (_STOP, _DASH) for match in pattern.finditer(text, lead, within)]
    for match in sorted(ends, key=re.Match.start, reverse=True):
        kind = _kind(text[lead : match.start()])
        if kind is None:
            continue
        if kind.section == _VIEWS:
            yield place.title(lead, 2, match.end(), kind)
            break
        if match.re is _DASH and kind.plain and kind.section in headings.STRONG and text[lead].isupper():
            yield place.title(lead, 2, match.end(), kind)._replace(colon=True)
            break
    if any(map(str.islower, line)):
        capitals = re.match(r"[A-Z][A-Z()/&,]*(?:[^\S\n]+[A-Z()/&,]{2,})*(?=[^\S\n]+[A-Z\d])", line)
        words = list(_TOKEN.finditer(capitals[0])) if capitals else []
        for word in reversed(words[:6]):
            kind = _kind(line[: word.end()])
            if kind is not None and kind.plain and not kind.weak and kind.section in headings.STRONG:
                yield place.title(lead, 3, lead + word.end(), kind)._replace(colon=True)
                break


def _opened(title: _Title, current: str, between: str) -> str:
    """The section that a name of views opens after the text `between` of `current`; "" if the name is text."""
    blank = bool(_BLANK_LINE.search(between)) or (current == PREAMBLE and not between.strip())
    if not between.strip() and current in _TITLED and title.capitals:
        return current  # IMPRESSION: AP CHEST: ...
    if current in _TITLED:
        kept = title.capitals and title.leads and (title.colon or (title.fresh and current == "findings"))
        return "findings" if kept else ""
    if between.strip() or current in (PREAMBLE, LAST_PARAGRAPH):
        if title.colon:
            return "findings"
        of_images = current in ("comparison", "technique", "examination")
        return (
            "findings" if title.leads and title.fresh and (blank or title.capitals) and (blank or not of_images) else ""
        )
    return "findings" if title.colon and (blank or current in ("examination", "technique")) else ""


def _in_headings(word: str | None) -> bool:
    return word is not None and all(part in _IN_HEADINGS for part in _parts(word.lower()))


def _parts(word: str) -> list[str]:
    return [word] if word in _IN_HEADINGS else word.split("-")


def _capitals(words: str) -> bool:
    """Whether all words but the joining ones are in capitals, as in FRONTAL and LATERAL VIEWS."""
    return all(word.isupper() or word in _JOINING for word in re.findall("[A-Za-z]+", words))


def _names_views(words: str) -> bool:
    """Whether a text consists of names of views, dates and times only."""
    bare = _NOISE.sub(" ", words)
    return _HEADING.fullmatch(bare) is not None and all(
        part in _NAMING_VIEWS for word in _WORD.findall(bare.lower()) for part in _parts(word)
    )


@functools.lru_cache(maxsize=20_000)
def _kind(phrase: str) -> _Kind | None:
    """The kind of heading that a phrase is, None if it cannot be a heading."""
    bare = _NOISE.sub(" ", phrase)
    if _HEADING.fullmatch(bare) is None:
        return None
    words = [part for word in _WORD.findall(bare.lower()) for part in _parts(word)]
    named = [_SECTION_OF[word] for word in words if word in _SECTION_OF]
    plain = not any(word in _JOINING and word not in ("and", "&") for word in words)
    weak = all(word in _WEAK for word in words if word in _SECTION_OF)
    section = _PHRASES.get(" ".join(words), "")
    if section:
        return _Kind(section, True, weak and all(word in _WEAK for word in words), len(words) > 1)
    spaced = " ".join(words)
    for compared in headings.COMPARED:
        views = _kind(spaced.partition(f" {compared}")[0]) if f" {compared}" in spaced else None
        if views is not None and views.section == _VIEWS:
            return views
    if not words or (words[0] in _JOINING and words[0] not in ("a", "an", "the")):
        return None
    if set(named) <= {"examination"} and all(word in _NAMING_VIEWS for word in words) and not (named and "." in bare):
        views = any(word in _OF_VIEWS for word in words)
        if views or (any(word in _CHEST for word in words) and not any(word in _SIDES for word in words)):
            return _Kind(_VIEWS, plain, False, len(words) > 1)
    if not named or "." in bare or not all(word in _IN_HEADINGS for word in words):
        return None
    section = next(name for name in headings.WORDS if name in named)
    if section == "findings" and "impression" in named:
        section = "findings_impression"
    return _Kind(section, plain, weak, len(words) > 1)
