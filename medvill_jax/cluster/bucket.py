"""A workdir in a bucket, `gs://BUCKET/RUN`: a local folder mirrors all of it but the checkpoints.

Buckets have no locks and no renames, and objects cannot grow. So each process works in a temporary folder, which starts
as a copy of the run without its checkpoints, and process 0 sends changes to the bucket before every checkpoint and at
the end. The metrics of a step are thus in the bucket before its checkpoint is. Checkpoints are written to the bucket
directly, by all hosts.
"""

from __future__ import annotations

import fnmatch
import shutil
import tempfile
import weakref
from pathlib import Path

from etils import epath

from medvill_jax.paths import copy_file, fetch, place, unreachable

# Unfinished files, and those that only concern this host.
LOCAL_FILES = ("*.tmp", "*.part", "*.partial", "*.old", ".lock")


class Mirror:
    """A run in a bucket, and the temporary folder in which this process works on it.

    Args:
        url: of the run.
        leave_out: names directly under it that are not copied.

    Attributes:
        url: of the run.
        home: the run's path in the bucket.
        folder: an absolute path; deleted with this object, or when the process ends.
        token: of this process's claim to the run; None before the claim.

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
        """The text of a file in the bucket.

        Raises:
            PathError: it cannot be read.
        """
        try:
            return (self.home / name).read_text()
        except Exception as error:  # gcsfs, google.auth and aiohttp have types of their own
            raise unreachable(f"{self.url}/{name}", "read", error) from error

    def send(self) -> None:
        """Writes files that changed in the folder to the bucket, and deletes there what was deleted in the folder.

        Raises:
            PathError: the bucket cannot be written; the next call tries again.
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
        state = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            is_local = any(fnmatch.fnmatch(part, pattern) for part in name.parts for pattern in LOCAL_FILES)
            if path.is_file() and not is_local:
                status = path.stat()
                state[name.as_posix()] = (status.st_size, status.st_mtime_ns)
        return state
