"""Writes questions about the films of a phantom tree in the layout of VQA-RAD; equal trees give equal bytes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from data_prep import vqa_rad
from data_prep.phantom import hard, tree
from data_prep.phantom.questions import ask
from data_prep.workspace import workspace
from medvill_jax.data.records import DataError

MARKER = "phantom_questions.json"
# Stored in the marker, so that questions of an older generator are not reused.
QUESTIONS_VERSION = 2
VIEW = "AP"


def check(studies: int, seed: int) -> None:
    """Raises `DataError` if a tree of so many studies has no AP film for training or none for testing."""
    tree.check(studies, seed)
    parts = {_phrase_type(film) for film in _films(studies, seed)}
    if len(parts) < 2:
        missing = "test" if "freeform" in parts else "training"
        raise DataError(
            f"{studies} phantom studies are too few for questions: none of them is an AP film of a {missing} patient; "
            "some fifty have both"
        )


def write_questions(source: Path, out: Path) -> dict[str, int]:
    """Makes the folder `out` with questions about the AP films of the phantom tree `source`; an existing one is kept.

    `out` holds `VQA_RAD Dataset Public.json` and `VQA_RAD Image Folder/` as VQA-RAD does (see `vqa_rad.prepare`), with
    three to five questions per film, which also have the patient, `subject_id`. Questions about patients of the test
    split of the tree are for testing (`phrase_type` "test_freeform"), all others for training. Films are hard links to
    those of the tree if the file system has links, or else copies.

    Returns the number of "films" and "questions". Raises `DataError` if `source` is not a phantom tree or has too few
    studies, or `out` holds something else.
    """
    try:
        marker = json.loads((source / tree.MARKER).read_text())
        studies, seed = int(marker["studies"]), int(marker["seed"])
        difficulty = str(marker.get("difficulty", hard.STANDARD))
        first = tree.first_studies(studies, seed) if marker.get("priors") else [None] * studies
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{source} is not a phantom tree: make one with python -m data_prep phantom") from error
    check(studies, seed)
    options = {"questions_version": QUESTIONS_VERSION, "tree": {k: v for k, v in marker.items() if k != "counts"}}
    existing = tree.finished(out, MARKER, options, "questions about a phantom tree")
    if existing is not None:
        return existing
    questions, films = [], list(_films(studies, seed))
    with workspace(out) as work:
        folder = work / "vqa"
        images = folder / vqa_rad.IMAGE_FOLDERS[0]
        images.mkdir(parents=True)
        for film in films:
            image = images / Path(film.file).name
            _link(source / film.file, image)
            study = tree.study_of(seed, film.number, film.subject, difficulty, first[film.number])
            for question in ask(study, tree.question_rng(seed, film)):
                questions.append(
                    {
                        "qid": len(questions),
                        "phrase_type": _phrase_type(film),
                        "image_name": image.name,
                        "subject_id": film.subject,
                        "image_organ": "CHEST",
                        "question": question.text,
                        "question_type": question.question_type,
                        "answer": question.answer,
                        "answer_type": question.answer_type,
                    }
                )
        counts = {"films": len(films), "questions": len(questions)}
        (folder / vqa_rad.QUESTION_FILES[0]).write_text(json.dumps(questions, indent=1) + "\n")
        (folder / MARKER).write_text(json.dumps({**options, "counts": counts}, indent=1) + "\n")
        # Renaming replaces an empty folder at `out`.
        os.replace(folder, out)
    return counts


def _films(studies: int, seed: int) -> list[tree.Film]:
    return [film for film in tree.films(studies, seed) if film.view == VIEW]


def _phrase_type(film: tree.Film) -> str:
    return f"{vqa_rad.TEST_PHRASES}freeform" if film.split == "test" else "freeform"


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError as error:
        raise DataError(f"{source} is gone: the phantom tree is incomplete, delete it and make it again") from error
    except OSError:
        shutil.copyfile(source, target)
