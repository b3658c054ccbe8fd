"""Files of a source, which may be anything: read whole only where they are files, and no larger than is sensible.

Files that a system keeps for itself beside those of its user are no files of a source.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# What macOS, Windows and file servers leave in folders and zip files, beside files whose names begin with a dot.
_OF_THE_SYSTEM = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir"})


class TooLargeError(Exception):
    """A file is longer than any of its kind."""


def hidden(path: str) -> bool:
    """Whether a file, by its path in a source, is the system's own: `._1.xml`, `__MACOSX/1.xml`, `Thumbs.db`."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return any(part.lower() in _OF_THE_SYSTEM for part in parts) or any(part.startswith(".") for part in parts[-1:])


def listed(folder: Path, suffix: str) -> Iterator[Path]:
    """The files in a folder whose names end in `suffix`, in whatever case, but for the system's own."""
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.suffix.lower() == suffix and not hidden(path.name))


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes, whose size is looked at before anything is read.

    Raises `TooLargeError`, or `OSError` as the system gives it; a pipe or a device, which has no end, is one too.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, "no regular file", str(path))
    if found.st_size > most:
        raise TooLargeError(f"{found.st_size} bytes, more than the {most} of the largest sound one")
    with open(path, "rb") as file:
        return file.read(found.st_size)
