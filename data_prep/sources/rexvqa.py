"""ReXVQA: multiple-choice questions about the films of ReXGradient-160K."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_prep.ids import identifier, identifier_of
from data_prep.rows import Rejection, Row
from data_prep.sources import questions, values
from data_prep.sources.made import made
from data_prep.sources.table import accepted, sources
from medvill_jax.data.records import DataError

NAME = "rexvqa"
HELP = """\
Reads the questions of ReXVQA and their films, those of ReXGradient-160K:

  SOURCE/metadata/train_vqa_data.json, valid_vqa_data.json, test_vqa_data.json     one object, a question for each key
  IMAGES/deid_png/...                                                              where the paths of the questions lead

A record is one question with the first film that it names; build_report.json counts the questions that name
several. Its answer is the text of the right option, without its letter, and options has the texts of all options, one
in a line. Questions whose answer is yes or no are CLOSED, all others OPEN. The question_type is the task, the
phrase_type the category. The splits are the three files.
"""
FOLDER = "deid_png"
# An option after its letter: "A. x", "A) x", "(A) x", "A: x".
_OPTION = re.compile(r"\s*\(?([A-Z])\s*[.):]\s*(\S.*?)\s*", re.DOTALL)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this source alone."""
    parser.add_argument("--images", type=Path, help=f"the folder with {FOLDER} of ReXGradient-160K (default: SOURCE)")


def prepare(
    source: Path, out: Path, *, images: Path | None = None, accept_unverified: bool = False, **build_options: Any
) -> dict[str, Any]:
    """Makes the data set `out` from copies of ReXVQA and ReXGradient-160K and returns the build report.

    Args:
      source: the folder with the three JSON files, or the one above it.
      out: the folder to make.
      images: the folder with `deid_png`; None for `source`.
      accept_unverified: read columns that the table does not cite.
      build_options: as for `made.made`.

    Raises `DataError`.
    """
    table = accepted(NAME, accept_unverified)
    folder = images or source
    paths = questions.files(table, source)
    if not (folder / FOLDER).is_dir():
        raise DataError(f"{folder} has no folder {FOLDER}: give the copy of ReXGradient-160K as --images")
    notes: dict[str, Any] = {"questions_with_several_films": 0}

    def row(split: str, key: str, item: questions.Item) -> Row | Rejection:
        made_row = _row(split, key, item, folder)
        notes["questions_with_several_films"] += isinstance(made_row, Row) and len(item["image"]) > 1
        return made_row

    rows = questions.rows(table, paths, row)
    form = {"kind": "vqa", "further": ("options",), "text_required": True}
    return made(table, rows, out, files=paths.values(), options={}, notes=notes, **form, **build_options)


def _row(split: str, key: str, item: questions.Item, folder: Path) -> Row | Rejection:
    known = f"{split}-{identifier(key)}"
    study, subject = identifier_of(item["study_id"]), identifier_of(item["subject_id"])
    films = [item["image"]] if isinstance(item["image"], str) else item["image"]
    texts = isinstance(item["question"], str) and isinstance(item["answer"], str)
    if not study or not subject or not texts or not isinstance(films, list) or not films or not _all_texts(films):
        return Rejection(known, "malformed_row", f"item {key[:40]}: an id, the question, the answer or a path is none")
    options = _options(item["options"])
    if not options:
        return Rejection(
            known, "malformed_row", f"item {key[:40]}: options are not a list of different letters and texts"
        )
    right = _right(options, item["answer"])
    if right is None:
        return Rejection(known, "unknown_value", f"item {key[:40]}: the right answer is none of the options")
    image = _film(folder, films[0])
    if image is None:
        return Rejection(known, "unsafe_path", f"item {key[:40]}: the path of the film does not lead into {FOLDER}")
    views = item["view"] if isinstance(item["view"], list) else [item["view"]]
    answer = questions.answered([right])
    return questions.asked(
        known,
        split,
        study=study,
        subject=subject,
        image=image,
        question=item["question"],
        answer=answer,
        original=right,
        closed=answer in ("yes", "no"),
        kinds=(str(item["question_type"]).strip(), str(item["phrase_type"]).strip()),
        view=values.view(str(views[0] or "")) if views else "",
        sex=values.sex(str(item["sex"] or "")),
        age=values.age(str(item["age"] or "")),
        options="\n".join(" ".join(text.split()) for text in options.values()),
    )


