"""The films that a command line names: files, what lies in folders, lists on stdin, and prepared data sets."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvill_jax.errors import UserError
from medvill_jax.films.signature import DICOM_HEAD, dicom_start

STDIN = "-"
# Of `films.decode.FORMATS`. DICOM files often have no ending, and are known by their first bytes.
SUFFIXES = {
    ".bmp", ".dcm", ".dicom", ".gif", ".j2k", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
}  # fmt: skip
# The table of contents of a DICOM medium, itself DICOM.
_CONTENTS = "DICOMDIR"
# In the folder of a prepared data set.
_DATA_SET = "dataset_info.json"


class NoFilmError(UserError):
    """A folder or a list without a film, a film without a name, or a data set where films are expected."""


@dataclass(frozen=True)
class Named:
    """What a command line names.

    Attributes:
        films: as a model takes them, by name and in order: paths, which need not exist, or records.
        single: whether it names one film, rather than a folder or a list that happens to hold one.
        left_out: how many other files lie in the folders.
    """

    films: dict[str, Any]
    single: bool
    left_out: int


def named(words: Sequence[str]) -> Named:
    """The films that the words of a command line name.

    Args:
        words: files; folders, which are searched, also those that links lead to; or `STDIN`, for a path per line there.

    Raises:
        NoFilmError: none is there, a word is empty, or a folder is a prepared data set.
        OSError: a folder cannot be listed.
    """
    if "" in words:  # which as a path is the current folder
        raise NoFilmError("a film has an empty name; is a variable of the command line not set?")
    films: dict[str, Any] = {}
    left_out = 0
    single = len(words) == 1 and words[0] != STDIN and not os.path.isdir(Path(words[0]))
    for path in _paths(words):
        if not os.path.isdir(path):  # where `Path.is_dir` may raise, of a folder that is closed or a name too long
            films[str(path)] = str(path)
            continue
        if os.path.isfile(path / _DATA_SET):
            raise NoFilmError(f"{path} is a prepared data set: name one of its splits, --split=test for one")
        for file in _files(path):
            if _is_film(file):
                films[str(file)] = str(file)
            else:
                left_out += 1
    if not films:
        raise NoFilmError(f"there is no film in {', '.join('the list' if word == STDIN else word for word in words)}")
    return Named(films, single, left_out)


def of_split(words: Sequence[str], split: str) -> Named:
    """The films of a split of a prepared data set, by the identifiers of their records.

    Raises:
        NoFilmError: the words are not one data set.
        DataError: there is no such data set or split, or it is damaged.
    """
    if len(words) != 1 or words[0] == STDIN:
        raise NoFilmError(f"--split={split} is of one prepared data set: name its folder and nothing else")
    from medvill_jax.app import prepared

    return Named({film.name: film for film in prepared.films(words[0], split)}, single=False, left_out=0)


def _paths(words: Iterable[str]) -> Iterator[Path]:
    for word in words:
        if word != STDIN:
            yield Path(word)
            continue
        # Names of files are bytes, which need not be UTF-8.
        for line in sys.stdin.buffer:
            if name := line.rstrip(b"\r\n"):
                yield Path(os.fsdecode(name))


def _files(folder: Path) -> Iterator[Path]:
    """The files under a folder, by name; hidden ones left out, and no folder twice, however links lead there."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        status = os.stat(place)
        if (identity := (status.st_dev, status.st_ino)) in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise error


def _is_film(file: Path) -> bool:
    """Whether a file in a folder is meant as a film; one that cannot be read is, or nobody would hear of it."""
    if file.suffix.lower() in SUFFIXES:
        return True
    if file.name == _CONTENTS:
        return False
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would have to be waited for
            return False
        with file.open("rb") as content:
            return dicom_start(content.read(DICOM_HEAD)) is not None
    except OSError:
        return True
