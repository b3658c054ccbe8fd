"""Image-text pairs of the user, listed in a `.jsonl` index -> records."""

from __future__ import annotations

import codecs
import difflib
import io
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep import dicom, reports
from data_prep.build import Rejection, Row, build, file_fingerprint
from data_prep.files import escapes, hidden
from data_prep.ids import identifier_of
from data_prep.mimic_layout import SUFFIXES
from data_prep.splits import SPLIT_NAMES, split_of
from data_prep.tables import label_value
from medvill_jax.data.records import DataError
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS, POSITIVE

SUBJECT_FIELDS = ("subject_id", "patientid", "patient_id")
_FIELDS = ("id", "image", "text", "split", "labels", "study_id", "view", *SUBJECT_FIELDS)
SPLIT_RULES = ("index", "subject")
LABELS_FILE = "labels.txt"
# A label at least this similar to a CheXpert finding is a misspelling of it, not another finding.
_MISSPELT = 0.85


def prepare(
    source: Path,
    out: Path,
    *,
    label_names: Sequence[str] | None = None,
    split: str = "index",
    seed: int = 0,
    limit: int | None = None,
    **build_options: Any,
) -> dict[str, Any]:
    """Makes the data set `out` from a `.jsonl` index and returns the build report.

    Every line is a JSON object with `id`, `image` (a path relative to the index) and `text`; optional are `split`,
    `labels` (a list of positive findings, or an object finding -> 1 / 0 / -1 / null), `subject_id` (or `patientid`),
    `study_id` and `view` (without it, that of a DICOM image). Where there are `labels`, `text` may be missing, null or
    "": the record is for classification only.

    Args:
      source: the index, or a folder with an `index.jsonl`.
      out: the folder to make.
      label_names: the findings; None takes `labels.txt` in the folder of the index (one per line), or else the 14 of
        CheXpert and all others that the index names, in alphabetical order.
      split: "index" (the splits of the index; rows without one are split as by "subject") or "subject" (80 / 10 / 10
        per cent of the subjects, instead of the splits of the index).
      seed: of the split by subject.
      limit: how many rows to take, from the first; None for all.
      build_options: `image_size`, `tokenizer`, `max_rejected` and so on, see `build.build`.

    Raises `DataError`.
    """
    index = source / "index.jsonl" if source.is_dir() else source
    if not index.is_file():
        raise DataError(
            f"there is no index at {index}: --source is a .jsonl file whose lines are objects like "
            '{"id": "a1", "image": "images/a1.jpg", "text": "No acute findings.", "split": "train"}'
        )
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no rows")
    if split not in SPLIT_RULES:
        raise DataError(f"no such split: {split}; there are {', '.join(SPLIT_RULES)}")
    names, others = _label_names(index, label_names)
    notes: dict[str, Any] = {"label_names_beyond_chexpert": others} if others else {}
    rows = _rows(index, names, split, seed, notes)
    return build(
        rows if limit is None else itertools.islice(rows, limit),
        out,
        name="pairs",
        options={
            "seed": seed,
            "limit": limit,
            "source": file_fingerprint([index]),
            **({"split": split} if split != "index" else {}),
        },
        label_names=names,
        text_required=False,
        notes=notes,
        **build_options,
    )


def _label_names(index: Path, chosen: Sequence[str] | None) -> tuple[tuple[str, ...], dict[str, int]]:
    """The findings, and those of them that only the index names, with the number of rows that do."""
    path = index.parent / LABELS_FILE
    if chosen is not None:
        names, origin = tuple(chosen), "--label_names"
    elif path.is_file():
        try:
            names = tuple(line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip())
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text") from error
        origin = str(path)
    else:
        others = _other_labels(index)
        return (*CHEXPERT_FINDINGS, *others), others
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not names or not all(names) or repeated:
        raise DataError(
            f"{origin} must name findings, each once" + (f"; repeated: {', '.join(repeated)}" if repeated else "")
        )
    return names, {}


