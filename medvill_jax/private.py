"""Who may read what is written: by default the user who runs a program, whatever the umask; `--shared` keeps the umask.

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
