"""Open-I (the chest radiographs of Indiana University) -> records.

Two forms are read: that of NLM, one XML file per report with PNG files, and the widespread tables
`indiana_reports.csv` and `indiana_projections.csv` with PNG files.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep import labeling
from data_prep.build import Rejection, Row, build, file_fingerprint
from data_prep.files import listed
from data_prep.ids import identifier
from data_prep.mimic_cxr import section_choices
from data_prep.report_files import LARGEST as LARGEST_REPORT
from data_prep.reports import DESCRIBING, FULL
from data_prep.splits import split_of
from data_prep.tables import UNCERTAIN_AS, read_table, settle_uncertain
from data_prep.texts import Texts
from medvill_jax.data.cleaning import MARK_RULES, clean_text
from medvill_jax.data.records import DataError
from medvill_jax.films.files import TooLargeError, read_bytes
from medvill_jax.findings import NO_LABELS

SECTIONS = ("findings", "impression", "indication", "comparison")
REPORTS_TABLE, PROJECTIONS_TABLE = "indiana_reports.csv", "indiana_projections.csv"
XML_FOLDERS = ("ecgen-radiology", "NLMCXR_reports/ecgen-radiology", "NLMCXR_reports", "reports", "xml", ".")
IMAGE_FOLDERS = ("NLMCXR_png", "images/images_normalized", "images_normalized", "images", "png", ".")
VIEWS = ("FRONTAL", "LATERAL")
_XML_STEP = 1 << 10
_LARGEST_HASHED = 16 * LARGEST_REPORT  # the projections table of the XML form is larger than any report
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
# One image has two names: CXR1_1_IM-0001-4001 and CXR2_IM-0652-1001 in the XML files are 1_IM-0001-4001.dcm.png and
# 2_IM-0652-1001.dcm.png in the tables.
_NUMBERED = re.compile(r"(?:CXR)?0*([0-9]+)_(?:\1_)?IM-")
_XML_NAME = re.compile(r"CXR([0-9]+)_(?:\1_)?(IM-.*)")


@dataclass(frozen=True)
class Choice:
    """Arguments of `prepare` that select rows, texts and labels; `sections` is followed by the fallbacks."""

    views: tuple[str, ...]
    sections: tuple[tuple[str, ...], ...]
    labels: str
    marks: str
    seed: int
    limit: int | None


@dataclass(frozen=True)
class Report:
    """One radiology report: its sections, and its images as (file stem, projection), "" for an unknown projection."""

    id: str
    sections: dict[str, str]
    images: tuple[tuple[str, str], ...]


def prepare(
    source: Path,
    out: Path,
    *,
    views: Sequence[str] = ("FRONTAL",),
    sections: Sequence[str] = ("findings",),
    fallback: Sequence[str] = (),
    labels: str = "report",
    uncertain: str = "separate",
    marks: str = "drop",
    seed: int = 0,
    limit: int | None = None,
    **build_options: Any,
) -> dict[str, Any]:
    """Makes the data set `out` from Open-I and returns the build report.

    Args:
      source: the folder with the XML files or tables, and the PNG files, or one above them.
      out: the folder to make.
      views: "FRONTAL", "LATERAL", () for both. Where no table names the view of an image, the first of a report counts
        as frontal and the others as lateral.
      sections, fallback: as for `mimic_cxr.prepare`, of `SECTIONS`, or "full" for all of them.
      labels: "report" for our labeler on the findings and impression in the text of the record, or "none".
      uncertain: what -1 becomes, see `tables.UNCERTAIN_AS`.
      marks: "drop" or "keep" the XXXX that replace de-identified words; a text of marks alone is empty either way.
      seed: of the split by report, 80 / 10 / 10 per cent (as far as is known, no two reports are of one patient).
      limit: how many rows to take, from the first; None for all.
      build_options: `image_size`, `tokenizer`, `max_rejected` and so on, see `build.build`.

    Raises `DataError`.
    """
    chosen_views = tuple(sorted({view.upper() for view in views}))
    if set(chosen_views) - set(VIEWS):
        raise DataError(
            f"no such view: {', '.join(sorted(set(chosen_views) - set(VIEWS)))}; there are {', '.join(VIEWS)}"
        )
    choices = section_choices(sections, fallback)
    for name in {name for names in choices for name in names} - {*SECTIONS, FULL}:
        raise DataError(f"Open-I has no section {name}; it has {', '.join(SECTIONS)}")
    if labels not in ("report", "none"):
        raise DataError(f"no such labels: {labels}; there are report, none")
    if uncertain not in UNCERTAIN_AS:
        raise DataError(f"no such rule for uncertain labels: {uncertain}; there are {', '.join(UNCERTAIN_AS)}")
    if marks not in MARK_RULES:
        raise DataError(f"no such rule for de-identification marks: {marks}; there are {', '.join(MARK_RULES)}")
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no rows")
    if labels == "report":
        labeling.labeler()
    reports, tables, form = _open(source)
    images = _image_folder(source)
    notes: dict[str, Any] = {"form": form}
    choice = Choice(chosen_views, choices, labels, marks, seed, limit)
    rows = _rows(reports, images, choice, notes)
    return build(
        (
            Row(**{**row.__dict__, "labels": settle_uncertain(row.labels, uncertain)}) if isinstance(row, Row) else row
            for row in rows
        ),
        out,
        name="open_i",
        options={
            "views": list(chosen_views),
            "sections": ["+".join(names) for names in choices],
            "labels": labels,
            "uncertain": uncertain,
            "seed": seed,
            "limit": limit,
            **({"marks": marks} if marks != "drop" else {}),
            "source": file_fingerprint(tables, _LARGEST_HASHED if form == "xml" else sys.maxsize),
        },
        notes=notes,
        **build_options,
    )


def _open(source: Path) -> tuple[Iterator[Report | Rejection], list[Path], str]:
    """The reports, their files, and which of the two forms this is: "tables" or "xml"."""
    if not source.is_dir():
        raise DataError(f"there is no folder {source}: --source is the folder of your copy of Open-I")
    projections = source / PROJECTIONS_TABLE
    if (source / REPORTS_TABLE).is_file():
        if not projections.is_file():
            raise DataError(f"{source} has {REPORTS_TABLE} but lacks {PROJECTIONS_TABLE}, which names the images")
        return _from_tables(source / REPORTS_TABLE, projections), [source / REPORTS_TABLE, projections], "tables"
    for folder in XML_FOLDERS:
        files = sorted(listed(source / folder, ".xml"), key=lambda path: (len(path.stem), path.stem))
        if files:
            known = _projections(projections) if projections.is_file() else {}
            return _from_xml(files, known), [*files, *([projections] if known else [])], "xml"
    raise DataError(
        f"{source} is not a copy of Open-I: expected ecgen-radiology/*.xml (NLMCXR_reports.tgz, unpacked) and "
        f"NLMCXR_png/*.png (NLMCXR_png.tgz), or {REPORTS_TABLE}, {PROJECTIONS_TABLE} and images/*.png"
    )


def _image_folder(source: Path) -> Path:
    for name in IMAGE_FOLDERS:
        if next(listed(source / name, ".png"), None) is not None:
            return source / name
    raise DataError(f"{source} has no images: expected PNG files in {' or '.join(IMAGE_FOLDERS[:3])}")


def _projections(path: Path) -> dict[str, str]:
    """Image name in the tables, without suffix -> projection; images whose rows differ are left out."""
    known: dict[str, set[str]] = {}
    for row in read_table(path, ("filename", "projection"), ("uid",)):
        name = row["filename"].split(".")[0]
        if not row.fault and _belongs(name, identifier(row.get("uid", ""))):
            known.setdefault(name, set()).add(row["projection"].upper())
    return {name: projections.pop() for name, projections in known.items() if len(projections) == 1}


def _from_tables(reports: Path, projections: Path) -> Iterator[Report | Rejection]:
    rows_of: dict[str, set[tuple[str, str]]] = {}
    for row in read_table(projections, ("uid", "filename", "projection")):
        name = row["filename"].removesuffix(".png")
        if row.fault:
            yield Rejection(name, "malformed_row", f"{projections.name}: {row.fault}")
        else:
            rows_of.setdefault(name, set()).add((identifier(row["uid"]), row["projection"].upper()))
    images: dict[str, list[tuple[str, str]]] = {}
    for name, rows in rows_of.items():
        uid, projection = min(rows)
        if len(rows) > 1:
            yield Rejection(name, "tables_disagree", f"{projections.name} has several rows for it that differ")
        else:
            images.setdefault(uid, []).append((name, projection))
    texts_of: dict[str, list[dict[str, str]]] = {}
    for row in read_table(reports, ("uid", *SECTIONS)):
        uid = identifier(row["uid"])
        if row.fault or not uid:
            reason = "malformed_row" if row.fault else "missing_field"
            yield Rejection(uid, reason, f"{reports.name}: {row.fault or 'a row has no uid'}")
        else:
            texts = {name: "" if row[name].lower() == "nan" else row[name] for name in SECTIONS}
            texts_of.setdefault(uid, []).append(texts)
    for uid, texts in texts_of.items():
        if all(other == texts[0] for other in texts):
            yield Report(uid, texts[0], tuple(images.pop(uid, ())))
            repeated = Rejection(uid, "duplicate_id", f"{reports.name} has this report twice")
        else:
            repeated = Rejection(uid, "reports_disagree", f"{reports.name} has several rows for it that differ")
            yield repeated
        yield from [repeated] * (len(texts) - 1)
    for uid, left in images.items():
        for name, _ in left:
            yield Rejection(name, "missing_report", f"uid {uid[:20]!r} has no row in {reports.name} that can be used")


def _from_xml(files: Sequence[Path], projections: dict[str, str]) -> Iterator[Report | Rejection]:
    for path in files:
        try:
            yield _parse(path, projections)
        except TooLargeError as error:
            yield Rejection(path.stem, "oversized_report", f"{path}: {error}")
        except OSError as error:
            yield Rejection(path.stem, "inaccessible_file", f"{path}: {error.strerror or type(error).__name__}")
        except (ElementTree.ParseError, LookupError, ValueError) as error:
            yield Rejection(path.stem, "unreadable_report", f"{path}: {error}")


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses a DOCTYPE, since its entities can expand a few bytes to any size; no report has one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a DOCTYPE, which no report has")


def _parse(path: Path, projections: dict[str, str]) -> Report:
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    data = read_bytes(path, LARGEST_REPORT)
    # In small steps, so that Python can raise the error of a DOCTYPE before the rest is parsed.
    for start in range(0, len(data), _XML_STEP):
        parser.feed(data[start : start + _XML_STEP])
    root = parser.close()
    texts: dict[str, str] = {}
    for node in root.iter("AbstractText"):
        label = str(node.get("Label", "")).lower()
        if label in SECTIONS:
            texts[label] = " ".join(filter(None, (texts.get(label), "".join(node.itertext()).strip())))
    names = sorted({str(node.get("id", "")) for node in root.iter("parentImage")} - {""})
    known = {name: projections.get(name, projections.get(_XML_NAME.sub(r"\1_\2", name), "")) for name in names}
    return Report(path.stem, {name: texts.get(name, "") for name in SECTIONS}, tuple(known.items()))


def _rows(
    reports: Iterable[Report | Rejection], folder: Path, choice: Choice, notes: dict[str, Any]
) -> Iterator[Row | Rejection]:
    count, guessed, other_views = 0, 0, 0
    texts = Texts()
    for report in reports:
        if isinstance(report, Rejection):
            rows: list[Row | Rejection] = [report]
        else:
            images = _with_views(report.images)
            guessed += sum(not known for _, _, known in images)
            chosen = [(name, view) for name, view, _ in images if not choice.views or view in choice.views]
            other_views += len(images) - len(chosen)
            rows = _rows_of_report(report, chosen, folder, choice, texts)
        rows = rows if choice.limit is None else rows[: choice.limit - count]
        yield from rows
        count += len(rows)
        if count == choice.limit:
            break
    notes["images_of_other_views"] = other_views
    if guessed:
        notes["views_guessed"] = guessed
    notes.update(texts.notes())


def _with_views(images: Sequence[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    """`(name, view, known)`; of the images without projection, the first by name counts as frontal."""
    unknown = sorted(name for name, projection in images if projection not in VIEWS)
    guesses = {name: VIEWS[0] if place == 0 else VIEWS[1] for place, name in enumerate(unknown)}
    return [(name, guesses.get(name, projection), name not in guesses) for name, projection in images]


def _rows_of_report(
    report: Report, images: list[tuple[str, str]], folder: Path, choice: Choice, texts: Texts
) -> list[Row | Rejection]:
    """One row per image, or one rejection of a report without images."""
    if not images:
        return [Rejection(report.id, "no_frontal_image", f"report {report.id[:20]!r} has no image of the chosen view")]
    cleaned = {name: clean_text(text, choice.marks) for name, text in report.sections.items()}
    present = [name for name, text in cleaned.items() if text]
    wanted = next((names for names in choice.sections if names == (FULL,) or set(names) & set(present)), ())
    taken = [name for name in (SECTIONS if wanted == (FULL,) else wanted) if name in present]
    text = " ".join(cleaned[name] for name in taken)
    texts.add(report.id, present, wanted if taken else ())
    labels = NO_LABELS
    if choice.labels == "report" and text:
        # The labeler reads the text with its marks, so that labels do not depend on `marks`.
        descriptions = (clean_text(report.sections[name], "keep") for name in taken if name in DESCRIBING)
        labels = labeling.labels_of(" ".join(descriptions))
    rows: list[Row | Rejection] = []
    for name, view in images:
        if not _NAME.fullmatch(name) or ".." in name:
            rows.append(Rejection(name, "unsafe_path", f"report {report.id[:20]!r}: not a plain file name"))
        elif not _belongs(name, report.id):
            rows.append(
                Rejection(name, "tables_disagree", f"by its name it is not an image of report {report.id[:20]!r}")
            )
        elif not present:
            rows.append(Rejection(name, "empty_text", f"report {report.id} has no text"))
        elif not text:
            rows.append(Rejection(name, "no_wanted_section", f"report {report.id} has {', '.join(present)}"))
        else:
            split = split_of(report.id, choice.seed)
            rows.append(Row(name, report.id, report.id, split, folder / f"{name}.png", text, labels, view))
    return rows


def _belongs(image: str, report: str) -> bool:
    """Whether an image is of this report. In Open-I, image names begin with the number of their report."""
    match = _NUMBERED.match(image)
    return match is None or match[1] in {number.lstrip("0") for number in re.findall("[0-9]+", report)}
