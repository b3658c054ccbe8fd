"""The text of a record from the sections of a report, which some sources have as columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_prep.texts import Texts
from medvill_jax.data.cleaning import clean_text

# Those that describe a film; others tell of the patient.
SECTIONS = ("findings", "impression")


class Chosen:
    """Takes the chosen sections of each report, and counts for the data card which were taken."""

    def __init__(self, sections: str, fallback: str | None):
        self._choices = [part.split("+") for part in (sections, fallback) if part]
        self._texts = Texts()

    def text(self, study: str, fields: Mapping[str, Any]) -> str:
        """The cleaned text of a report whose sections are fields; "" if it has none of the chosen ones."""
        cleaned = {name: clean(fields.get(name)) for name in SECTIONS}
        present = [name for name in SECTIONS if cleaned[name]]
        wanted = next((names for names in self._choices if set(names) & set(present)), [])
        if wanted:
            self._texts.add(study, present, wanted)
        return " ".join(cleaned[name] for name in wanted if cleaned[name])

    def notes(self) -> dict[str, Any]:
        """Entries of the build report."""
        return self._texts.notes()


def described(fields: Mapping[str, Any]) -> str:
    """All sections that describe the film, cleaned, for our labeler."""
    return " ".join(filter(None, (clean(fields.get(name)) for name in SECTIONS)))


def clean(text: Any) -> str:
    """A section, cleaned; "" for a missing one, which some sources write as "None" or "nan"."""
    cleaned = clean_text(text) if isinstance(text, str) else ""
    return "" if cleaned.strip(" .").casefold() in ("none", "nan", "null") else cleaned
