"""The official MIMIC-CXR-JPG and MIMIC-CXR files -> records.

Images and tables come from MIMIC-CXR-JPG, report texts from MIMIC-CXR (both PhysioNet, credentialed). What the reader
accepts is in tables at the top: file names, folders, views.
"""

from __future__ import annotations

import csv
import functools
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep import reports
from data_prep.build import Rejection, Row, build, file_fingerprint
from medvill_jax.data.records import ABSENT, CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN, DataError

# Table -> names it goes by, best first; each is looked for plain and with .gz.
TABLES = {
    "split": ("mimic-cxr-2.0.0-split.csv", "mimic-cxr-2.1.0-split.csv"),
    "metadata": ("mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.1.0-metadata.csv"),
    "chexpert": ("mimic-cxr-2.0.0-chexpert.csv", "mimic-cxr-2.1.0-chexpert.csv"),
    "negbio": ("mimic-cxr-2.0.0-negbio.csv", "mimic-cxr-2.1.0-negbio.csv"),
}
LABELERS = ("chexpert", "negbio")
# Where, seen from --source, the image distribution and the reports may lie.
IMAGE_ROOTS = (".", "mimic-cxr-jpg", "mimic-cxr-jpg/2.*", "files/mimic-cxr-jpg/2.*")
REPORT_ROOTS = (".", "mimic-cxr", "mimic-cxr/2.*", "../mimic-cxr", "files/mimic-cxr/2.*", "../../mimic-cxr/2.*")
SPLIT_NAMES = {"train": "train", "validate": "validation", "test": "test"}
LABEL_VALUES = {"1": POSITIVE, "0": NEGATIVE, "-1": UNCERTAIN}

_NUMBER = re.compile(r"[0-9]{1,12}")
_DICOM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Source:
    """The files of one copy of MIMIC-CXR."""

    images: Path
    reports: Path
    tables: dict[str, Path]


