"""What sources of questions in JSON have in common: their items become rows of kind "vqa"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.rows import Rejection, Row
from data_prep.sources import json_items, reading
from data_prep.sources.table import Source
from medvill_jax.data.questions import normalize_answer, without_note
from medvill_jax.data.records import SPLITS
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS

if TYPE_CHECKING:
    from data_prep.sources.phantom_tree import Film

CLOSED, OPEN = "CLOSED", "OPEN"
ORGAN = "CHEST"
# The answer to a question to which there is nothing to say, and what stands between several answers.
NONE, AND = "none", " and "
_LABELS = (ABSENT,) * len(CHEXPERT_FINDINGS)
_LONGEST = 120

Item = Mapping[str, Any]


def files(source: Source, folder: Path) -> dict[str, Path]:
    """Split -> its file. Raises `DataError` if one is missing."""
    return {split: reading.find(source, folder, split) for split in SPLITS}


def rows(
    source: Source, paths: Mapping[str, Path], row: Callable[[str, str, Item], Row | Rejection]
) -> Iterator[Row | Rejection]:
    """The rows of all items; `row(split, key, fields)` makes one of our fields of an item, None where it lacks one.

    Raises `DataError` if a file is damaged, or its first item lacks a field.
    """
    main = next(iter(source.files))
    for split in SPLITS:
        for number, (key, item) in enumerate(json_items.items(paths[split])):
            if not isinstance(item, dict):
                yield Rejection(f"{split}-{key}"[:_LONGEST], "malformed_row", f"item {key[:40]} is not an object")
                continue
            fields = source.columns(main)
            if number == 0:
                reading.named(source, item, paths[split], main)
            missing = [
                field.column for field in fields.values() if not field.optional and item.get(field.column) is None
            ]
            if missing:
                detail = f"item {key[:40]} has no {', '.join(missing)}"
                yield Rejection(f"{split}-{key}"[:_LONGEST], "missing_field", detail)
            else:
                yield row(split, key, {name: item.get(field.column) for name, field in fields.items()})


def answered(answers: list[str]) -> str:
    """Several answers as one: normalised, without repetition, in alphabetical order, joined by `AND`; or `NONE`."""
    return normalize_answer(AND.join(sorted({normalize_answer(answer) for answer in answers} - {""}))) or NONE


def asked(
    identifier: str,
    split: str,
    *,
    study: str,
    subject: str,
    image: Path,
    question: str,
    answer: str,
    original: str,
    closed: bool,
    kinds: tuple[str, str],
    view: str = "",
    **further: Any,
) -> Row:
    """A question about a film; `kinds` are `question_type` and `phrase_type`, `further` more features."""
    extra = {
        "question": question,
        "answer": answer,
        "answer_original": original,
        "answer_type": CLOSED if closed else OPEN,
        "question_type": kinds[0].upper(),
        "phrase_type": kinds[1].lower(),
        "organ": ORGAN,
        "image_name": image.name,
    }
    return Row(identifier, study, subject, split, image, without_note(question), _LABELS, view, {**extra, **further})


def truth(film: Film, *, text: str, **more: Any) -> dict[str, Any]:
    """What the record of a question about a phantom film must be; `more` has the features that are not the film's."""
    told = {**film.truth((), text), "question": text, "organ": ORGAN, **more}
    return {name: value for name, value in told.items() if value is not None}
