"""MIMIC-CXR-VQA: questions about films of MIMIC-CXR, made from templates, and their answers."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep import mimic_layout
from data_prep.ids import identifier, identifier_of, number
from data_prep.rows import Rejection, Row
from data_prep.sources import json_items, questions, values
from data_prep.sources.made import made
from data_prep.sources.table import Source, accepted, sources
from data_prep.tables import read_table
from medvill_jax.data.records import DataError

NAME = "mimic_cxr_vqa"
HELP = """\
Reads the questions of MIMIC-CXR-VQA and their films, those of MIMIC-CXR-JPG or, as DICOM, of MIMIC-CXR:

  SOURCE/train.json, valid.json, test.json                           with answers, as its script or PhysioNet gives them
  IMAGES/files/p10/p10000032/s50414267/<image_id>.jpg                or in any other layout that mimic_cxr reads
  IMAGES/mimic-cxr-2.0.0-metadata.csv.gz                             if it is there, for the views of the films

A record is one question with its film. Several answers are one: normalised, in alphabetical order, joined by "and"; no
answer is "none". Questions to verify and to choose are CLOSED, queries are OPEN; what there is to verify has the answer
yes or no. The question_type is the content type, the phrase_type the semantic type. The splits are the three files.
"""
# Semantic type -> whether the question has its possible answers in it.
SEMANTICS = {"verify": True, "choose": True, "query": False}
CONTENTS = ("anatomy", "attribute", "presence", "abnormality", "plane", "gender", "size")
# Items by which the layout of the films is found.
_SAMPLE = 40


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this source alone."""
    parser.add_argument("--images", type=Path, help="your copy of MIMIC-CXR-JPG or MIMIC-CXR (default: SOURCE)")


def prepare(
    source: Path, out: Path, *, images: Path | None = None, accept_unverified: bool = False, **build_options: Any
) -> dict[str, Any]:
    """Makes the data set `out` from copies of MIMIC-CXR-VQA and MIMIC-CXR-JPG and returns the build report.

    Args:
      source: the folder with the three JSON files.
      out: the folder to make.
      images: the copy of MIMIC-CXR-JPG or MIMIC-CXR; None for `source`.
      accept_unverified: read columns that the table does not cite.
      build_options: as for `made.made`.

    Raises `DataError`.
    """
    table = accepted(NAME, accept_unverified)
    folder = images or source
    paths = questions.files(table, source)
    films = mimic_layout.find_images(folder, _sample(table, paths["train"]))
    if films is None:
        raise DataError(
            f"{folder} has none of the films that the questions are about: give the folder with "
            "files/p10/p10000032/s50414267/<image_id>.jpg and so on as --images"
        )
    metadata = mimic_layout.find_table(folder, "metadata")
    views = _views(metadata) if metadata else {}

    def row(split: str, key: str, item: questions.Item) -> Row | Rejection:
        return _row(split, key, item, films, views)

    rows, files = questions.rows(table, paths, row), [*paths.values(), *filter(None, [metadata])]
    return made(table, rows, out, files=files, options={}, kind="vqa", text_required=True, **build_options)


def _sample(table: Source, path: Path) -> list[tuple[str, str, str]]:
    names = [table.fields[name].column for name in ("subject_id", "study_id", "image")]
    items = (item for _, item in itertools.islice(json_items.items(path), _SAMPLE) if isinstance(item, dict))
    ids = (_ids(*(item.get(name) for name in names)) for item in items)
    return [each for each in ids if mimic_layout.usable(*each)]


def _ids(subject: Any, study: Any, image: Any) -> tuple[str, str, str]:
    return number(identifier_of(subject) or ""), number(identifier_of(study) or ""), identifier_of(image) or ""


def _views(path: Path) -> dict[str, str]:
    """Film -> its view, by a table of MIMIC-CXR-JPG."""
    rows = read_table(path, ("dicom_id", "ViewPosition"))
    return {identifier(row["dicom_id"]): values.view(row["ViewPosition"]) for row in rows if not row.fault}


