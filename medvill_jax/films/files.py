"""Safe reading of files: regular files of limited size only."""

from __future__ import annotations

import errno
import stat
from pathlib import Path


class TooLargeError(Exception):
    """A file is larger than any sound file of its type."""


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
