"""The files of a source, without those of the operating system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

# Programs of users import these from here.
from medvill_jax.films.files import TooLargeError as TooLargeError
from medvill_jax.films.files import read_bytes as read_bytes

# Files and folders that macOS, Windows and file servers add, apart from those whose names begin with a dot.
_OF_THE_SYSTEM = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir"})


def hidden(path: str) -> bool:
    """Whether a path in a source is a file of the operating system: `._1.xml`, `__MACOSX/1.xml`, `Thumbs.db`."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return any(part.lower() in _OF_THE_SYSTEM for part in parts) or any(part.startswith(".") for part in parts[-1:])


def escapes(path: str) -> bool:
    """Whether a path is absolute or leads out of its root, by the rules of any operating system.

    Symbolic links are not followed: owners of a data set often link image folders to other disks.
    """
    parts = PureWindowsPath(path)
    return bool(parts.root) or ".." in parts.parts or "\0" in path


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for a name that is too long, on which `Path.is_file` raises."""
    return os.path.isfile(path)


def listed(folder: Path, suffix: str) -> Iterator[Path]:
    """The files in a folder whose names end in `suffix`, in any case, except `hidden` ones."""
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.suffix.lower() == suffix and not hidden(path.name))
