"""Paths of files and folders that may lie in a bucket, `gs://BUCKET/PATH`."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
from pathlib import Path

from etils import epath

from medvill_jax.errors import UserError

# Of whatever is read: a path, or a `gs://` URL.
Place = str | Path | epath.Path
SCHEME = "gs"


class PathError(UserError):
    """A path of a kind that is not known or cannot be reached; the message says what to do."""


def in_bucket(path: Place) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def place(path: Place) -> epath.Path:
    """A path, or a `gs://` URL, as what can be listed, read and written.

    Raises:
        PathError: another kind of URL, or what reads buckets is not installed.
    """
    if in_bucket(path):
        if not str(path).startswith(f"{SCHEME}://"):
            raise PathError(
                f"{path} is no folder; of buckets {SCHEME}:// is known: mount others on all hosts, and give the path "
                "under the mount"
            )
        if importlib.util.find_spec("gcsfs") is None:
            raise PathError(f"{path} needs gcsfs: pip install -e '.[gcs]'")
    return epath.Path(path)


def copy_file(source: epath.Path, target: epath.Path) -> None:
    """Copies one file, whether source and target lie here or in a bucket."""
    with source.open("rb") as data, target.open("wb") as out:
        shutil.copyfileobj(data, out)


def fetch(url: str, folder: Path, *, leave_out: tuple[str, ...] = ()) -> None:
    """Copies what lies under a URL, a folder or one file, into an empty folder; nothing where nothing is there.

    Args:
        url: `gs://BUCKET/PATH`.
        folder: to copy into; a single file keeps its name.
        leave_out: names directly under the URL.

    Raises:
        PathError: the bucket cannot be read.
    """
    there = place(url)
    try:
        if there.is_file():
            copy_file(there, epath.Path(folder) / there.name)
        elif there.is_dir():
            _fetch_tree(there, epath.Path(folder), leave_out)
    except Exception as error:  # gcsfs, google.auth and aiohttp have types of their own
        raise unreachable(url, "read", error) from error


def unreachable(url: object, done: str, error: Exception) -> PathError:
    """What to raise for whatever a bucket's client raised when something was to be done, "read" or "written"."""
    return PathError(f"{url} cannot be {done}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")


def system_error(error: Exception) -> str | None:
    """What the operating system said, and of which file, where that is why reading or writing failed; None otherwise.

    Readers written in C++ raise types of their own, with the system's words in their text.
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        said, file = error.strerror or os.strerror(error.errno), error.filename
    else:
        said = next(filter(text.__contains__, map(os.strerror, errno.errorcode)), None)
        found = re.search(r"\b(?:opening|reading|writing) ([^;]+)", text)
        file = found[1] if found else None
    return f"{said}: {file}" if said and file else said


def _fetch_tree(there: epath.Path, here: epath.Path, leave_out: tuple[str, ...] = ()) -> None:
    here.mkdir(exist_ok=True)
    for item in there.iterdir():
        if item.name in leave_out:
            continue
        if item.is_dir():
            _fetch_tree(item, here / item.name)
        else:
            copy_file(item, here / item.name)
