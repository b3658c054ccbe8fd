"""The official MIMIC-CXR-JPG and MIMIC-CXR files -> records. `mimic_layout` knows the layouts of copies."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from data_prep import labeling, mimic_companions, reports, views
from data_prep.build import Rejection, Row, build, file_fingerprint
from data_prep.ids import identifier, number
from data_prep.mimic_companions import Companions, Film, When
from data_prep.mimic_layout import ID_COLUMNS, Source, ids_of, locate, usable
from data_prep.report_files import ReportError
from data_prep.splits import split_of
from data_prep.tables import UNCERTAIN_AS, Cells, Labels, read_table, settle_uncertain
from data_prep.texts import Texts
from medvill_jax.data.records import DataError
from medvill_jax.findings import NO_LABELS

LABELERS = ("chexpert", "negbio", "report")
SPLIT_RULES = ("official", "subject")
IMAGE_KINDS = ("auto", "jpg", "dicom")
# Column of the metadata table -> the field of `views.FIELDS` that it holds.
VIEW_COLUMNS = {"ViewPosition": "ViewPosition", "ViewCodeSequence_CodeMeaning": "ViewCodeSequence"}
SPLIT_NAMES = {"train": "train", "validate": "validation", "test": "test"}


@dataclass(frozen=True)
class Choice:
    """Which rows, texts and labels of MIMIC-CXR become records.

    Attributes:
      views: names of views as in `views.View.name`; () for all.
      sections: alternative choices of sections, each a tuple of names; the first that a report has is its text.
      labels: one of `LABELERS`.
      uncertain: a key of `UNCERTAIN_AS`.
      split: one of `SPLIT_RULES`.
      seed: the seed of the split "subject".
      one_image_per_study: take only the first usable image of a study.
      limit: how many rows to take, from the first; None for all.
      second_view, priors: whether records have another view of the study, and the study before.
    """

    views: tuple[str, ...]
    sections: tuple[tuple[str, ...], ...]
    labels: str
    uncertain: str
    split: str
    seed: int
    one_image_per_study: bool
    limit: int | None
    second_view: bool = False
    priors: bool = False

    @property
    def further(self) -> tuple[str, ...]:
        """The further features of the records."""
        return mimic_companions.SECOND * self.second_view + mimic_companions.PRIOR * self.priors


@dataclass
class Notes:
    """Counts of images and texts for the build report."""

    views_not_selected: Counter[str] = field(default_factory=Counter)
    further_images_of_studies: int = 0
    texts: Texts = field(default_factory=Texts)
    companions: dict[str, Any] = field(default_factory=dict)


class _Text(NamedTuple):
    """The text of a study; `labels` are those of its report, or None where a label file has them."""

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
    second_view: bool = False,
    priors: bool = False,
    **build_options: Any,
) -> dict[str, Any]:
    """Makes the data set `out` from a MIMIC-CXR tree and returns the build report.

    Args:
      source: the folder of the copy, or one above it (see `mimic_layout.locate`).
      out: the folder to make.
      views: views to take (see `views.find`), () for all. Other views are not rows, the report counts them; unknown
        views are rejected.
      sections: report sections that make up the text, in this order (see `reports.SECTIONS`), or "full".
      fallback: choices for reports without these, in order, each a section, "a+b" or "full".
      labels: the label file, "chexpert" or "negbio", or "report" for our labeler on the sections of the record's text
        that describe the image: never on an indication, a history or a comparison (see `reports.described`).
      uncertain: what -1 becomes, see `tables.UNCERTAIN_AS`.
      split: "official", or "subject": 80 / 10 / 10 per cent of the subjects by `seed`.
      seed: of the split "subject".
      one_image_per_study: take the first image file of a study that exists; the report counts the others.
      images: "jpg", "dicom", or "auto": the JPEG files if there are any.
      reports_root: the folder or zip file with the reports, if it is not found from `source`.
      limit: how many rows to take, from the first; None for all.
      second_view: records also have another view of their study (see `mimic_companions`).
      priors: records also have the frontal film and the text of the patient's study before.
      build_options: `image_size`, `tokenizer`, `max_rejected` and so on, see `build.build`.

    Raises `DataError`.
    """
    for value, allowed, option in (
        (labels, LABELERS, "labeler"),
        (uncertain, tuple(UNCERTAIN_AS), "rule for uncertain labels"),
        (split, SPLIT_RULES, "split"),
        (images, IMAGE_KINDS, "image format"),
    ):
        if value not in allowed:
            raise DataError(f"no such {option}: {value}; there are {', '.join(allowed)}")
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
        second_view=second_view,
        priors=priors,
    )
    needed = [*(["split"] if split == "official" else []), "metadata", *([labels] if labels != "report" else [])]
    copy = locate(source, needed, reports_root, images)
    if "metadata" not in copy.tables and copy.images.kind != "dicom" and choice.views:
        raise DataError(f"{source} has no metadata table to choose views by: give it, or --views=all")
    if choice.further and "metadata" not in copy.tables:
        raise DataError("--second_view and --priors need the metadata table (views and times of studies): give it")
    notes: dict[str, Any] = {"files": {"images": f"{copy.images.folder}/<id>{copy.images.suffix}"}}
    notes["files"]["reports"] = copy.reports.name
    return build(
        rows_of(copy, choice, notes),
        out,
        name="mimic_cxr",
        options={
            "views": list(choice.views),
            "sections": list(choice.sections[0]),
            "labels": labels,
            "limit": limit,
            "source": file_fingerprint(copy.tables.values()),
            **({"fallback": ["+".join(names) for names in choice.sections[1:]]} if fallback else {}),
            **({"uncertain": uncertain} if uncertain != "separate" else {}),
            **({"split": split, "seed": seed} if split != "official" else {}),
            **({"one_image_per_study": True} if one_image_per_study else {}),
            **({"images": "dicom"} if copy.images.kind == "dicom" else {}),
        },
        further=choice.further,
        notes=notes,
        **build_options,
    )


def section_choices(sections: Sequence[str], fallback: Sequence[str] = ()) -> tuple[tuple[str, ...], ...]:
    """`sections`, then every fallback, as tuples of section names. Raises `DataError` for unknown names."""
    first = tuple(name for part in sections for name in part.split("+"))
    choices = [first, *(tuple(part.split("+")) for part in fallback)]
    for names in choices:
        known = [*reports.SECTIONS, reports.FULL]
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise DataError(f"no such section: {', '.join(unknown) or '(none given)'}; there are {', '.join(known)}")
        if reports.FULL in names and len(names) > 1:
            raise DataError("the section full is the whole report: name no other section with it")
    return tuple(choices)


def rows_of(source: Source, choice: Choice, notes: dict[str, Any]) -> Iterator[Row | Rejection]:
    """All rows, usable or rejected; fills `notes` once the last one is read."""
    counts = Notes()
    for row in _rows(source, choice, counts):
        if isinstance(row, Row):
            yield Row(**{**row.__dict__, "labels": settle_uncertain(row.labels, choice.uncertain)})
        else:
            yield row
    notes["views_not_selected"] = counts.views_not_selected
    if counts.further_images_of_studies:
        notes["further_images_of_studies"] = counts.further_images_of_studies
    notes.update(counts.texts.notes() | counts.companions)


class _Splits:
    """The official split file: image -> split; checks the study and subject of its rows too."""

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
            # The images of a study have equal values: one tuple for all saves memory.
            values = known.setdefault(values, values)
            if self._rows.setdefault(image, values) != values:
                self._disagree.add(image)

    def of(self, image: str, study: str, subject: str) -> str | tuple[str, str]:
        """One of `records.SPLITS`, or `(reason, detail)` of a rejection."""
        if image not in self._rows:
            return "no_split", "no row in the split file"
        fault, split, listed_study, listed_subject = self._rows[image]
        if image in self._disagree:
            return "tables_disagree", "the split file has several rows for this image that differ"
        if fault:
            return "malformed_row", f"in the split file {fault}"
        if listed_study and listed_study != study:
            return "tables_disagree", f"the image is of study {listed_study[:20]!r} in the split file"
        if listed_subject and listed_subject != subject:
            return "tables_disagree", f"the image is of subject {listed_subject[:20]!r} in the split file"
        if split not in SPLIT_NAMES:
            return "unknown_split", f"split {split[:40]!r}; expected train, validate or test"
        return SPLIT_NAMES[split]


def _rows(source: Source, choice: Choice, notes: Notes) -> Iterator[Row | Rejection]:
    labels = Labels(source.tables[choice.labels]) if choice.labels != "report" else None
    splits = _Splits(source.tables["split"]) if choice.split == "official" else None
    views_in_table = "metadata" in source.tables
    columns = (*ID_COLUMNS, *(("ViewPosition",) if views_in_table else ()))
    disagree = _disagreeing(source.rows, columns)
    companions = _Further(source, choice, disagree, splits)
    studies_taken: set[str] = set()

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
        # An image of unknown view, damaged or missing, is a row too: it is rejected below.
        if not row.fault and choice.views and view.name and view.name not in choice.views:
            notes.views_not_selected[view.name] += 1
            continue
        if study in studies_taken:
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
        values: Any = labels.of(study, subject) if labels else NO_LABELS
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
                studies_taken.add(study)
            extra = companions.of(Film(subject, study, image, view.name), split)
            yield Row(image, study, subject, split, path, text.text, text.labels or values, view.name, extra)
    notes.companions = companions.notes()


class _Further:
    """The further features of records: paths and texts of the films that go with a film."""

    def __init__(self, source: Source, choice: Choice, disagree: Set[str], splits: _Splits | None):
        self._source, self._choice, self._splits = source, choice, splits
        self._companions = Companions(_films(source, disagree, choice) if choice.further else ())
        # The labels of the record are its own study's, and only its own text is counted.
        self._text_choice = replace(choice, labels="chexpert")

    def of(self, film: Film, split: str) -> dict[str, Any]:
        """The values of `Choice.further` for a record of this film and split."""
        extra: dict[str, Any] = {}
        if self._choice.second_view:
            extra |= self._film("second", self._companions.second(film, split, self._split_of))
        if self._choice.priors:
            prior = self._companions.prior(film, split, self._split_of)
            assert prior is None or self._split_of(prior) == split, "a study before is in another split"
            extra |= self._film("prior", prior) | {"prior_text": "" if prior is None else self._text(prior)}
        return extra

    def notes(self) -> dict[str, Any]:
        """Entries of the build report."""
        dates = {"studies_without_date": self._companions.undated} if self._choice.priors else {}
        left_out = {
            "priors_in_other_splits": dict(self._companions.in_other_splits),
            "second_views_in_other_splits": dict(self._companions.views_in_other_splits),
        }
        return dates | {name: counts for name, counts in left_out.items() if counts}

    def _film(self, name: str, film: Film | None) -> dict[str, str]:
        path = "" if film is None else str(self._source.images.path(film.subject, film.study, film.image))
        return {f"{name}_image": path, f"{name}_view": "" if film is None else film.view}

    def _split_of(self, film: Film) -> object:
        if self._splits is None:
            return split_of(film.subject, self._choice.seed)
        return self._splits.of(film.image, film.study, film.subject)

    def _text(self, film: Film) -> str:
        text = _text(self._source, film.subject, film.study, self._text_choice, Texts())
        return "" if isinstance(text, Rejection) else text.text


def _films(source: Source, disagree: Set[str], choice: Choice) -> Iterator[tuple[Film, When]]:
    """Every usable film of the table with its time."""
    times = mimic_companions.TIME_COLUMNS if choice.priors else ()
    for row in read_table(source.rows, (*ID_COLUMNS, "ViewPosition", *times)):
        subject, study, image = ids_of(row)
        if not row.fault and usable(subject, study, image) and image not in disagree:
            moment = mimic_companions.when(*(row.get(name, "") for name in mimic_companions.TIME_COLUMNS))
            yield Film(subject, study, image, _view(row).name), moment


def _view(row: Cells) -> views.View:
    return views.find({name: (row.get(column, ""),) for column, name in VIEW_COLUMNS.items()})


def _disagreeing(table: Path, columns: Sequence[str]) -> set[str]:
    """Images with several rows that differ. Rows are compared by hash, so that memory holds two numbers per row."""
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
    """The view in the DICOM file, since the record list has none; damaged files are rejected with their images."""
    from data_prep import dicom

    fields = dicom.view_fields(source.images.path(subject, study, image))
    return views.View("") if fields is None else views.find(fields)


def _text(source: Source, subject: str, study: str, choice: Choice, texts: Texts) -> _Text | Rejection:
    """The text of a study with its labels, or the rejection; counts the sections of the text in `texts`."""
    try:
        report = source.reports.read(subject, study)
    except ReportError as error:
        return Rejection("", error.reason, str(error))
    if not reports.clean_text(report):
        return Rejection("", "empty_text", f"the report of study {study} is empty")
    text, chosen = reports.choose(report, choice.sections)
    present = {name: body for name, body in reports.sections(report).items() if body}
    taken = choice.sections[chosen] if text else ()
    texts.add(study, [name for name, body in present.items() if reports.clean_text(body)], taken)
    if not text:
        names = ", ".join("+".join(names) for names in choice.sections)
        return Rejection("", "no_wanted_section", f"none of {names}; the report has {', '.join(present) or 'no text'}")
    labels = labeling.labels_of(reports.described(report, taken)) if choice.labels == "report" else None
    return _Text(text, labels)
