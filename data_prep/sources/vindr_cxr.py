"""VinDr-CXR: frontal DICOM films that radiologists have labelled, and boxes around what they saw."""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.mimic_layout import DICOM_ID
from data_prep.rows import Rejection, Row
from data_prep.sources import reading, values
from data_prep.sources.made import made
from data_prep.sources.table import Source, accepted, sources
from data_prep.tables import label_value, read_table
from medvill_jax.data.records import DataError
from medvill_jax.errors import MissingExtra
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN

NAME = "vindr_cxr"
HELP = """\
Reads VinDr-CXR: DICOM films with labels and boxes of radiologists, without reports.

  SOURCE/train/<image_id>.dicom, SOURCE/test/<image_id>.dicom
  SOURCE/annotations/image_labels_train.csv, image_labels_test.csv     a column for each class, a row for each reader
  SOURCE/annotations/annotations_train.csv, annotations_test.csv       a box in a row

--records=findings: a record is a film with its labels, for classification. A reader who marks one of the classes of a
finding sees that finding. Its label is positive if most readers of the film see it, negative if most do not, uncertain
if they are divided; the test set has their consensus. Classes without counterpart among the 14 of CheXpert (aortic
enlargement, calcification, tuberculosis, ...) set no label; Enlarged Cardiomediastinum and Support Devices are never
mentioned.

--records=phrases: a record is a film and one class that most of its readers have boxed. Its text is the name of the
class in plain words, its boxes are those of all readers, none merged. What a minority has boxed, and "other lesion",
are no rows; build_report.json counts them.

No patients are named, so each film counts as one. All films are PA. There is no validation split.
"""
RECORDS = ("findings", "phrases")
VIEW = "PA"
SPLITS = ("train", "test")
# Classes whose names are no plain words.
PHRASES = {
    "COPD": "chronic obstructive pulmonary disease",
    "Enlarged PA": "enlarged pulmonary artery",
    "ILD": "interstitial lung disease",
    "Nodule/Mass": "nodule or mass",
}
NO_FINDING = "No finding"
# Not a thing that one can look for.
NO_PHRASES = (NO_FINDING, "Other lesion", "Other disease", "Other diseases")
# Pixels by which a box may stand out of its film.
_MARGIN = 1.0
_NO_LABELS = (ABSENT,) * len(CHEXPERT_FINDINGS)
_TAGS = ("PatientSex", "PatientAge", "Rows", "Columns")


@dataclass
class _Film:
    """What the readers of a film say: reader -> the classes that are seen; `fault` is a reason and a detail."""

    path: Path
    readers: dict[str, frozenset[str]] = field(default_factory=dict)
    fault: tuple[str, str] = ("", "")

    @functools.cached_property
    def tags(self) -> dict[str, Any] | None:
        """What its header says, None if that cannot be read."""
        return _tags(self.path)