def _other_labels(index: Path) -> dict[str, int]:
    """Labels of the index that are not CheXpert's -> number of rows; misspellings of CheXpert's are left out."""
    known = {name.casefold() for name in CHEXPERT_FINDINGS}
    counts: Counter[str] = Counter()
    for line in _lines(index):
        try:
            labels = _known(json.loads(line.decode("utf-8-sig"))).get("labels")
        except (ValueError, RecursionError):
            continue  # `_row` rejects it
        if isinstance(labels, list | dict):
            counts.update({name for name in labels if isinstance(name, str) and name.strip() == name != ""})
    counts = Counter({name: n for name, n in counts.items() if name not in CHEXPERT_FINDINGS})
    return {n: counts[n] for n in sorted(counts) if not difflib.get_close_matches(n.casefold(), known, 1, _MISSPELT)}


def _rows(
    index: Path, names: tuple[str, ...], rule: str, seed: int, notes: dict[str, Any] | None = None
) -> Iterator[Row | Rejection]:
    subjects = _subjects(index)
    for number, line in enumerate(_lines(index), 1):
        if line.strip():
            yield _row(line, f"line {number}", index.parent, names, rule, seed, subjects)
    if notes is not None and subjects.named and subjects.alone:
        notes["rows_without_subject"] = subjects.alone


def _lines(index: Path) -> Iterator[bytes]:
    """The lines of an index as UTF-8 bytes, also of an index in UTF-16, which PowerShell writes."""
    with open(index, "rb") as file:
        if file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            with io.TextIOWrapper(file, "utf-16", errors="replace") as text:
                yield from (line.encode("utf-8", "replace") for line in text)
        else:
            yield from file


@dataclass
class _Subjects:
    """The subject of rows that name none: that of the other rows of their study, or else a separate one.

    Attributes:
      of_study: study -> the one subject that its rows name.
      named: whether any row names a subject.
      alone: number of rows so far that count as separate subjects.
    """

    of_study: dict[str, str]
    named: bool
    alone: int = 0

    def of(self, study: str) -> str:
        self.alone += study not in self.of_study
        return self.of_study.get(study, study)


def _subjects(index: Path) -> _Subjects:
    of_study: dict[str, str] = {}
    several: set[str] = set()
    named = False
    for line in _lines(index):
        try:
            fields = _known(json.loads(line.decode("utf-8-sig")))
        except (ValueError, RecursionError):
            continue  # `_row` rejects it
        study, subject = (identifier_of(fields.get(name)) for name in ("study_id", SUBJECT_FIELDS[0]))
        named = named or bool(subject)
        if study and subject and of_study.setdefault(study, subject) != subject:
            several.add(study)  # studies are numbered anew for every subject
    return _Subjects({study: subject for study, subject in of_study.items() if study not in several}, named)


def _known(fields: Any) -> dict[str, Any]:
    """The fields under their names in `_FIELDS`, which may be written in any case and punctuation; NaN becomes null.

    Raises `_NoObjectError`, a `ValueError`, if `fields` is not a JSON object.
    """
    if not isinstance(fields, dict):
        raise _NoObjectError
    names = {"".join(filter(str.isalnum, name)): name for name in _FIELDS}
    known: dict[str, Any] = {}
    for written, value in fields.items():
        value = None if isinstance(value, float) and math.isnan(value) else value
        name = names.get("".join(filter(str.isalnum, written.casefold()))) or written
        if known.get(name) is None or (value is not None and written == name):
            known[name] = value
    known[SUBJECT_FIELDS[0]] = next((known[name] for name in SUBJECT_FIELDS if known.get(name) not in (None, "")), None)
    return known


class _NoObjectError(ValueError):
    pass


