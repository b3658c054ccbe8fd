"""Writing files: whole or not at all, and by default for their user alone, whatever the umask; `--shared` keeps it.

Programs set the umask of their whole process, which child processes and libraries follow. A library must not do that to
whoever imports it, so what is called without a program makes its own folders and files private one by one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

OTHERS = 0o077
HELP = "let others read what is written, as far as your umask does (default: you alone)"

_shared = False


@contextlib.contextmanager
def files(shared: bool) -> Iterator[None]:
    """A program's work, whose files are its user's alone (0600 in folders of 0700) unless they are shared."""
    global _shared
    before = _shared, None if shared else os.umask(OTHERS)
    _shared = shared
    try:
        yield
    finally:
        _shared = before[0]
        if before[1] is not None:
            os.umask(before[1])


def add_flag(parser: argparse.ArgumentParser) -> None:
    """`--shared`, for `files`."""
    parser.add_argument("--shared", action="store_true", help=HELP)


def mode(full: int) -> int:
    """The permissions of a file (0o666) or a folder (0o777) that is written."""
    if not _shared:
        return full & ~OTHERS
    umask = os.umask(OTHERS)
    os.umask(umask)
    return full & ~umask


def folder(path: Path) -> None:
    """Makes a folder, and closes it to others, also if it was there; what is in it is then out of their reach."""
    path.mkdir(mode=mode(0o777), parents=True, exist_ok=True)
    if not _shared:
        with contextlib.suppress(PermissionError):  # somebody else's folder
            path.chmod(path.stat().st_mode & 0o7777 & ~OTHERS)


def opener(path: str, flags: int) -> int:
    """For `open(..., opener=private.opener)`: a new file is the user's alone."""
    return os.open(path, flags, mode(0o666))


@contextlib.contextmanager
def replaced(path: Path, *, by_umask: bool = False) -> Iterator[Path]:
    """A new file beside `path` to be written in the block, which then takes its place.

    Whoever reads sees the old file or the new one; where the block fails, the old one stays as it was.

    Args:
        path: in a folder that exists.
        by_umask: the umask alone says who reads it: in a worker process, which knows of `--shared` by nothing else.
    """
    # Hosts may share the folder.
    part = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.part")
    try:
        part.touch(mode=0o666 if by_umask else mode(0o666))
        yield part
        part.replace(path)
    except OSError as error:
        if error.filename == str(part):
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write(path: Path, content: str | bytes) -> None:
    """Writes a file as `replaced` does; text as UTF-8."""
    with replaced(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