@dataclass
class _Boxes:
    """The boxes of one class in one film, in pixels, and who drew them; `fault` is a reason and a detail."""

    places: list[tuple[float, ...]] = field(default_factory=list)
    readers: set[str] = field(default_factory=set)
    fault: tuple[str, str] = ("", "")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this source alone."""
    parser.add_argument(
        "--records",
        choices=RECORDS,
        default=RECORDS[0],
        help="findings: films with labels; phrases: names of findings with boxes, for grounding (default: findings)",
    )


def prepare(
    source: Path, out: Path, *, records: str = RECORDS[0], accept_unverified: bool = False, **build_options: Any
) -> dict[str, Any]:
    """Makes the data set `out` from a copy of VinDr-CXR and returns the build report.

    Args:
      source: the folder with `train`, `test` and `annotations`.
      out: the folder to make.
      records: one of `RECORDS`.
      accept_unverified: read columns that the table does not cite.
      build_options: as for `made.made`.

    Raises `DataError`.
    """
    if records not in RECORDS:
        raise DataError(f"no such records: {records}; there are {', '.join(RECORDS)}")
    table = accepted(NAME, accept_unverified)
    kinds = ("labels",) if records == "findings" else ("labels", "boxes")
    files = {f"{kind}_{part}": reading.find(table, source, f"{kind}_{part}") for kind in kinds for part in SPLITS}
    notes: dict[str, Any] = {}
    if records == "findings":
        rows, form = _findings(table, files, source), {}
    else:
        rows, form = _phrases(table, files, source, notes), {"kind": "phrase", "text_required": True}
        form["further"] = ("boxes", "language")
    options = {"records": records}
    return made(table, rows, out, files=files.values(), options=options, notes=notes, **form, **build_options)


def _findings(table: Source, files: dict[str, Path], source: Path) -> Iterator[Row | Rejection]:
    for part in SPLITS:
        for image, film in _films(table, files[f"labels_{part}"], source / part).items():
            yield _row(table, image, film, part)


def _phrases(table: Source, files: dict[str, Path], source: Path, notes: dict[str, Any]) -> Iterator[Row | Rejection]:
    left_out = Counter[str]()
    for part in SPLITS:
        films = _films(table, files[f"labels_{part}"], source / part)
        for (image, name), boxes in _boxes(table, files[f"boxes_{part}"]).items():
            film = films.get(image, _Film(source, fault=("tables_disagree", "the label table has no row of this film")))
            if name in NO_PHRASES:
                left_out[name] += 1
            elif not film.fault[0] and not boxes.fault[0] and 2 * len(boxes.readers) <= len(film.readers):
                left_out["seen by a minority"] += 1
            else:
                yield _phrase(table, _row(table, image, film, part), name, boxes, film.tags or {})
    notes["phrases_left_out"] = dict(sorted(left_out.items()))


def _row(table: Source, image: str, film: _Film, part: str) -> Row | Rejection:
    """A film with its labels."""
    if film.fault[0]:
        return Rejection(image, *film.fault)
    tags = film.tags
    if tags is None:
        reason = "unreadable_image" if film.path.is_file() else "missing_image"
        return Rejection(image, reason, str(film.path))
    return Row(
        id=image,
        study_id=image,
        subject_id=image,
        split=part,
        image=film.path,
        text="",
        labels=_voted(table, film),
        view=VIEW,
        extra={"sex": values.sex(tags["PatientSex"]), "age": values.age(tags["PatientAge"])},
    )


def _voted(table: Source, film: _Film) -> tuple[int, ...]:
    """One label per finding of CheXpert: what most readers see; uncertain if they are divided."""
    labels: dict[str, int] = dict.fromkeys(CHEXPERT_FINDINGS, ABSENT)
    for finding in filter(None, table.labels.values()):
        classes = {name for name, of in table.labels.items() if of == finding}
        votes = [1 if seen & classes else -1 for seen in film.readers.values()]
        labels[finding] = POSITIVE if sum(votes) > 0 else NEGATIVE if sum(votes) < 0 else UNCERTAIN
    return tuple(labels.values())


def _phrase(table: Source, row: Row | Rejection, name: str, boxes: _Boxes, tags: dict[str, Any]) -> Row | Rejection:
    """A film's row -> the row of one class that is boxed in it."""
    identifier = f"{row.id}-{name.lower().replace(' ', '_').replace('/', '_')}"
    if isinstance(row, Rejection):
        return Rejection(identifier, row.reason, row.detail)
    size = np.asarray([tags["Columns"], tags["Rows"]] * 2, np.float64)
    places = np.asarray(boxes.places).reshape(-1, 4)
    if boxes.fault[0]:
        return Rejection(identifier, *boxes.fault)
    if (places < -_MARGIN).any() or (places > size + _MARGIN).any():
        return Rejection(identifier, "unknown_value", f"a box leaves its film of {size[0]:g} x {size[1]:g} pixels")
    seen = np.unique(np.clip(places / size, 0, 1), axis=0).tolist()
    extra = {**row.extra, "category": table.labels[name] or name, "language": "en", "boxes": seen}
    return replace(row, id=identifier, text=PHRASES.get(name, name.lower()), labels=_NO_LABELS, extra=extra)


