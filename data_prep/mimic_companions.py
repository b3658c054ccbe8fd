"""Which films of MIMIC-CXR go with a film: another view of its study, and the patient's study before.

The rules (docs/data.md#several-films has them too):

* second view: of the other films of the study, in the same split, a lateral for a frontal film and a frontal for a
  lateral one; if there is none, another projection (PA for AP), then the same. Among equals the first by dicom_id.
  Films of other or unknown views are none.
* prior: the patient's latest earlier study with a frontal film, in the same split; a study is earlier by StudyDate, and
  on one day by StudyTime. Of equal times neither is earlier, nor is one without a date, or without a time on that day;
  among studies of one time the last by study_id counts. Its film is of the view of the record, or else its first by AP,
  PA, other frontal and dicom_id; its text is made as that of a record, and "" where that fails.

A study whose films differ in time has the earliest that is known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from data_prep import views

SECOND, PRIOR = ("second_image", "second_view"), ("prior_image", "prior_view", "prior_text")
TIME_COLUMNS = ("StudyDate", "StudyTime")
_DATE = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)(?:\.0*)?")
_TIME = re.compile(r"\d{1,6}(?:\.\d*)?")
_FRONTALS = ("AP", "PA")
_UNKNOWN = ""


class When(NamedTuple):
    """The time of a study: `date` YYYYMMDD, "" if unknown; `time` as the number HHMMSS, below 0 if unknown."""

    date: str
    time: float

    def before(self, other: When) -> bool:
        """Whether it is certainly earlier."""
        if not self.date or not other.date:
            return False
        return self.date < other.date or (self.date == other.date and 0 <= self.time < other.time)

    def less_known(self, other: When) -> bool:
        """Whether it has no date, or no time of the other's day."""
        return not self.date or (self.date == other.date and self.time < 0)


def when(date: str, time: str) -> When:
    """The time in the columns StudyDate and StudyTime, which may have lost its leading zeros in a table of numbers."""
    found = _DATE.fullmatch(date.strip())
    return When("".join(found.groups()) if found else _UNKNOWN, float(time) if _TIME.fullmatch(time.strip()) else -1.0)


@dataclass
class Study:
    """A study of a patient: its time, and its films as (dicom_id, view)."""

    when: When
    films: list[tuple[str, str]] = field(default_factory=list)


class Film(NamedTuple):
    """A film by the ids of its patient, its study and itself, and its view."""

    subject: str
    study: str
    image: str
    view: str


class Companions:
    """The studies of a copy.

    Args:
        films: every usable film with its time.

    Attributes:
        in_other_splits: by split, earlier studies that were left out because they are in another split.
        views_in_other_splits: by split, films of the study that were.
        undated: studies without a date.
    """

    def __init__(self, films: Iterable[tuple[Film, When]]):
        self._studies: dict[tuple[str, str], Study] = {}
        self._of_subject: dict[str, list[str]] = {}
        self.in_other_splits: Counter[str] = Counter()
        self.views_in_other_splits: Counter[str] = Counter()
        for film, moment in films:
            key = (film.subject, film.study)
            if key not in self._studies:
                self._studies[key] = Study(moment)
                self._of_subject.setdefault(film.subject, []).append(film.study)
            study = self._studies[key]
            study.films.append((film.image, film.view))
            if moment.before(study.when) or study.when.less_known(moment):
                study.when = moment
        self.undated = sum(not study.when.date for study in self._studies.values())

    def second(self, film: Film, split: str, split_of: Callable[[Film], object]) -> Film | None:
        """Another view of the study; None if there is none. Arguments as for `prior`."""
        study = self._studies.get((film.subject, film.study))
        others = [] if study is None else [one for one in study.films if one[0] != film.image]
        ranked = sorted((rank, image, view) for image, view in others if (rank := _rank(film.view, view)) is not None)
        for _, image, view in ranked:
            found = Film(film.subject, film.study, image, view)
            if split_of(found) == split:
                return found
            self.views_in_other_splits[split] += 1
        return None

    def prior(self, film: Film, split: str, split_of: Callable[[Film], object]) -> Film | None:
        """The frontal film of the patient's study before; None if there is none.

        Args:
            film: of the record.
            split: of the record.
            split_of: the split of a film.
        """
        own = self._studies.get((film.subject, film.study))
        if own is None:
            return None
        times = ((self._studies[film.subject, name].when, name) for name in self._of_subject[film.subject])
        earlier = sorted(((moment, name) for moment, name in times if moment.before(own.when)), reverse=True)
        for _, name in earlier:
            films = self._studies[film.subject, name].films
            frontal = [(view != film.view, _order(view), image, view) for image, view in films]
            frontal = sorted(one for one in frontal if views.KINDS.get(one[3], one[3]) == "FRONTAL")
            if not frontal:
                continue
            found = Film(film.subject, name, *frontal[0][2:])
            if split_of(found) == split:
                return found
            self.in_other_splits[split] += 1
        return None


def _rank(own: str, other: str) -> int | None:
    """How well a view goes with a film's own, from 0; None if not at all."""
    kinds = [views.KINDS.get(view, view) for view in (own, other)]
    if kinds[1] not in ("FRONTAL", "LATERAL"):
        return None
    return 0 if kinds[0] != kinds[1] else 1 if own != other else 2


def _order(view: str) -> int:
    return _FRONTALS.index(view) if view in _FRONTALS else len(_FRONTALS)
