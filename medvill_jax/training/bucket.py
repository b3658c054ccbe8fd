"""A workdir in a bucket, `gs://BUCKET/RUN`: checkpoints go there from all hosts; all else by way of a folder here.

Objects are written once and whole. Locks, renames and files that grow are not for buckets, so a process works in a
folder of its own, which begins as a copy of the run without its checkpoints; process 0 sends what changed there before
every checkpoint and at the end. So the figures of a step are in the bucket before the checkpoint of that step is.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import shutil
import tempfile
from pathlib import Path

from etils import epath

SCHEME = "gs"
CHECKPOINT_DIR = "checkpoints"
# Files that are in the making, or mean something to processes of this host only.
OWN = ("*.tmp", "*.part", "*.partial", "*.old", ".lock")


class BucketError(Exception):
    """A bucket cannot be reached; the message says what to do."""


def place(url: str) -> epath.Path:
    """The path of a `gs://` URL.

    Raises:
        BucketError: what reads buckets is not installed.
    """
    if importlib.util.find_spec("gcsfs") is None:
        raise BucketError(f"{url} needs gcsfs: pip install -e '.[gcs]'")
    return epath.Path(url)


def fetch(url: str, folder: Path, *, leave_out: tuple[str, ...] = ()) -> None:
    """Copies what lies under a URL, a folder or one file, into an empty folder; nothing where nothing is there.

    Args:
        url: `gs://BUCKET/PATH`.
        folder: to copy into; a single file keeps its name.
        leave_out: names directly under the URL.

    Raises:
        BucketError: the bucket cannot be read.
    """
    there = place(url)
    try:
        if there.is_file():
            _fetch_file(there, folder / there.name)
        elif there.is_dir():
            _fetch_tree(there, folder, leave_out)
    except Exception as error:  # gcsfs, google.auth and aiohttp have types of their own
        raise BucketError(f"{url} cannot be read: {_first_line(error)}") from error


def _fetch_tree(there: epath.Path, here: Path, leave_out: tuple[str, ...] = ()) -> None:
    here.mkdir(exist_ok=True)
    for item in there.iterdir():
        if item.name in leave_out:
            continue
        if item.is_dir():
            _fetch_tree(item, here / item.name)
        else:
            _fetch_file(item, here / item.name)


def _fetch_file(there: epath.Path, here: Path) -> None:
    with there.open("rb") as source, here.open("wb") as target:
        shutil.copyfileobj(source, target)


class Mirror:
    """A run in a bucket, and the folder of this process that stands for it.

    Args:
        url: of the run.

    Attributes:
        url: the same.
        home: the run's place in the bucket.
        folder: an absolute path; gone when the process ends.

    Raises:
        BucketError: the bucket cannot be read.
    """

    def __init__(self, url: str):
        self.url, self.home = url.rstrip("/"), place(url)
        self._temporary = tempfile.TemporaryDirectory(prefix="medvill_jax-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name).absolute()
        fetch(self.url, self.folder, leave_out=(CHECKPOINT_DIR,))
        self._sent = self._state()

    def read(self, name: str) -> str:
        """The text of a file as it stands in the bucket.

        Raises:
            BucketError: it cannot be read.
        """
        try:
            return (self.home / name).read_text()
        except Exception as error:  # gcsfs, google.auth and aiohttp have types of their own
            raise BucketError(f"{self.url}/{name} cannot be read: {_first_line(error)}") from error

    def send(self) -> None:
        """Writes what changed in the folder to the bucket, and deletes there what was deleted here.

        Raises:
            BucketError: it cannot be written; what is not there yet is tried again the next time.
        """
        now = self._state()
        try:
            for name, version in now.items():
                if self._sent.get(name) != version:
                    with (self.folder / name).open("rb") as source, (self.home / name).open("wb") as target:
                        shutil.copyfileobj(source, target)
                    self._sent[name] = version
            for name in sorted(self._sent.keys() - now.keys()):
                (self.home / name).unlink(missing_ok=True)
                del self._sent[name]
        except Exception as error:  # as in `read`
            raise BucketError(f"{self.url} cannot be written: {_first_line(error)}") from error

    def _state(self) -> dict[str, tuple[int, int]]:
        """Name -> size and time of every file that belongs to the run."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            own = any(fnmatch.fnmatch(part, pattern) for part in name.parts for pattern in OWN)
            if path.is_file() and not own:
                status = path.stat()
                found[name.as_posix()] = (status.st_size, status.st_mtime_ns)
        return found


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__
