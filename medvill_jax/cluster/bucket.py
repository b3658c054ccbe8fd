"""A workdir in a bucket, `gs://BUCKET/RUN`: checkpoints go there from all hosts; all else by way of a folder here.

Objects are written once and whole. Locks, renames and files that grow are not for buckets, so a process works in a
folder of its own, which begins as a copy of the run without its checkpoints; process 0 sends what changed there before
every checkpoint and at the end. So the figures of a step are in the bucket before the checkpoint of that step is.
"""

from __future__ import annotations

import fnmatch
import shutil
import tempfile
import weakref
from pathlib import Path

from etils import epath

from medvill_jax.paths import copy_file, fetch, place, unreachable

# Files that are in the making, or mean something to processes of this host only.
OWN = ("*.tmp", "*.part", "*.partial", "*.old", ".lock")


class Mirror:
    """A run in a bucket, and the folder of this process that stands for it.

    Args:
        url: of the run.
        leave_out: names directly under it that are not copied.

    Attributes:
        url: the same.
        home: the run's place in the bucket.
        folder: an absolute path; gone with this object, or when the process ends.
        token: of this process's claim to the run, None before it has one.

    Raises:
        PathError: the bucket cannot be read.
    """

    def __init__(self, url: str, leave_out: tuple[str, ...]):
        self.url, self.home = url.rstrip("/"), place(url)
        self.token: str | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="medvill_jax-")).absolute()
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        fetch(self.url, self.folder, leave_out=leave_out)
        self._sent = self._state()

    def read(self, name: str) -> str:
        """The text of a file as it stands in the bucket.

        Raises:
            PathError: it cannot be read.
        """
        try:
            return (self.home / name).read_text()
        except Exception as error:  # gcsfs, google.auth and aiohttp have types of their own
            raise unreachable(f"{self.url}/{name}", "read", error) from error

    def send(self) -> None:
        """Writes what changed in the folder to the bucket, and deletes there what was deleted here.

        Raises:
            PathError: it cannot be written; what is not there yet is tried again the next time.
        """
        now = self._state()
        try:
            for name, version in now.items():
                if self._sent.get(name) != version:
                    copy_file(epath.Path(self.folder) / name, self.home / name)
                    self._sent[name] = version
            for name in sorted(self._sent.keys() - now.keys()):
                (self.home / name).unlink(missing_ok=True)
                del self._sent[name]
        except Exception as error:  # as in `read`
            raise unreachable(self.url, "written", error) from error

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