def _films(table: Source, path: Path, folder: Path) -> dict[str, _Film]:
    """The films of a label table. Raises `DataError` for a class that the table of sources does not have."""
    image_column, reader_column = table.fields["id"].column, table.fields["reader"].column
    needed = [name for name, finding in table.labels.items() if finding]
    optional = (reader_column, *(name for name, finding in table.labels.items() if not finding))
    films: dict[str, _Film] = {}
    for line, row in enumerate(read_table(path, (image_column, *needed), optional), 2):
        image, reader = row.pop(image_column), row.pop(reader_column, "")
        if unknown := row.keys() - table.labels.keys():
            raise DataError(f"{path} has columns that are no known classes: {', '.join(sorted(unknown))}")
        film = films.setdefault(image or f"line {line}", _Film(folder / f"{image}.dicom"))
        marks = {name: label_value(cell) for name, cell in row.items()}
        wrong = [name for name, mark in marks.items() if mark not in (POSITIVE, NEGATIVE)]
        seen = frozenset(name for name, mark in marks.items() if mark == POSITIVE)
        if row.fault or not DICOM_ID.fullmatch(image) or ".." in image:
            film.fault = ("malformed_row", f"line {line}: {row.fault or 'image_id is no name of a file'}")
        elif wrong:
            film.fault = ("bad_label_value", f"line {line}: {wrong[0]} is {row[wrong[0]][:40]!r}, neither 1 nor 0")
        elif film.readers.setdefault(reader, seen) != seen:
            film.fault = ("rows_disagree", f"line {line}: an earlier row of this reader says otherwise")
    return films


def _boxes(table: Source, path: Path) -> dict[tuple[str, str], _Boxes]:
    """`(film, class)` -> its boxes."""
    found: dict[tuple[str, str], _Boxes] = {}
    for line, row in enumerate(reading.rows(table, path, "boxes_train"), 2):
        if row["category"] == NO_FINDING:
            continue
        boxes = found.setdefault((row["box_id"] or f"line {line}", row["category"]), _Boxes())
        try:
            place = tuple(float(row[side]) for side in ("left", "top", "right", "bottom"))
        except ValueError:
            place = ()
        if row.fault:
            boxes.fault = ("malformed_row", f"line {line}: {row.fault}")
        elif row["category"] not in table.labels:
            boxes.fault = ("unknown_label", f"line {line}: {row['category'][:40]!r}")
        elif not place or not np.isfinite(place).all() or place[0] >= place[2] or place[1] >= place[3]:
            boxes.fault = ("unknown_value", f"line {line}: not a box of four numbers, the smaller ones first")
        boxes.places.append(place or (0.0,) * 4)
        boxes.readers.add(row["box_reader"])
    return found


def _tags(path: Path) -> dict[str, Any] | None:
    """What is read of a film before its pixels; None if it cannot be read."""
    try:
        from medvill_jax.films.dicom_file import read
    except ImportError as error:
        raise DataError(str(MissingExtra("pydicom", "dicom", "reading DICOM files"))) from error
    try:
        with open(path, "rb") as file:
            header = read(file, _TAGS)
        return {
            **{name: str(header.get(name) or "") for name in ("PatientSex", "PatientAge")},
            **{name: int(header[name].value) for name in ("Rows", "Columns")},
        }
    except Exception:  # bad bytes make pydicom raise nearly anything
        return None


def write_tree(out: Path, studies: int, seed: int, image_size: int) -> dict[str, int]:
    """Makes the folder `out` with phantom films in this layout, see `vindr_tree.write`."""
    from data_prep.sources import vindr_tree

    return vindr_tree.write(sources()[NAME], out, studies, seed, image_size)