def _row(
    split: str, key: str, item: questions.Item, films: mimic_layout.Images, views: dict[str, str]
) -> Row | Rejection:
    named = identifier_of(item["id"])
    known = f"{split}-{named or key}"
    subject, study, image = _ids(item["subject_id"], item["study_id"], item["image"])
    content, semantic = str(item["question_type"]).strip().lower(), str(item["phrase_type"]).strip().lower()
    answers = [item["answer"]] if isinstance(item["answer"], str) else item["answer"]
    if not named or not isinstance(item["question"], str) or not isinstance(answers, list):
        return Rejection(known, "malformed_row", f"item {key}: idx, question or answer is of a wrong type")
    if not all(isinstance(answer, str) for answer in answers):
        return Rejection(known, "malformed_row", f"item {key}: an answer is not a text")
    if not mimic_layout.usable(subject, study, image):
        return Rejection(known, "unsafe_path", f"item {key}: subject_id, study_id or image_id is no id of MIMIC-CXR")
    if Path(str(item["path"])).with_suffix("").parts[-3:] != (f"p{subject}", f"s{study}", image):
        return Rejection(known, "tables_disagree", f"item {key}: image_path is of another film than the ids")
    if values.split(str(item["split"])) != split:
        return Rejection(known, "tables_disagree", f"item {key}: split is {str(item['split'])[:20]!r} in this file")
    if semantic not in SEMANTICS or content not in CONTENTS:
        kinds = f"semantic_type {semantic[:20]!r}, content_type {content[:20]!r}"
        return Rejection(known, "unknown_value", f"item {key}: {kinds}")
    answer = questions.answered(answers)
    if semantic == "verify" and answer not in ("yes", "no"):
        return Rejection(known, "unknown_value", f"item {key}: a question to verify has an answer beside yes and no")
    return questions.asked(
        known,
        split,
        study=study,
        subject=subject,
        image=films.path(subject, study, image),
        question=item["question"],
        answer=answer,
        original=json.dumps(item["answer"], ensure_ascii=False),
        closed=SEMANTICS[semantic],
        kinds=(content, semantic),
        view=views.get(image, ""),
    )


def write_tree(out: Path, studies: int, seed: int, image_size: int) -> dict[str, int]:
    """Makes the folder `out` with questions about phantom films in this layout, see `phantom_tree.write`."""
    from data_prep.phantom.questions import ask
    from data_prep.sources import phantom_tree

    table = sources()[NAME]

    def files(root: Path, films: Iterator[phantom_tree.Film]) -> Iterator[dict[str, Any]]:
        items: dict[str, list[dict[str, Any]]] = {"train": [], "valid": [], "test": []}
        views = [("dicom_id", "ViewPosition")]
        for film in films:
            views.append((film.id, film.view))
            if film.view == "LATERAL":
                continue
            part = "valid" if film.split == "validate" else film.split
            path = f"p{film.subject_id[:2]}/p{film.subject_id}/s{film.study_id}/{film.id}.jpg"
            _write_jpeg(root / "files" / path, film.pixels())
            seen = sorted({name.lower() for name in film.positive()} - {"no finding"})
            told = [("List all abnormalities.", "abnormality", "query", seen)]
            told += map(_told, ask(film.study, np.random.default_rng([seed, film.number, film.index])))
            for text, content, semantic, answers in told:
                row = {"split": part, "id": len(items[part]), "image": film.id, "path": path, "answer": answers}
                row |= {"subject_id": film.subject_id, "study_id": film.study_id, "question": text}
                row |= {"question_type": content, "phrase_type": semantic}
                items[part].append({field.column: row[name] for name, field in table.fields.items()})
                yield questions.truth(
                    film,
                    id=f"{values.split(part)}-{row['id']}",
                    text=text,
                    answer=" and ".join(answers) or "none",
                    answer_original=json.dumps(answers),
                    answer_type="OPEN" if semantic == "query" else "CLOSED",
                    question_type=content.upper(),
                    phrase_type=semantic,
                    split=values.split(part),
                    sex=None,
                    age=None,
                )
        for part, listed in items.items():
            phantom_tree.write_json(root / f"{part}.json", listed)
        (root / "mimic-cxr-2.0.0-metadata.csv").write_text("".join(f"{one},{view}\n" for one, view in views))

    return phantom_tree.write(out, NAME, studies, seed, image_size, files)


def _told(question: Any) -> tuple[str, str, str, list[str]]:
    """A question about a phantom film in the terms of this source."""
    content = {"PRES": "presence", "POS": "anatomy", "ABN": "abnormality", "SIZE": "size"}[question.question_type]
    closed = "verify" if question.answer in ("yes", "no") else "choose"
    return question.text, content, closed if question.answer_type == questions.CLOSED else "query", [question.answer]


def _write_jpeg(path: Path, pixels: Any) -> None:
    from data_prep.phantom import film

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film.eight_bit(pixels)).save(path, "JPEG", quality=95)
