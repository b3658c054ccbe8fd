"""Writing files: whole or not at all, and by default readable by their user alone; `--shared` follows the umask.

Programs set the umask of their process, which child processes and libraries inherit. A library must not change the
umask of programs that import it, so without a program every folder and file is made private one by one.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

OTHERS = 0o077
HELP = "let others read what is written, as far as your umask does (default: you alone)"

_shared = False


@contextlib.contextmanager
def files(shared: bool) -> Iterator[None]:
    """A block that writes files readable by the user alone (0600 in folders of 0700), unless they are shared."""
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
    """Adds the flag `--shared`, the argument of `files`."""
    parser.add_argument("--shared", action="store_true", help=HELP)


def mode(full: int) -> int:
    """The permissions for a new file (`full` is 0o666) or folder (0o777)."""
    if not _shared:
        return full & ~OTHERS
    umask = os.umask(OTHERS)
    os.umask(umask)
    return full & ~umask


def folder(path: Path) -> None:
    """Makes a folder, and closes it, new or not, to other users, so that they cannot reach its files."""
    path.mkdir(mode=mode(0o777), parents=True, exist_ok=True)
    if not _shared:
        with contextlib.suppress(PermissionError):  # somebody else's folder
            path.chmod(path.stat().st_mode & 0o7777 & ~OTHERS)


def opener(path: str, flags: int) -> int:
    """For `open(..., opener=private.opener)`: a new file is readable by the user alone."""
    return os.open(path, flags, mode(0o666))


def lock(file: IO[bytes]) -> bool:
    """Whether this process now holds a file that each program locks before it writes; True without locks to be had."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # the file system has no locks
    return True


@contextlib.contextmanager
def replaced(path: Path, *, by_umask: bool = False) -> Iterator[Path]:
    """A temporary file next to `path`, for the block to write, which then replaces `path`.

    Readers see the old file or the new one; if the block fails, the old one stays as it was. What a link points to, a
    pipe or a device, such as `/dev/stdout`, is written in place.

    Args:
        path: in a folder that exists.
        by_umask: the umask alone decides who may read it: for worker processes, which know `--shared` only by it.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        yield path
        return
    # Hosts may share the folder, so the name has host and process.
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
