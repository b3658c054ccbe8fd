"""The official VQA-RAD files (questions and answers about radiographs and slices) -> records, one per question."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.build import Rejection, Row, build, file_fingerprint
from data_prep.files import listed
from data_prep.ids import identifier_of
from data_prep.splits import split_of
from medvill_jax.data.questions import normalize_answer, without_note
from medvill_jax.data.records import DataError
from medvill_jax.findings import NO_LABELS

QUESTION_FILES = ("VQA_RAD Dataset Public.json", "VQA_RAD_Dataset_Public.json", "vqa_rad.json", "questions.json")
IMAGE_FOLDERS = ("VQA_RAD Image Folder", "VQA_RAD_Image_Folder", "images", ".")
ORGANS = ("HEAD", "CHEST", "ABD")
SPLIT_RULES = ("official", "image_disjoint")
# In the official split, questions whose phrase_type begins with this are for testing.
TEST_PHRASES = "test_"
# The image-disjoint split has about the shares of the official one.
IMAGE_SHARES = (("train", 0.8), ("test", 1.0))
ANSWER_TYPES = ("CLOSED", "OPEN")
_IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,200}")


def prepare(
    source: Path,
    out: Path,
    *,
    split: str = "official",
    organs: tuple[str, ...] = (),
    seed: int = 0,
    limit: int | None = None,
    **build_options: Any,
) -> dict[str, Any]:
    """Makes the data set `out` from VQA-RAD and returns the build report.

    A record is one question with its image; the image is stored once per question.

    Args:
      source: the folder with the official JSON file and the image folder.
      out: the folder to make.
      split: "official" (451 test questions; nearly all their images are in the train split too) or "image_disjoint"
        (80 / 20 per cent of the images by `seed`: no image is in both, and no patient if questions have `subject_id`).
      organs: of `ORGANS`, () for all; questions on others are not rows (the report counts them).
      seed: of the split "image_disjoint".
      limit: how many rows to take, from the first; None for all.
      build_options: `image_size`, `tokenizer`, `max_rejected` and so on, see `build.build`.

    Raises `DataError`.
    """
    if split not in SPLIT_RULES:
        raise DataError(f"no such split: {split}; there are {', '.join(SPLIT_RULES)}")
    organs = tuple(sorted({organ.upper() for organ in organs}))
    unknown = sorted(set(organs) - set(ORGANS))
    if unknown:
        raise DataError(f"no such organ: {', '.join(unknown)}; there are {', '.join(ORGANS)}")
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no rows")
    questions = _find(source, QUESTION_FILES, "file")
    images = _find(source, IMAGE_FOLDERS, "folder")
    notes: dict[str, Any] = {}
    return build(
        _rows(_read(questions), images, split, organs, seed, limit, notes),
        out,
        name="vqa_rad",
        kind="vqa",
        options={
            "split": split,
            "organs": list(organs),
            "limit": limit,
            "source": file_fingerprint([questions]),
            **({"seed": seed} if split != "official" else {}),
        },
        notes=notes,
        **build_options,
    )


def _find(source: Path, names: tuple[str, ...], what: str) -> Path:
    if not source.is_dir():
        raise DataError(f"there is no folder {source}: --source is the folder of your copy of VQA-RAD")
    for name in names:
        path = source / name
        if path.is_file() if what == "file" else path.is_dir() and (name != "." or any(listed(source, ".jpg"))):
            return path
    raise DataError(
        f"{source} has no {what} {names[0]!r}: expected {QUESTION_FILES[0]!r} and the folder {IMAGE_FOLDERS[0]!r}, as "
        "downloaded from https://osf.io/89kps/"
    )


def _read(path: Path) -> list[Any]:
    try:
        questions = json.loads(path.read_text("utf-8-sig"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}): download it again") from error
    if not isinstance(questions, list):
        raise DataError(f"{path} is not a list of questions: download it again")
    return questions


def _rows(
    questions: list[Any],
    images: Path,
    split: str,
    organs: tuple[str, ...],
    seed: int,
    limit: int | None,
    notes: dict[str, Any],
) -> Iterator[Row | Rejection]:
    not_selected: Counter[str] = Counter()
    images_in_use: set[str] = set()
    patients = _patients(questions)
    count = 0
    for number, question in enumerate(questions, 1):
        organ = _text(question, "image_organ").upper() if isinstance(question, dict) else ""
        if organs and organ in ORGANS and organ not in organs:
            not_selected[organ] += 1
            continue
        if limit is not None and count >= limit:
            break
        count += 1
        row = _row(question, f"question {number}", organ, images, split, seed, patients)
        if isinstance(row, Row):
            images_in_use.add(row.image.name)
        yield row
    notes["organs_not_selected"] = not_selected
    notes["images_in_use"] = len(images_in_use)


def _patients(questions: list[Any]) -> dict[str, set[str]]:
    """Image -> the patients that its questions name; several are an error of the file."""
    patients: dict[str, set[str]] = {}
    for question in questions:
        if isinstance(question, dict) and (patient := identifier_of(question.get("subject_id"))):
            patients.setdefault(Path(_text(question, "image_name")).stem, set()).add(patient)
    return patients


def _row(
    question: Any, where: str, organ: str, images: Path, split: str, seed: int, patients: dict[str, set[str]]
) -> Row | Rejection:
    if not isinstance(question, dict):
        return Rejection(where, "malformed_row", f"{where} is not an object")
    identifier = identifier_of(question.get("qid")) or ""
    missing = [key for key in ("image_name", "question", "answer") if not _text(question, key)]
    missing = missing if identifier else ["qid", *missing]
    if missing:
        return Rejection(identifier or where, "missing_field", f"{where} has no {', '.join(missing)}")
    name, phrase = _text(question, "image_name"), _text(question, "phrase_type").lower()
    answer_type = _text(question, "answer_type").upper()
    if not _IMAGE_NAME.fullmatch(name) or ".." in name:
        return Rejection(identifier, "unsafe_path", f"{where}: image_name {name[:60]!r} is not a plain file name")
    if answer_type not in ANSWER_TYPES or organ not in ORGANS:
        return Rejection(
            identifier,
            "unknown_value",
            f"{where}: answer_type {answer_type[:20]!r}, image_organ {organ[:20]!r}; expected "
            f"{' or '.join(ANSWER_TYPES)}, {' or '.join(ORGANS)}",
        )
    image = Path(name).stem
    # VQA-RAD does not name patients, so each image counts as a patient.
    named = patients.get(image, {image})
    if identifier_of(question.get("subject_id")) is None or len(named) > 1:
        detail = (
            "subject_id is not an id" if len(named) == 1 else f"questions give image {image[:60]!r} to several subjects"
        )
        return Rejection(identifier, "tables_disagree" if len(named) > 1 else "malformed_row", f"{where}: {detail}")
    patient = min(named)
    if split == "official":
        part = "test" if phrase.startswith(TEST_PHRASES) else "train"
    else:
        part = split_of(patient, seed, IMAGE_SHARES)
    question_text = _text(question, "question")
    return Row(
        id=identifier,
        study_id=image,
        subject_id=patient,
        split=part,
        image=images / name,
        text=without_note(question_text),
        labels=NO_LABELS,
        extra={
            "question": question_text,
            "answer": normalize_answer(question["answer"]),
            "answer_original": _text(question, "answer"),
            "answer_type": answer_type,
            "question_type": ", ".join(part.strip() for part in _text(question, "question_type").upper().split(",")),
            "phrase_type": phrase,
            "organ": organ,
            "image_name": name,
        },
    )


def _text(question: dict[str, Any], key: str) -> str:
    """A field as stripped text; "" if it is neither a string nor a number."""
    value = question.get(key)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return str(value).strip()
