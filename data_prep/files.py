"""Files of a source, which may be anything: read whole only where they are files, and no larger than is sensible."""

from __future__ import annotations

import errno
import stat
from pathlib import Path


class TooLargeError(Exception):
    """A file is longer than any of its kind."""


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
