"""Finds the files of a copy of MIMIC-CXR, in every version, layout and spelling in use.

Images and tables come with MIMIC-CXR-JPG, reports and DICOM files with MIMIC-CXR (both PhysioNet, credentialed). The
tables at the top list the accepted layouts; the layout of a copy is the one in which the files of a few rows exist.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.ids import identifier, number
from data_prep.report_files import ZIP_NAMES, Reports, find_reports
from data_prep.tables import some_rows
from medvill_jax.data.records import DataError

_PREFIXES = ("mimic-cxr-2.1.0-", "mimic-cxr-2.0.0-", "mimic-cxr-", "mimic_cxr_", "mimic_cxr-")
# Table -> file names, best first; each may also end in .gz.
TABLES = {
    **{table: tuple(f"{prefix}{table}.csv" for prefix in _PREFIXES) for table in ("split", "metadata", "chexpert")},
    # The older distribution spells it "nebio".
    "negbio": tuple(f"{prefix}{name}.csv" for name in ("negbio", "nebio") for prefix in _PREFIXES),
    "record_list": ("cxr-record-list.csv", "cxr_record_list.csv"),
}
_SHOWN = {
    **{table: f"mimic-cxr-2.0.0-{table}.csv.gz" for table in ("split", "metadata", "chexpert", "negbio")},
    "record_list": "cxr-record-list.csv.gz",
}
# Folders, relative to --source, that may hold tables and images, or reports.
ROOTS = (
    ".",
    "mimic-cxr-jpg",
    "mimic-cxr-jpg/2.*",
    "files/mimic-cxr-jpg/2.*",
    "physionet.org/files/mimic-cxr-jpg/2.*",
    "mimic-cxr",
    "mimic-cxr/2.*",
    "files/mimic-cxr/2.*",
    "physionet.org/files/mimic-cxr/2.*",
    "../mimic-cxr",
    "../../mimic-cxr/2.*",
)
REPORT_ROOTS = (*ROOTS, "reports", "mimic-cxr-reports", "mimic-cxr/mimic-cxr-reports")
# Image folders of a study; {group} is the first two digits of the subject.
FOLDERS = (
    "files/p{group}/p{subject}/s{study}",
    "p{group}/p{subject}/s{study}",
    "files/p{subject}/s{study}",
    "p{subject}/s{study}",
    "files/{subject}/{study}",
    "{subject}/{study}",
    "images/{subject}/{study}",
    "images/p{group}/p{subject}/s{study}",
)
SUFFIXES = {"jpg": (".jpg", ".jpeg", ".png"), "dicom": (".dcm", ".dicom")}
ID_COLUMNS = ("subject_id", "study_id", "dicom_id")
NUMBER = re.compile(r"[0-9]{1,12}")
DICOM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


@dataclass(frozen=True)
class Images:
    """The image files of a copy: root, folder pattern and suffix."""

    root: Path
    folder: str
    suffix: str

    def path(self, subject: str, study: str, image: str) -> Path:
        folder = self.folder.format(group=subject[:2], subject=subject, study=study)
        return self.root / folder / f"{image}{self.suffix}"

    @property
    def kind(self) -> str:
        return next(kind for kind, suffixes in SUFFIXES.items() if self.suffix in suffixes)


@dataclass(frozen=True)
class Source:
    """The files of one copy of MIMIC-CXR."""

    images: Images
    reports: Reports
    tables: dict[str, Path]

    @property
    def rows(self) -> Path:
        """The table that has one row per image."""
        return self.tables.get("metadata") or self.tables["record_list"]


def locate(source: Path, tables: Sequence[str], reports_root: Path | None = None, images: str = "auto") -> Source:
    """Finds tables, images and reports below `source`. Raises `DataError`, which names every missing file.

    Args:
      source: the folder of the copy, or one above it.
      tables: the tables that are needed. The record list of the DICOM distribution may replace "metadata".
      reports_root: the folder or zip file of the reports, if it is not found from `source`.
      images: "jpg", "dicom", or "auto": the JPEG files if there are any.
    """
    if not source.is_dir():
        raise DataError(f"there is no folder {source}: --source is the folder of your copy of MIMIC-CXR")
    roots = _expand(source, ROOTS)
    table_files = {table: path for table in TABLES if (path := _table_file(roots, table)) is not None}
    needed = [table for table in tables if table not in table_files]
    if "metadata" in needed and "record_list" in table_files and images != "jpg":
        needed.remove("metadata")
    if needed:
        raise DataError(_missing_tables(source, needed))
    used_tables = {table: table_files[table] for table in (*tables, "record_list") if table in table_files}
    if "metadata" in used_tables:
        used_tables.pop("record_list", None)
    sample = _ids(used_tables.get("metadata") or used_tables["record_list"])
    image_roots = list(dict.fromkeys([*roots, *(path.parent for path in used_tables.values())]))
    image_files = _find_images(image_roots, sample, images)
    if image_files is None:
        raise DataError(
            f"{source} has the tables but none of the images that they name: expected "
            "files/p10/p10000032/s50414267/<dicom_id>.jpg (MIMIC-CXR-JPG) or .dcm (MIMIC-CXR) and so on, or "
            "10000032/50414267/<dicom_id>.jpg"
        )
    studies = list(dict.fromkeys((subject, study) for subject, study, _ in sample))
    report_roots = [reports_root] if reports_root else [*_expand(source, REPORT_ROOTS), *image_roots]
    reports = find_reports(report_roots, studies)
    if reports is None and reports_root:
        raise DataError(
            f"there are no reports at {reports_root}: expected files/p10/p10000032/s50414267.txt and so on in it, or "
            f"{ZIP_NAMES[0]}"
        )
    if reports is None:
        raise DataError(
            f"found no reports in {source}: expected files/p10/p10000032/s50414267.txt and so on, or {ZIP_NAMES[0]}, "
            f"in it or in {source / 'mimic-cxr'}. They come with MIMIC-CXR (https://physionet.org/content/mimic-cxr/); "
            "if they are elsewhere, name their folder or the zip file with --reports."
        )
    return Source(images=image_files, reports=reports, tables=used_tables)


def find_images(folder: Path, sample: Sequence[tuple[str, str, str]], kind: str = "auto") -> Images | None:
    """The films of a copy of which nothing else is needed; None if none of them is there.

    Args:
      folder: the folder of the copy, or one above it.
      sample: the ids of subject, study and image of some films.
      kind: "jpg", "dicom", or "auto": the JPEG files if there are any.
    """
    return _find_images(_expand(folder, ROOTS), sample, kind)


def find_table(folder: Path, table: str) -> Path | None:
    """The file of one of `TABLES` in a copy, None if it has none."""
    return _table_file(_expand(folder, ROOTS), table)


def ids_of(row: Mapping[str, str]) -> tuple[str, str, str]:
    """The ids of subject, study and image in a row of a table."""
    return number(row["subject_id"]), number(row["study_id"]), identifier(row["dicom_id"])


def usable(subject: str, study: str, image: str) -> bool:
    """Whether the ids are safe parts of a file name."""
    return (
        bool(NUMBER.fullmatch(subject) and NUMBER.fullmatch(study) and DICOM_ID.fullmatch(image)) and ".." not in image
    )


def _missing_tables(source: Path, needed: Sequence[str]) -> str:
    lines = [f"  {_SHOWN[table]} (or without .gz)" for table in needed]
    hints = []
    if "split" in needed:
        hints.append("Without the official split, --split=subject makes one.")
    if {"chexpert", "negbio"} & set(needed):
        hints.append("Without label files, --labels=report takes the labels from the report texts.")
    return (
        f"{source} lacks these files of MIMIC-CXR-JPG:\n" + "\n".join(lines) + "\n"
        "Download them from https://physionet.org/content/mimic-cxr-jpg/ (credentialed access) and give their "
        "folder, or the one above it, as --source." + "".join(f"\n{hint}" for hint in hints)
    )


def _expand(base: Path, patterns: Sequence[str]) -> list[Path]:
    folders: list[Path] = []
    for pattern in patterns:
        if "*" in pattern:
            head, _, tail = pattern.rpartition("/")
            folders += sorted((base / head).glob(tail), reverse=True) if (base / head).is_dir() else []
        else:
            folders.append(base / pattern if pattern != "." else base)
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _table_file(roots: Sequence[Path], table: str) -> Path | None:
    names = [name + suffix for name in TABLES[table] for suffix in (".gz", "")]
    return next((root / name for root in roots for name in names if (root / name).is_file()), None)


def _ids(table: Path) -> list[tuple[str, str, str]]:
    rows = some_rows(table, ID_COLUMNS)
    return [ids for ids in map(ids_of, rows) if usable(*ids)]


def _find_images(roots: Sequence[Path], sample: Sequence[tuple[str, str, str]], kind: str) -> Images | None:
    for image_format in ("jpg", "dicom") if kind == "auto" else (kind,):
        best, best_count = None, 0
        for root in roots:
            for folder in FOLDERS:
                for suffix in SUFFIXES[image_format]:
                    images = Images(root, folder, suffix)
                    count = sum(images.path(*ids).is_file() for ids in sample)
                    if count > best_count:
                        best, best_count = images, count
                if best_count == len(sample) > 0:
                    return best
        if best is not None:
            return best
    return None
