"""The input of the builder: rows, and rejections of rows that cannot be used."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from medvill_jax.data import records
from medvill_jax.data.records import SPLITS

# Reasons that follow from choices of the user or files of the operating system, not from faults of the data: these do
# not count towards max_rejected.
EXPECTED = frozenset({"no_wanted_section", "no_frontal_image", "unknown_view", "hidden_file", "excluded_by_source"})
# Rejection reason -> what it means and what to do.
HINTS = {
    "missing_image": "there is no image file: is the copy complete?",
    "unreadable_image": "the image file is damaged or not an image (copy it again), or of a form that the detail names",
    "oversized_image": "more pixels, bytes or length than a radiograph has: a decompression bomb, or not a radiograph",
    "inaccessible_file": "the system could not read the file; the detail says why: permissions, the disk, the network",
    "missing_report": "there is no report file: is the copy complete?",
    "unreadable_report": "the report file is damaged or not a report: copy it again",
    "oversized_report": "more bytes than any report has",
    "no_wanted_section": "the report has none of the chosen --sections",
    "no_frontal_image": "the study has no frontal image",
    "unknown_view": "no field names the view of the image, or fields contradict each other; --views=all takes it",
    "reports_disagree": "there are several reports of this study, and they differ",
    "empty_text": "no text is left after cleaning",
    "unknown_label": "a label that is not one of the label names",
    "bad_label_value": "a label value must be 1 positive, 0 negative, -1 uncertain, or empty",
    "no_labels": "the label file has no row for this study",
    "labels_disagree": "the label file has several rows for this study, and they differ",
    "tables_disagree": "the tables give this image to different studies, subjects or splits",
    "unknown_split": "splits are train, validation and test",
    "no_split": "the split file has no row for this image",
    "duplicate_id": "an earlier row has this id and the same content",
    "rows_disagree": "several rows have this id and differ, so none of them is used",
    "excluded_by_source": "the source itself marks the row as not to be used",
    "hidden_file": "a file of macOS or Windows, not an image",
    "unsafe_path": "an id or path that is absolute or leads out of the source folder",
    "malformed_row": "the row cannot be read",
    "missing_field": "the row lacks a field",
    "bad_box": "a box of the phrase has no area, or lies outside of the film",
    "unknown_value": "a field has a value that is not one of the known ones",
}


@dataclasses.dataclass(frozen=True)
class Form:
    """What the records of a data set hold: the arguments of `records.features`."""

    label_names: tuple[str, ...]
    kind: str
    further: tuple[str, ...] = ()

    @property
    def counted(self) -> tuple[str, ...]:
        """The features whose values the build report counts."""
        return (*records.COUNTED[self.kind], *(name for name in records.FURTHER_COUNTED if name in self.further))


@dataclasses.dataclass(frozen=True)
class Row:
    """One image with its text.

    `text` is "" for an image that has labels but no report. `labels` has one value per label name, `split` is one of
    `records.SPLITS`, `extra` has the features of the kind of record (see `records.EXTRAS`) and the further ones of the
    data set (see `records.FURTHER`; a film by the path of its file, "" for none; boxes as lists of four numbers, left,
    top, right and bottom in 0..1 of the sides of the film `image`, which a record has in those of the stored image).
    """

    id: str
    study_id: str
    subject_id: str
    split: str
    image: Path
    text: str
    labels: tuple[int, ...]
    view: str = ""
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A row that cannot become a record: `reason` is a key of `HINTS`, `detail` helps to repair the row."""

    id: str
    reason: str
    detail: str = ""


def checked(row: Row, label_count: int, text_required: bool = True) -> Row | Rejection:
    """The row, or its rejection if it cannot become a record; its image is not read."""
    if len(row.labels) != label_count:
        raise ValueError(f"a row has {len(row.labels)} labels for {label_count} label names")
    if row.split not in SPLITS:
        return Rejection(row.id, "unknown_split", f"split {row.split!r}")
    texts = (row.id, row.study_id, row.subject_id, row.view, row.text, str(row.image), *map(str, row.extra.values()))
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return Rejection(row.id, "malformed_row", "a field holds characters that are not valid Unicode text")
    if "\0" in str(row.image):
        return Rejection(row.id, "unsafe_path", "the path of the image holds a NUL character")
    if text_required and not row.text.strip():
        return Rejection(row.id, "empty_text", "")
    return row


def to_json(row: Row | Rejection) -> str:
    """The row as one line of JSON, for spool files and `rejected.jsonl`."""
    return json.dumps({**row.__dict__, "image": str(row.image)} if isinstance(row, Row) else row.__dict__)


def from_json(line: str | bytes) -> Row:
    """The `Row` in a line that `to_json` wrote."""
    fields = json.loads(line)
    return Row(**{**fields, "image": Path(fields["image"]), "labels": tuple(fields["labels"])})
