"""Reads the report texts of MIMIC-CXR: from folders in any of its layouts, or from mimic-cxr-reports.zip."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from data_prep.files import hidden
from medvill_jax.data.records import DataError
from medvill_jax.errors import UserError
from medvill_jax.films.files import TooLargeError, read_bytes

ZIP_NAMES = ("mimic-cxr-reports.zip", "mimic_cxr_reports.zip", "mimic-cxr-reports-v2.zip")
# Paths of a report, relative to the folder of the reports; {group} is the first two digits of the subject.
PATTERNS = (
    "files/p{group}/p{subject}/s{study}.txt",
    "p{group}/p{subject}/s{study}.txt",
    "files/p{subject}/s{study}.txt",
    "p{subject}/s{study}.txt",
    "files/p{group}/p{subject}/s{study}/s{study}.txt",
    "files/{subject}/{study}.txt",
    "{subject}/{study}.txt",
    "{subject}/s{study}.txt",
    "{subject}/{study}/{study}.txt",
    "s{study}.txt",
    "{study}.txt",
)
# The longest reports have some 10,000 characters.
LARGEST = 1 << 20
_ENTRY = re.compile(r"(?:^|/)s?([0-9]{1,12})\.txt$")


class ReportError(UserError):
    """A report cannot be used: `reason` is the rejection reason, the message is its detail."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


class Reports(Protocol):
    """A source of report texts."""

    name: str

    def read(self, subject: str, study: str) -> str:
        """The text of a study. Raises `ReportError`."""
        ...


class FolderReports:
    """Reports as files; `pattern` is one of `PATTERNS`."""

    def __init__(self, root: Path, pattern: str):
        self.root, self.pattern = root, pattern
        self.name = pattern

    def path(self, subject: str, study: str) -> Path:
        return self.root / self.pattern.format(group=subject[:2], subject=subject, study=study)

    def read(self, subject: str, study: str) -> str:
        path = self.path(subject, study)
        try:
            return _text(read_bytes(path, LARGEST), str(path))
        except TooLargeError as error:
            raise ReportError("oversized_report", f"{path}: {error}") from error
        except FileNotFoundError as error:
            raise ReportError("missing_report", f"no file at {path}") from error
        except OSError as error:
            raise ReportError("inaccessible_file", f"{path}: {error.strerror or type(error).__name__}") from error


class ZipReports:
    """Reports in a zip file, found by their study number in any folder of it. Nothing is unpacked to disk."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        try:
            self._file = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError) as error:
            raise DataError(f"{path} is damaged or not a zip file: download it again") from error
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self._disagree: set[str] = set()
        for info in self._file.infolist():
            if (match := _ENTRY.search(info.filename)) is not None and not hidden(info.filename):
                first = self._entries.setdefault(match[1], info)
                if (first.CRC, first.file_size) != (info.CRC, info.file_size):
                    self._disagree.add(match[1])
        if not self._entries:
            raise DataError(f"{path} has no reports in it: expected files/p10/p10000032/s50414267.txt and so on")

    def read(self, subject: str, study: str) -> str:
        info = self._entries.get(study)
        if info is None:
            raise ReportError("missing_report", f"{self.path} has no s{study}.txt")
        where = f"{self.path}/{info.filename}"
        if study in self._disagree:
            raise ReportError("reports_disagree", f"{where} is in the zip file more than once, with other content")
        if info.file_size > LARGEST:
            raise ReportError("oversized_report", f"{where} has more than {LARGEST} bytes")
        try:
            with self._file.open(info) as file:
                data = file.read(LARGEST + 1)
        except OSError as error:
            raise ReportError("inaccessible_file", f"{where}: {error.strerror or type(error).__name__}") from error
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
            raise ReportError("unreadable_report", f"{where}: {type(error).__name__}") from error
        if len(data) > LARGEST:
            raise ReportError("oversized_report", f"{where} has more than {LARGEST} bytes")
        return _text(data, where)


def find_reports(roots: Sequence[Path], studies: Iterable[tuple[str, str]]) -> Reports | None:
    """The source among `roots` that has the most of `studies`, pairs of subject and study; None if none has any.

    A root is a folder of reports, a folder with a zip file of `ZIP_NAMES`, or a zip file.
    """
    sample = list(studies)
    best, best_count = None, 0
    for root in roots:
        if root.is_file():
            return ZipReports(root)
        for pattern in PATTERNS if root.is_dir() else ():
            reports = FolderReports(root, pattern)
            count = sum(reports.path(subject, study).is_file() for subject, study in sample)
            if count > best_count:
                best, best_count = reports, count
    if best is None:
        zips = [root / name for root in roots for name in ZIP_NAMES if (root / name).is_file()]
        return ZipReports(zips[0]) if zips else None
    return best


def _text(data: bytes, where: str) -> str:
    if b"\0" in data[:4096]:
        raise ReportError("unreadable_report", f"{where} is not text")
    return data.decode("utf-8-sig", errors="replace")