def _all_texts(texts: list[Any]) -> bool:
    return all(isinstance(text, str) for text in texts)


def _options(options: Any) -> dict[str, str]:
    """Letter -> text of the options, {} if they are not as described in `HELP`."""
    if not isinstance(options, list) or not _all_texts(options):
        return {}
    found = [_OPTION.fullmatch(option) for option in options]
    letters = {match[1]: match[2] for match in found if match}
    return letters if len(letters) == len(options) else {}


def _right(options: dict[str, str], answer: str) -> str | None:
    """The text of the right option, which is given by its letter or in full; None if it is none of them."""
    match = _OPTION.fullmatch(answer)
    letter, text = (match[1], match[2]) if match else (answer.strip().strip("().").upper(), None)
    right = options.get(letter)
    return right if text in (None, right) else None


def _film(folder: Path, path: str) -> Path | None:
    """The file of a film by a path such as `../deid_png/...`; None for one that leads elsewhere."""
    parts = PurePosixPath(path).parts
    below = parts[parts.index(FOLDER) :] if FOLDER in parts else ()
    return folder.joinpath(*below) if len(below) > 1 and ".." not in below and "\0" not in path else None


def write_tree(out: Path, studies: int, seed: int, image_size: int) -> dict[str, int]:
    """Makes the folder `out` with questions about phantom films in this layout, see `phantom_tree.write`."""
    from data_prep.phantom.questions import ask
    from data_prep.sources import phantom_tree

    table = sources()[NAME]
    tasks = {
        "PRES": "Presence Assessment",
        "POS": "Location Analysis",
        "ABN": "Differential",
        "SIZE": "Geometric Reasoning",
    }

    def files(root: Path, films: Iterator[phantom_tree.Film]) -> Iterator[dict[str, Any]]:
        items: dict[str, dict[str, dict[str, Any]]] = {"train": {}, "valid": {}, "test": {}}
        for _, of_study in itertools.groupby(films, lambda film: film.number):
            shown = list(of_study)
            film, part = shown[0], "valid" if shown[0].split == "validate" else shown[0].split
            stem = f"{FOLDER}/P{film.subject_id}/A{film.study_id}/studies/{film.study_id}/instances"
            for each in shown:
                phantom_tree.write_png(root / stem / f"{each.id}.png", each.pixels())
            rng = np.random.default_rng([seed, film.number])
            for asked in ask(film.study, rng):
                texts = _choices(asked.answer, rng)
                right = chr(ord("A") + texts.index(asked.answer))
                key = f"q{len(items[part])}"
                row = {"question": asked.text, "options": [f"{chr(ord('A') + i)}. {t}" for i, t in enumerate(texts)]}
                row |= {"answer": right, "question_type": tasks[asked.question_type], "phrase_type": "Chest"}
                row |= {"image": [f"../{stem}/{each.id}.png" for each in shown], "view": [each.view for each in shown]}
                row |= {"study_id": film.study_id, "subject_id": f"P{film.subject_id}"}
                row |= {"sex": film.study.sex, "age": f"{film.study.age:03d}Y"}
                items[part][key] = {field.column: row[name] for name, field in table.fields.items()}
                yield questions.truth(
                    film,
                    id=f"{values.split(part)}-{key}",
                    subject_id=f"P{film.subject_id}",
                    text=asked.text,
                    answer=asked.answer,
                    answer_original=asked.answer,
                    answer_type="CLOSED" if asked.answer in ("yes", "no") else "OPEN",
                    question_type=tasks[asked.question_type].upper(),
                    phrase_type="chest",
                    options="\n".join(texts),
                    split=values.split(part),
                )
        for part, listed in items.items():
            phantom_tree.write_json(root / "metadata" / f"{part}_vqa_data.json", listed)

    return phantom_tree.write(out, NAME, studies, seed, image_size, files)


def _choices(answer: str, rng: np.random.Generator) -> list[str]:
    """The right answer among wrong ones, in any order."""
    others = (
        ("yes", "no") if answer in ("yes", "no") else ("right side", "left upper lung", "moderate", "mild", "small")
    )
    chosen = [answer, *[other for other in others if other != answer][:3]]
    return [chosen[place] for place in rng.permutation(len(chosen))]
