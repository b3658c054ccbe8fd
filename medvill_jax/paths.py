"""Paths of files and folders that may be in a bucket, `gs://BUCKET/PATH`."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
from pathlib import Path

from etils import epath

from medvill_jax.errors import UserError

# A path, or a `gs://` URL.
Place = str | Path | epath.Path
SCHEME = "gs"


class PathError(UserError):
    """An unknown kind of URL, or a path that cannot be reached; the message says what to do."""


def in_bucket(path: Place) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def place(path: Place) -> epath.Path:
    """A path or a `gs://` URL as an `epath.Path`, which can be listed, read and written.

    Raises:
        PathError: another kind of URL, or gcsfs is not installed.
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
    """Copies one file; source and target may be in a bucket."""
    with source.open("rb") as data, target.open("wb") as out:
        shutil.copyfileobj(data, out)


def fetch(url: str, folder: Path, *, leave_out: tuple[str, ...] = ()) -> None:
    """Copies the folder or file at a URL into an empty folder; does nothing if it does not exist.

    Args:
        url: `gs://BUCKET/PATH`.
        folder: to copy into; a single file keeps its name.
        leave_out: names directly under the URL that are not copied.

    Raises:
        PathError: the bucket cannot be read.
    """
    source = place(url)
    try:
        if source.is_file():
            copy_file(source, epath.Path(folder) / source.name)
        elif source.is_dir():
            _fetch_tree(source, epath.Path(folder), leave_out)
    except Exception as error:  # gcsfs, google.auth and aiohttp have exceptions without a common base
        raise unreachable(url, "read", error) from error


def unreachable(url: object, done: str, error: Exception) -> PathError:
    """The error to raise for an exception of a bucket's client; `done` is what cannot be done, "read" or "written"."""
    return PathError(f"{url} cannot be {done}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")


def system_error(error: Exception) -> str | None:
    """The operating system's message and its file, if that is why reading or writing failed; None otherwise.

    Readers written in C++ raise other exceptions, whose text contains the system's message.
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        message, file = error.strerror or os.strerror(error.errno), error.filename
    else:
        message = next(filter(text.__contains__, map(os.strerror, errno.errorcode)), None)
        match = re.search(r"\b(?:opening|reading|writing) ([^;]+)", text)
        file = match[1] if match else None
    return f"{message}: {file}" if message and file else message


def _fetch_tree(source: epath.Path, target: epath.Path, leave_out: tuple[str, ...] = ()) -> None:
    target.mkdir(exist_ok=True)
    for item in source.iterdir():
        if item.name in leave_out:
            continue
        if item.is_dir():
            _fetch_tree(item, target / item.name)
        else:
            copy_file(item, target / item.name)
