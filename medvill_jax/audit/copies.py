"""How many reports stand in the training set, word for word or nearly, beside the same of real reports."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from medvill_jax.errors import MissingExtra
from medvill_jax.metrics.text import tokens

# Two reports are nearly the same if so much of both is one sequence of words: 2 LCS / (n + m).
NEAR = 0.9


class Copied(NamedTuple):
    """What is known of a report.

    Attributes:
        verbatim: it stands in the training set, but for case, accents, white space and spaces around punctuation.
        near: it is verbatim, or nearly the same as a report there.
        own: it is near, and so only to reports of a single patient: not a phrase that many share.
    """

    verbatim: bool
    near: bool
    own: bool


class Training:
    """The reports of a training set.

    Args:
        reports: texts.
        patients: of each.

    Raises:
        MissingExtra: rapidfuzz is not installed.
    """

    def __init__(self, reports: Sequence[str], patients: Sequence[str]):
        require()
        self._codes: dict[str, str] = {}
        self._owners: dict[str, set[str]] = {}
        for report, patient in zip(reports, patients, strict=True):
            if coded := self._coded(report):
                self._owners.setdefault(coded, set()).add(patient)
        self._choices = sorted(self._owners, key=len)
        self._lengths = [*map(len, self._choices)]

    def copied(self, report: str) -> Copied:
        """Whether a report stands here; one without words does not."""
        coded = self._coded(report)
        near = self._near(coded) if coded else []
        patients: set[str] = set().union(*(self._owners[one] for one in near))
        return Copied(coded in self._owners, bool(near), len(patients) == 1)

    def _near(self, coded: str) -> list[str]:
        """All distinct reports that are nearly the same."""
        from rapidfuzz import process
        from rapidfuzz.distance import Indel

        # Of reports of n and m words at most 2 min(n, m) of n + m are the same.
        least, most = (math.floor(len(coded) * NEAR / (2 - NEAR)), math.ceil(len(coded) * (2 - NEAR) / NEAR))
        choices = self._choices[bisect_left(self._lengths, least) : bisect_right(self._lengths, most)]
        found = process.extract(coded, choices, scorer=Indel.normalized_similarity, score_cutoff=NEAR, limit=None)
        return [choice for choice, _, _ in found]

    def _coded(self, report: str) -> str:
        """A report as a string with a character for each word, which is compared fastest."""
        return "".join(self._codes.setdefault(word, _character(len(self._codes))) for word in tokens(report))


def _character(number: int) -> str:
    """A character of its own for every number, without surrogates."""
    return chr(number if number < 0xD800 else number + 0x800)


def require() -> None:
    """Raises `MissingExtra` if rapidfuzz is not installed."""
    try:
        import rapidfuzz  # noqa: F401
    except ImportError as error:
        raise MissingExtra("rapidfuzz", "generate", "comparing reports with those of the training set") from error
