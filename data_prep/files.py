"""Safe access to the files of a source: regular files of limited size only, without those of the operating system."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Files and folders that macOS, Windows and file servers add, apart from those whose names begin with a dot.
_OF_THE_SYSTEM = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir"})


class TooLargeError(Exception):
    """A file is larger than any sound file of its type."""


def hidden(path: str) -> bool:
    """Whether a path in a source is a file of the operating system: `._1.xml`, `__MACOSX/1.xml`, `Thumbs.db`."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return any(part.lower() in _OF_THE_SYSTEM for part in parts) or any(part.startswith(".") for part in parts[-1:])


def listed(folder: Path, suffix: str) -> Iterator[Path]:
    """The files in a folder whose names end in `suffix`, in any case, except `hidden` ones."""
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.suffix.lower() == suffix and not hidden(path.name))


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes; the size is checked before anything is read.

    Raises `TooLargeError` for a larger file, and `OSError` if the system cannot read it or it is not a regular file: a
    pipe or a device has no end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise OSError(number, "no regular file", str(path))
    if status.st_size > most:
        raise TooLargeError(f"{status.st_size} bytes, more than the {most} of the largest sound one")
    with open(path, "rb") as file:
        return file.read(status.st_size)
