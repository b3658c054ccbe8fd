"""Open-I (the chest radiographs of Indiana University) -> records.

Two forms are read: NLM's own, one XML file per report and PNG files, and the widespread tables `indiana_reports.csv`
and `indiana_projections.csv` with PNG files.
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
from data_prep.cleaning import MARK_RULES, clean_text
from data_prep.files import TooLargeError, listed, read_bytes
from data_prep.ids import identifier
from data_prep.mimic_cxr import section_choices
from data_prep.report_files import LARGEST as LARGEST_REPORT
from data_prep.reports import DESCRIBING, FULL
from data_prep.splits import split_of
from data_prep.tables import UNCERTAIN_AS, read_table, settle_uncertain
from data_prep.texts import Texts
from medvill_jax.data.records import DataError
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS

SECTIONS = ("findings", "impression", "indication", "comparison")
REPORTS_TABLE, PROJECTIONS_TABLE = "indiana_reports.csv", "indiana_projections.csv"
XML_FOLDERS = ("ecgen-radiology", "NLMCXR_reports/ecgen-radiology", "NLMCXR_reports", "reports", "xml", ".")
IMAGE_FOLDERS = ("NLMCXR_png", "images/images_normalized", "images_normalized", "images", "png", ".")
VIEWS = ("FRONTAL", "LATERAL")
_XML_STEP = 1 << 10
_LARGEST_HASHED = 16 * LARGEST_REPORT  # the table of projections beside reports is larger than any of them
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
# The same image is CXR1_1_IM-0001-4001 or CXR2_IM-0652-1001 in the XML files, and 1_IM-0001-4001.dcm.png or
# 2_IM-0652-1001.dcm.png in the tables.
_NUMBERED = re.compile(r"(?:CXR)?0*([0-9]+)_(?:\1_)?IM-")
_XML_NAME = re.compile(r"CXR([0-9]+)_(?:\1_)?(IM-.*)")


@dataclass(frozen=True)
class Choice:
    """What to take of Open-I; the fields are arguments of `prepare`, `sections` with the fallbacks after them."""

    views: tuple[str, ...]
    sections: tuple[tuple[str, ...], ...]
    labels: str
    marks: str
    seed: int
    limit: int | None


@dataclass(frozen=True)
class Report:
    """One report: its sections, and its images as (file stem, projection); the projection is "" where unknown."""

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
      views: "FRONTAL", "LATERAL", () for both. Where no table says what an image shows, the first of a report is taken
        for frontal and the others for lateral.
      sections, fallback: as for `mimic_cxr.prepare`, of `SECTIONS`, or "full" for all of them.
      labels: "report", our own on what the text of the record says of the image (findings, impression), or "none".
      uncertain: what becomes of -1, see `tables.UNCERTAIN_AS`.
      marks: "drop" or "keep" the XXXX that stand for de-identified words; a text of nothing else is none either way.
      seed: of the split by report, 80 / 10 / 10 of 100 (every report is of another patient, as far as is known).
      limit: only the first so many rows.
      build_options: `image_size`, `tokenizer`, `max_rejected` and so on, see `build.build`.

    Raises `DataError`.
    """
    wanted = tuple(sorted({view.upper() for view in views}))
    if set(wanted) - set(VIEWS):
        raise DataError(f"no such view: {', '.join(sorted(set(wanted) - set(VIEWS)))}; there are {', '.join(VIEWS)}")
    choices = section_choices(sections, fallback)
    for name in {name for names in choices for name in names} - {*SECTIONS, FULL}:
        raise DataError(f"Open-I has no section {name}; it has {', '.join(SECTIONS)}")
    if labels not in ("report", "none"):
        raise DataError(f"no such labels: {labels}; there are report, none")
    if uncertain not in UNCERTAIN_AS:
        raise DataError(f"no such way with uncertain labels: {uncertain}; there are {', '.join(UNCERTAIN_AS)}")
    if marks not in MARK_RULES:
        raise DataError(f"no such way with de-identification marks: {marks}; there are {', '.join(MARK_RULES)}")
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no rows")
    if labels == "report":
        labeling.labeler()
    reports, tables, form = _open(source)
    images = _image_folder(source)
    notes: dict[str, Any] = {"form": form}
    choice = Choice(wanted, choices, labels, marks, seed, limit)
    rows = _rows(reports, images, choice, notes)
    return build(
        (
            Row(**{**row.__dict__, "labels": settle_uncertain(row.labels, uncertain)}) if isinstance(row, Row) else row
            for row in rows
        ),
        out,
        name="open_i",
        options={
            "views": list(wanted),
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
    """The reports, the files that they come from, and which of the two forms this is."""
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
        f"{source} is no copy of Open-I: expected ecgen-radiology/*.xml (NLMCXR_reports.tgz, unpacked) and "
        f"NLMCXR_png/*.png (NLMCXR_png.tgz), or {REPORTS_TABLE}, {PROJECTIONS_TABLE} and images/*.png"
    )


def _image_folder(source: Path) -> Path:
    for name in IMAGE_FOLDERS:
        if next(listed(source / name, ".png"), None) is not None:
            return source / name
    raise DataError(f"{source} has no images: expected PNG files in {' or '.join(IMAGE_FOLDERS[:3])}")


def _projections(path: Path) -> dict[str, str]:
    """Name of an image in the tables, without ending -> projection, but for images of which rows say two things."""
    known: dict[str, set[str]] = {}
    for row in read_table(path, ("filename", "projection"), ("uid",)):
        name = row["filename"].split(".")[0]
        if not row.fault and _belongs(name, identifier(row.get("uid", ""))):
            known.setdefault(name, set()).add(row["projection"].upper())
    return {name: of.pop() for name, of in known.items() if len(of) == 1}


def _from_tables(reports: Path, projections: Path) -> Iterator[Report | Rejection]:
    shown: dict[str, set[tuple[str, str]]] = {}
    for row in read_table(projections, ("uid", "filename", "projection")):
        name = row["filename"].removesuffix(".png")
        if row.fault:
            yield Rejection(name, "malformed_row", f"{projections.name}: {row.fault}")
        else:
            shown.setdefault(name, set()).add((identifier(row["uid"]), row["projection"].upper()))
    images: dict[str, list[tuple[str, str]]] = {}
    for name, said in shown.items():
        uid, projection = min(said)
        if len(said) > 1:
            yield Rejection(name, "tables_disagree", f"{projections.name} has several rows for it that differ")
        else:
            images.setdefault(uid, []).append((name, projection))
    found: dict[str, list[dict[str, str]]] = {}
    for row in read_table(reports, ("uid", *SECTIONS)):
        uid = identifier(row["uid"])
        if row.fault or not uid:
            reason = "malformed_row" if row.fault else "missing_field"
            yield Rejection(uid, reason, f"{reports.name}: {row.fault or 'a row has no uid'}")
        else:
            texts = {name: "" if row[name].lower() == "nan" else row[name] for name in SECTIONS}
            found.setdefault(uid, []).append(texts)
    for uid, texts in found.items():
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
    """A DOCTYPE can declare entities that grow a few bytes to any size; no report has one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a DOCTYPE, which no report has")


def _parse(path: Path, projections: dict[str, str]) -> Report:
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    data = read_bytes(path, LARGEST_REPORT)
    # A step at a time: what stops the parser is heard between two of them.
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
            found: list[Row | Rejection] = [report]
        else:
            shown = _with_views(report.images)
            guessed += sum(not known for _, _, known in shown)
            chosen = [(name, view) for name, view, _ in shown if not choice.views or view in choice.views]
            other_views += len(shown) - len(chosen)
            found = _of_report(report, chosen, folder, choice, texts)
        found = found if choice.limit is None else found[: choice.limit - count]
        yield from found
        count += len(found)
        if count == choice.limit:
            break
    notes["images_of_other_views"] = other_views
    if guessed:
        notes["views_guessed"] = guessed
    notes.update(texts.notes())


def _with_views(images: Sequence[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    """`(name, view, known)`; of images without projection, the first by name counts as frontal."""
    unknown = sorted(name for name, projection in images if projection not in VIEWS)
    guesses = {name: VIEWS[0] if place == 0 else VIEWS[1] for place, name in enumerate(unknown)}
    return [(name, guesses.get(name, projection), name not in guesses) for name, projection in images]


def _of_report(
    report: Report, images: list[tuple[str, str]], folder: Path, choice: Choice, texts: Texts
) -> list[Row | Rejection]:
    """One row per image, or one rejection of a report without any."""
    if not images:
        return [Rejection(report.id, "no_frontal_image", f"report {report.id[:20]!r} has no image of the chosen view")]
    cleaned = {name: clean_text(text, choice.marks) for name, text in report.sections.items()}
    there = [name for name, text in cleaned.items() if text]
    wanted = next((names for names in choice.sections if names == (FULL,) or set(names) & set(there)), ())
    taken = [name for name in (SECTIONS if wanted == (FULL,) else wanted) if name in there]
    text = " ".join(cleaned[name] for name in taken)
    texts.add(report.id, there, wanted if taken else ())
    labels = (ABSENT,) * len(CHEXPERT_FINDINGS)
    if choice.labels == "report" and text:
        # The labels are the same whatever becomes of the marks: the labeler reads what was typed.
        said = (clean_text(report.sections[name], "keep") for name in taken if name in DESCRIBING)
        labels = labeling.labels_of(" ".join(said))
    rows: list[Row | Rejection] = []
    for name, view in images:
        if not _NAME.fullmatch(name) or ".." in name:
            rows.append(Rejection(name, "unsafe_path", f"report {report.id[:20]!r}: no plain file name"))
        elif not _belongs(name, report.id):
            rows.append(Rejection(name, "tables_disagree", f"by its name it is no image of report {report.id[:20]!r}"))
        elif not there:
            rows.append(Rejection(name, "empty_text", f"report {report.id} has no text"))
        elif not text:
            rows.append(Rejection(name, "no_wanted_section", f"report {report.id} has {', '.join(there)}"))
        else:
            split = split_of(report.id, choice.seed)
            rows.append(Row(name, report.id, report.id, split, folder / f"{name}.png", text, labels, view))
    return rows


def _belongs(image: str, report: str) -> bool:
    """Whether an image whose name begins with the number of its report, as all of Open-I do, is of this report."""
    named = _NUMBERED.match(image)
    return named is None or named[1] in {number.lstrip("0") for number in re.findall("[0-9]+", report)}