def _row(
    line: bytes, where: str, root: Path, names: tuple[str, ...], rule: str, seed: int, subjects: _Subjects
) -> Row | Rejection:
    try:
        fields = _known(json.loads(line.decode("utf-8-sig")))
    except _NoObjectError:
        return Rejection(where, "malformed_row", f"{where} is JSON, but not an object")
    except UnicodeDecodeError:
        return Rejection(where, "malformed_row", f"{where} is not UTF-8 text")
    except (ValueError, RecursionError) as error:
        detail = (
            f"column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else type(error).__name__
        )
        return Rejection(where, "malformed_row", f"{where} is not JSON: {detail}")
    identifier = identifier_of(fields.get("id"))
    if not identifier:
        return Rejection(where, "missing_field", f"{where} has no id")
    if isinstance(fields["id"], str):
        identifier = fields["id"].strip()  # as it is: "1.0" and "1" may be two images
    labeled = fields.get("labels") is not None
    if labeled and fields.get("text") is None:
        fields["text"] = ""
    missing = [name for name in ("image", "text") if not isinstance(fields.get(name), str)]
    if missing or not fields["image"]:
        alone = " and no labels" if "text" in missing and not labeled else ""
        return Rejection(
            identifier, "missing_field", f"{where} has no {' and no '.join(missing) or 'image'} (a string){alone}"
        )
    if escapes(identifier) or escapes(fields["image"]):
        field = "id" if escapes(identifier) else "image"
        return Rejection(
            identifier, "unsafe_path", f"{where}: the {field} is absolute or leads out of the folder of the index"
        )
    if hidden(fields["image"]):
        return Rejection(identifier, "hidden_file", where)
    study, subject = (identifier_of(fields.get(name)) for name in ("study_id", SUBJECT_FIELDS[0]))
    if study is None or subject is None:
        field = "study_id" if study is None else SUBJECT_FIELDS[0]
        return Rejection(identifier, "malformed_row", f"{where}: {field} {_shown(fields[field])} is not an id")
    text = reports.select(fields["text"], (reports.FULL,))
    if not text and not labeled:
        return Rejection(identifier, "empty_text", where)
    labels = _labels(fields.get("labels"), names)
    if isinstance(labels, Rejection):
        return Rejection(identifier, labels.reason, f"{where}: {labels.detail}")
    study = study or identifier
    subject = subject or subjects.of(study)
    split = fields.get("split") if rule == "index" else None
    if split is None or split == "":
        split = split_of(subject, seed)
    else:
        known = SPLIT_NAMES.get(split.strip().lower()) if isinstance(split, str) else None
        if known is None:
            expected = "train, validation (valid, validate, val, dev) or test"
            return Rejection(identifier, "unknown_split", f"{where}: split {_shown(split)}; expected {expected}")
        split = known
    view, path = fields.get("view"), root / fields["image"]
    view = view.strip().upper() if isinstance(view, str) else ""
    if not view and path.suffix.lower() in SUFFIXES["dicom"]:
        view = dicom.view_position(path) or ""
    return Row(identifier, study, subject, split, path, text, labels, view)


def _labels(labels: Any, names: tuple[str, ...]) -> tuple[int, ...] | Rejection:
    """One value per name; findings without a label count as not mentioned."""
    if labels is None:
        labels = []
    if isinstance(labels, list):
        bad = [item for item in labels if not isinstance(item, str)]
        if bad:
            return Rejection(
                "", "bad_label_value", f"labels is a list, which must hold finding names, but has {_shown(bad[0])}"
            )
        labels = dict.fromkeys(labels, POSITIVE)
    if not isinstance(labels, dict):
        return Rejection("", "bad_label_value", "labels is neither a list of findings nor an object finding -> value")
    values = dict.fromkeys(names, ABSENT)
    for name, value in labels.items():
        if name not in values:
            near = difflib.get_close_matches(name.strip().casefold(), [n.casefold() for n in names], 1, _MISSPELT)
            meant = next((f": is it {n!r}?" for n in names if near and n.casefold() == near[0]), "")
            return Rejection("", "unknown_label", f"{_shown(name)} is not one of the {len(names)} label names{meant}")
        number = value is None or (isinstance(value, int | float | str) and not isinstance(value, bool))
        label = label_value(str(value)) if number else None
        if label is None:
            return Rejection("", "bad_label_value", f"{name} is {_shown(value)}; expected 1, 0, -1 or null")
        values[name] = label
    return tuple(values.values())


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
