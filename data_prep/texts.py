"""Counts the sections that the texts of a data set were taken from, for its data card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_prep.reports import FULL


class Texts:
    """Counts studies by the sections of their text."""

    def __init__(self) -> None:
        self._studies: set[str] = set()
        self._sections: Counter[str] = Counter()
        self._addenda = 0

    def add(self, study: str, present: Sequence[str], wanted: Sequence[str]) -> None:
        """Counts a study once: `present` are the sections of its report with text, `wanted` the chosen ones."""
        if study in self._studies:
            return
        self._studies.add(study)
        taken = [name for name in wanted if name == FULL or name in present]
        self._sections["+".join(taken) or "(none of these)"] += 1
        self._addenda += bool(taken) and "addendum" in present and not {"addendum", FULL} & set(wanted)

    def notes(self) -> dict[str, Any]:
        """Entries of the build report."""
        left_out = {"addenda_left_out": self._addenda} if self._addenda else {}
        return {"studies_by_text": dict(self._sections.most_common()), **left_out}
