"""The official MIMIC-CXR-JPG and MIMIC-CXR files -> records. What copies look like is in `mimic_layout`."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_prep import labeling, reports, views
from data_prep.build import Rejection, Row, build, file_fingerprint
from data_prep.ids import identifier, number
from data_prep.mimic_layout import ID_COLUMNS, Source, ids_of, locate, usable
from data_prep.report_files import ReportError
from data_prep.splits import split_of
from data_prep.tables import UNCERTAIN_AS, Cells, Labels, read_table, settle_uncertain
from data_prep.texts import Texts
from medvill_jax.data.records import DataError
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS

LABELERS = ("chexpert", "negbio", "report")
SPLIT_RULES = ("official", "subject")
IMAGE_KINDS = ("auto", "jpg", "dicom")
# Column of the metadata table -> the field of `views.FIELDS` that it is made from.
VIEW_COLUMNS = {"ViewPosition": "ViewPosition", "ViewCodeSequence_CodeMeaning": "ViewCodeSequence"}
SPLIT_NAMES = {"train": "train", "validate": "validation", "test": "test"}


@dataclass(frozen=True)
class Choice:
    """What to take of MIMIC-CXR.

    Attributes:
      views: names as `views.find` gives them, () for all.
      sections: choices of sections, each a tuple of names; the first that a report has is its text.
      labels: one of `LABELERS`.
      uncertain: a key of `UNCERTAIN_AS`.
      split, seed: one of `SPLIT_RULES`, and the seed of the second.
      one_image_per_study: only the first usable image of a study.
      limit: only the first so many rows.
    """

    views: tuple[str, ...]
    sections: tuple[tuple[str, ...], ...]
    labels: str
    uncertain: str
    split: str
    seed: int
    one_image_per_study: bool
    limit: int | None


@dataclass
class Notes:
    """What is counted beside the rows."""

    views_not_selected: Counter[str] = field(default_factory=Counter)
    further_images_of_studies: int = 0
    texts: Texts = field(default_factory=Texts)


class _Text(NamedTuple):
    """What a study has to say; `labels` are those of the report where these are asked for."""

    text: str
    labels: tuple[int, ...] | None


def prepare(
    source: Path,
    out: Path,
    *,
    views: Sequence[str] = ("AP",),
    sections: Sequence[str] = ("findings",),
    fallback: Sequence[str] = (),
    labels: str = "chexpert",
    uncertain: str = "separate",
    split: str = "official",
    seed: int = 0,
    one_image_per_study: bool = False,
    images: str = "auto",
    reports_root: Path | None = None,
    limit: int | None = None,
    **build_options: Any,
) -> dict[str, Any]:
    """Makes the data set `out` from a MIMIC-CXR tree and returns the build report.

    Args:
      source: the folder of the copy, or one above it (see `mimic_layout.locate`).
      views: views to take (ViewPosition, or what other fields say where it is empty, see `views.find`), () for all;
        other views are not rows (the report counts them), unknown ones are rejected.
      sections: report sections that make up the text, in this order (see `reports.SECTIONS`), or "full".
      fallback: choices for reports without these, in order, each a section, "a+b" or "full".
      labels: the labeler, "chexpert", "negbio", or "report" for our own on what the text of the record says of the
        image: never on an indication, a history or a comparison (see `reports.described`).
      uncertain: what becomes of -1, see `tables.UNCERTAIN_AS`.
      split: "official", or "subject": 80 / 10 / 10 of 100 subjects by `seed`.
      one_image_per_study: take the first image of a study that is there; the report counts the others.
      images: "jpg", "dicom", or "auto": the JPEG files where there are any.
      reports_root: the folder or zip file with the reports where it is not beside the images.
      limit: only the first so many rows.
      build_options: `image_size`, `tokenizer`, `max_rejected` and so on, see `build.build`.

    Raises `DataError`.
    """
    for value, allowed, what in (
        (labels, LABELERS, "labeler"),
        (uncertain, tuple(UNCERTAIN_AS), "way with uncertain labels"),
        (split, SPLIT_RULES, "split"),
        (images, IMAGE_KINDS, "kind of images"),
    ):
        if value not in allowed:
            raise DataError(f"no such {what}: {value}; there are {', '.join(allowed)}")
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no rows")
    if labels == "report":
        labeling.labeler()
    choice = Choice(
        views=tuple(sorted({view.upper() for view in views})),
        sections=section_choices(sections, fallback),
        labels=labels,
        uncertain=uncertain,
        split=split,
        seed=seed,
        one_image_per_study=one_image_per_study,
        limit=limit,
    )
    needed = [*(["split"] if split == "official" else []), "metadata", *([labels] if labels != "report" else [])]
    found = locate(source, needed, reports_root, images)
    if "metadata" not in found.tables and found.images.kind != "dicom" and choice.views:
        raise DataError(f"{source} has no metadata table to choose views by: give it, or --views=all")
    notes: dict[str, Any] = {"files": {"images": f"{found.images.folder}/<id>{found.images.suffix}"}}
    notes["files"]["reports"] = found.reports.name
    return build(
        rows_of(found, choice, notes),
        out,
        name="mimic_cxr",
        options={
            "views": list(choice.views),
            "sections": list(choice.sections[0]),
            "labels": labels,
            "limit": limit,
            "source": file_fingerprint(found.tables.values()),
            **({"fallback": ["+".join(names) for names in choice.sections[1:]]} if fallback else {}),
            **({"uncertain": uncertain} if uncertain != "separate" else {}),
            **({"split": split, "seed": seed} if split != "official" else {}),
            **({"one_image_per_study": True} if one_image_per_study else {}),
            **({"images": "dicom"} if found.images.kind == "dicom" else {}),
        },
        notes=notes,
        **build_options,
    )


def section_choices(sections: Sequence[str], fallback: Sequence[str] = ()) -> tuple[tuple[str, ...], ...]:
    """`sections`, then every fallback, as tuples of section names; `DataError` for unknown ones."""
    first = tuple(name for part in sections for name in part.split("+"))
    choices = [first, *(tuple(part.split("+")) for part in fallback)]
    for names in choices:
        known = [*reports.SECTIONS, reports.FULL]
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise DataError(f"no such section: {', '.join(unknown) or '(none given)'}; there are {', '.join(known)}")
        if reports.FULL in names and len(names) > 1:
            raise DataError("the section full is the whole report: it stands alone")
    return tuple(choices)


def rows_of(source: Source, choice: Choice, notes: dict[str, Any]) -> Iterator[Row | Rejection]:
    """All rows; fills `notes` once they are read."""
    counts = Notes()
    for row in _rows(source, choice, counts):
        if isinstance(row, Row):
            yield Row(**{**row.__dict__, "labels": settle_uncertain(row.labels, choice.uncertain)})
        else:
            yield row
    notes["views_not_selected"] = counts.views_not_selected
    if counts.further_images_of_studies:
        notes["further_images_of_studies"] = counts.further_images_of_studies
    notes.update(counts.texts.notes())


class _Splits:
    """The official split file: image -> split, with a check of the ids beside it."""

    def __init__(self, path: Path):
        self._rows: dict[str, tuple[str, str, str, str]] = {}
        self._disagree: set[str] = set()
        known: dict[tuple[str, str, str, str], tuple[str, str, str, str]] = {}
        for row in read_table(path, ("dicom_id", "split"), ("study_id", "subject_id")):
            image = identifier(row["dicom_id"])
            values = (
                row.fault,
                row["split"].lower(),
                number(row.get("study_id", "")),
                number(row.get("subject_id", "")),
            )
            # The films of a study have one such row.
            values = known.setdefault(values, values)
            if self._rows.setdefault(image, values) != values:
                self._disagree.add(image)

    def of(self, image: str, study: str, subject: str) -> str | tuple[str, str]:
        """One of `records.SPLITS`, or `(reason, detail)` of a rejection."""
        if image not in self._rows:
            return "no_split", "no row in the split file"
        fault, split, of_study, of_subject = self._rows[image]
        if image in self._disagree:
            return "tables_disagree", "the split file has several rows for this image that differ"
        if fault:
            return "malformed_row", f"in the split file {fault}"
        if of_study and of_study != study:
            return "tables_disagree", f"the image is of study {of_study[:20]!r} in the split file"
        if of_subject and of_subject != subject:
            return "tables_disagree", f"the image is of subject {of_subject[:20]!r} in the split file"
        if split not in SPLIT_NAMES:
            return "unknown_split", f"split {split[:40]!r}; expected train, validate or test"
        return SPLIT_NAMES[split]


def _rows(source: Source, choice: Choice, notes: Notes) -> Iterator[Row | Rejection]:
    labels = Labels(source.tables[choice.labels]) if choice.labels != "report" else None
    splits = _Splits(source.tables["split"]) if choice.split == "official" else None
    views_in_table = "metadata" in source.tables
    columns = (*ID_COLUMNS, *(("ViewPosition",) if views_in_table else ()))
    disagree = _disagreeing(source.rows, columns)
    taken: set[str] = set()

    @functools.lru_cache(maxsize=8)
    def text_of(subject: str, study: str) -> _Text | Rejection:
        return _text(source, subject, study, choice, notes.texts)

    count = 0
    for row in read_table(source.rows, columns):
        subject, study, image = ids_of(row)
        safe = usable(subject, study, image)
        if views_in_table:
            view = _view(row)
        else:
            view = _view_in_file(source, subject, study, image) if safe else views.View("")
        # A file whose view is not known, that is damaged or not there is a row all the same: one that is rejected.
        if not row.fault and choice.views and view.name and view.name not in choice.views:
            notes.views_not_selected[view.name] += 1
            continue
        if study in taken:
            notes.further_images_of_studies += 1
            continue
        if choice.limit is not None and count >= choice.limit:
            return
        count += 1
        if row.fault:
            yield Rejection(image, "malformed_row", row.fault)
            continue
        if not all((image, subject, study)):
            yield Rejection(image, "missing_field", "dicom_id, subject_id or study_id is empty")
            continue
        if not safe:
            yield Rejection(
                image, "unsafe_path", f"subject {subject!r}, study {study!r}: the ids do not make a file name"
            )
            continue
        if image in disagree:
            yield Rejection(image, "tables_disagree", f"{source.rows.name} has several rows for this image that differ")
            continue
        if choice.views and view.unknown:
            yield Rejection(image, "unknown_view", view.unknown)
            continue
        split = splits.of(image, study, subject) if splits else split_of(subject, choice.seed)
        values: Any = labels.of(study, subject) if labels else (ABSENT,) * len(CHEXPERT_FINDINGS)
        if isinstance(split, tuple):
            yield Rejection(image, *split)
        elif isinstance(values[0], str):
            yield Rejection(image, *values)
        elif isinstance(text := text_of(subject, study), Rejection):
            yield Rejection(image, text.reason, text.detail)
        else:
            path = source.images.path(subject, study, image)
            if choice.one_image_per_study:
                if not path.is_file():
                    yield Rejection(image, "missing_image", f"no file at {path}")
                    continue
                taken.add(study)
            yield Row(image, study, subject, split, path, text.text, text.labels or values, view.name)


def _view(row: Cells) -> views.View:
    return views.find({name: (row.get(column, ""),) for column, name in VIEW_COLUMNS.items()})


def _disagreeing(table: Path, columns: Sequence[str]) -> set[str]:
    """Images of which several rows say different things; of all others no more than two numbers are kept."""
    images, rows, disagree = set[int](), set[int](), set[str]()
    for row in read_table(table, columns):
        ids = ids_of(row)
        image, values = hash(ids[2]), hash((*ids, _view(row)))
        if image in images and values not in rows:
            disagree.add(ids[2])
        images.add(image)
        rows.add(values)
    return disagree


def _view_in_file(source: Source, subject: str, study: str, image: str) -> views.View:
    """The record list of the DICOM distribution has no views: the files have. Unreadable ones are found later."""
    from data_prep import dicom

    fields = dicom.view_fields(source.images.path(subject, study, image))
    return views.View("") if fields is None else views.find(fields)


def _text(source: Source, subject: str, study: str, choice: Choice, texts: Texts) -> _Text | Rejection:
    """The text of a study with the labels in it, or why there is none; counts where it comes from."""
    try:
        report = source.reports.read(subject, study)
    except ReportError as error:
        return Rejection("", error.reason, str(error))
    if not reports.clean_text(report):
        return Rejection("", "empty_text", f"the report of study {study} is empty")
    text, place = reports.choose(report, choice.sections)
    there = {name: body for name, body in reports.sections(report).items() if body}
    wanted = choice.sections[place] if text else ()
    texts.add(study, [name for name, body in there.items() if reports.clean_text(body)], wanted)
    if not text:
        names = ", ".join("+".join(names) for names in choice.sections)
        return Rejection("", "no_wanted_section", f"none of {names}; the report has {', '.join(there) or 'no text'}")
    labels = labeling.labels_of(reports.described(report, wanted)) if choice.labels == "report" else None
    return _Text(text, labels)