def prepare(
    source: Path,
    out: Path,
    *,
    views: Sequence[str] = ("AP",),
    sections: Sequence[str] = ("findings",),
    labels: str = "chexpert",
    reports_root: Path | None = None,
    image_size: int = 512,
    tokenizer: str | Path | None = None,
    vocab_size: int | None = None,
    max_rejected: float = 0.01,
    limit: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Makes the data set `out` from a MIMIC-CXR tree and returns the build report.

    Args:
      source: the folder with the csv files and `files/p10/p10000032/s50414267/<dicom_id>.jpg`, or one above it.
      views: ViewPosition values to take, () for all; other views are not rows (the report counts them).
      sections: report sections that make up the text, in this order (see `reports.HEADERS`).
      labels: the labeler, "chexpert" or "negbio".
      reports_root: the folder with `files/p10/p10000032/s50414267.txt` where it is not beside the images.
      limit: only the first so many rows.

    Raises `DataError`.
    """
    unknown = [name for name in sections if name not in reports.HEADERS]
    if unknown or not sections:
        raise DataError(
            f"no such section: {', '.join(unknown) or '(none given)'}; there are {', '.join(reports.HEADERS)}"
        )
    if labels not in LABELERS:
        raise DataError(f"no such labeler: {labels}; there are {', '.join(LABELERS)}")
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} leaves no rows")
    found = locate(source, labels, reports_root)
    not_selected: Counter[str] = Counter()
    return build(
        _rows(found, tuple(view.upper() for view in views), tuple(sections), labels, limit, not_selected),
        out,
        name="mimic_cxr",
        options={
            "views": sorted(view.upper() for view in views),
            "sections": list(sections),
            "labels": labels,
            "limit": limit,
            "source": file_fingerprint(found.tables.values()),
        },
        image_size=image_size,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        max_rejected=max_rejected,
        notes={"views_not_selected": not_selected},
        workers=workers,
        progress=progress,
    )


def locate(source: Path, labels: str = "chexpert", reports_root: Path | None = None) -> Source:
    """Finds the tables, images and reports below `source`; a `DataError` names every file that is missing."""
    if not source.is_dir():
        raise DataError(f"there is no folder {source}: --source is the folder of your copy of MIMIC-CXR")
    wanted = ("split", "metadata", labels)
    roots = _expand(source, IMAGE_ROOTS)
    tables: dict[str, Path] = {}
    root = source
    for candidate in roots:
        there = {table: path for table in wanted if (path := _table_file(candidate, table)) is not None}
        if len(there) > len(tables):
            root, tables = candidate, there
    missing = [f"  {TABLES[table][0]}.gz (or without .gz)" for table in wanted if table not in tables]
    if missing:
        raise DataError(
            f"{source} lacks these files of MIMIC-CXR-JPG:\n" + "\n".join(missing) + "\n"
            "Download them from https://physionet.org/content/mimic-cxr-jpg/ (credentialed access) and give their "
            "folder, or the one above it, as --source."
        )
    if not (root / "files").is_dir():
        raise DataError(
            f"{root} has the tables but no images: expected files/p10/p10000032/s50414267/<dicom_id>.jpg and so on"
        )
    if reports_root is not None:
        texts = reports_root
        if not (texts / "files").is_dir():
            raise DataError(
                f"there are no reports at {texts}: expected files/p10/p10000032/s50414267.txt and so on in it"
            )
    else:
        candidates = [*_expand(source, REPORT_ROOTS), *_expand(root, REPORT_ROOTS)]
        # The image tree has a files/ folder too, so only one that holds texts counts.
        texts = next((candidate for candidate in candidates if _holds_reports(candidate)), None)
        if texts is None:
            raise DataError(
                f"found no reports beside {root}: expected files/p10/p10000032/s50414267.txt and so on in {source} or "
                f"{source / 'mimic-cxr'}. They come with MIMIC-CXR (https://physionet.org/content/mimic-cxr/, "
                "mimic-cxr-reports.zip, unpacked); elsewhere on disk, name their folder with --reports."
            )
    return Source(images=root, reports=texts, tables=tables)


def _expand(base: Path, patterns: Sequence[str]) -> list[Path]:
    folders: list[Path] = []
    for pattern in patterns:
        if "*" in pattern:
            head, _, tail = pattern.rpartition("/")
            folders += sorted((base / head).glob(tail), reverse=True) if (base / head).is_dir() else []
        else:
            folders.append(base / pattern if pattern != "." else base)
    return [folder for folder in folders if folder.is_dir()]


def _table_file(root: Path, table: str) -> Path | None:
    names = [name + suffix for name in TABLES[table] for suffix in (".gz", "")]
    return next((root / name for name in names if (root / name).is_file()), None)


def _holds_reports(root: Path) -> bool:
    """Whether `files/p*/p*/s*.txt` holds anything; looks into a few subjects only, a full tree has 65,000."""
    groups = sorted((root / "files").glob("p[0-9]*"))[:3] if (root / "files").is_dir() else []
    subjects = [subject for group in groups for subject in sorted(group.glob("p[0-9]*"))[:50]]
    return any(next(subject.glob("s[0-9]*.txt"), None) is not None for subject in subjects)


def read_table(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of a `.csv` or `.csv.gz`; `DataError` if columns are missing, or it is damaged or not text."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path} has no column {', '.join(missing)}; it has {', '.join(reader.fieldnames or ())}"
                )
            for row in reader:
                yield {name: value.strip() if isinstance(value, str) else "" for name, value in row.items() if name}
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}): download it again") from error


def read_labels(path: Path) -> dict[str, tuple[int, ...] | str]:
    """study_id -> one value per `CHEXPERT_FINDINGS`, or what is wrong with the row."""
    labels: dict[str, tuple[int, ...] | str] = {}
    unknown: set[str] = set()
    for row in read_table(path, ("subject_id", "study_id", *CHEXPERT_FINDINGS)):
        if not labels:
            unknown = row.keys() - {"subject_id", "study_id", *CHEXPERT_FINDINGS}
        if unknown:
            raise DataError(f"{path} has columns that are none of the 14 findings: {', '.join(sorted(unknown))}")
        labels[row["study_id"]] = _label_row(row)
    return labels


def _label_row(row: dict[str, str]) -> tuple[int, ...] | str:
    values = []
    for name in CHEXPERT_FINDINGS:
        cell = row[name]
        value = ABSENT if not cell else LABEL_VALUES.get(cell.removesuffix(".0"))
        if value is None:
            return f"{name} is {cell[:40]!r}"
        values.append(value)
    return tuple(values)


def _rows(
    source: Source,
    views: tuple[str, ...],
    sections: tuple[str, ...],
    labeler: str,
    limit: int | None,
    not_selected: Counter[str],
) -> Iterator[Row | Rejection]:
    labels = read_labels(source.tables[labeler])
    splits = {row["dicom_id"]: row["split"] for row in read_table(source.tables["split"], ("dicom_id", "split"))}

    @functools.lru_cache(maxsize=8)
    def text_of(subject: str, study: str) -> str | Rejection:
        return _text(source.reports / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}.txt", sections)

    count = 0
    for row in read_table(source.tables["metadata"], ("dicom_id", "subject_id", "study_id", "ViewPosition")):
        image_id, subject, study, view = (
            row["dicom_id"],
            row["subject_id"],
            row["study_id"],
            row["ViewPosition"].upper(),
        )
        if views and view not in views:
            not_selected[view or "(none)"] += 1
            continue
        if limit is not None and count >= limit:
            return
        count += 1
        if not all((image_id, subject, study)):
            yield Rejection(image_id, "missing_field", "dicom_id, subject_id or study_id is empty")
            continue
        if not (_NUMBER.fullmatch(subject) and _NUMBER.fullmatch(study) and _DICOM_ID.fullmatch(image_id)):
            yield Rejection(
                image_id, "unsafe_path", f"subject {subject!r}, study {study!r}: the ids do not make a file name"
            )
            continue
        split, values = splits.get(image_id), labels.get(study)
        if split is None:
            yield Rejection(image_id, "no_split", "no row in the split file")
        elif split not in SPLIT_NAMES:
            yield Rejection(image_id, "unknown_split", f"split {split[:40]!r}; expected train, validate or test")
        elif values is None:
            yield Rejection(image_id, "no_labels", f"study {study} has no row in the {labeler} file")
        elif isinstance(values, str):
            yield Rejection(image_id, "bad_label_value", values)
        elif isinstance(text := text_of(subject, study), Rejection):
            yield Rejection(image_id, text.reason, text.detail)
        else:
            folder = source.images / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"
            yield Row(image_id, study, subject, SPLIT_NAMES[split], folder / f"{image_id}.jpg", text, values, view)


def _text(path: Path, wanted: tuple[str, ...]) -> str | Rejection:
    try:
        report = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Rejection("", "missing_report", f"no file at {path}")
    if not report.strip():
        return Rejection("", "empty_text", f"{path} is empty")
    text = reports.select(report, wanted)
    if text:
        return text
    there = [name for name, body in reports.sections(report).items() if body]
    return Rejection(
        "", "no_wanted_section", f"none of {', '.join(wanted)}; the report has {', '.join(there) or 'no text'}"
    )
