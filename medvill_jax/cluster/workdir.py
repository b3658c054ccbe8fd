"""The folder of a run: its lock, its configuration, its copy in a bucket, and whether all processes share it."""

from __future__ import annotations

import copy
import fcntl
import json
import logging
import os
import secrets
import socket
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from medvill_jax import private
from medvill_jax.cluster import distributed, environment
from medvill_jax.cluster.bucket import Mirror
from medvill_jax.errors import UserError
from medvill_jax.paths import PathError, in_bucket
from medvill_jax.version import format_problem

log = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
# The format of the workdir, beside the fields of the configuration; a workdir without it is of the first.
FORMAT_FIELD, FORMAT = "format_version", 1
# Fields that were added after the first runs, with the values that describe those runs.
ADDED_FIELDS = {
    "bad_steps.in_a_row": 10,
    "bad_steps.policy": "stop",
    "bad_steps.spike": 6.0,
    "bad_steps.window": 128,
    "cells": False,
    "contrast.weight": 1.0,
    "contrast.width": 0,
    "data.fold": 0,
    "data.folds": 0,
    "data.fraction": 1.0,
    "data.holdout": 0.1,
    "data.length_buckets": [],
    "data.mixture": "",
    "data.phantom.difficulty": "standard",
    "ema.decay": 0.0,
    "epochs": 0.0,
    "eval.every_epochs": 0.0,
    "eval.short_runs": False,
    "init.allow": [],
    "init.bert": "",
    "init.checkpoint": "",
    "init.fresh": [],
    "init.resnet": "",
    "itm.negatives": "drawn",
    "itm.pairs": "one",
    "log.sinks": "",
    "mesh.topology": "",
    "mlm.all_words": 0.0,
    "model.compat": "",
    "model.initializer_range": 0.02,
    "model.views": 1,
    "optimizer.batch_scaling": "",
    "optimizer.rate_policy": [[".*", 1.0]],
    "optimizer.warmup_epochs": 0.0,
    "remat": "",
    "sentences": 0.0,
}
CHECKPOINT_DIR = "checkpoints"
LOCK_FILE = ".lock"
# Not in the lock file: a POSIX lock ends when its process closes any descriptor of the file, even one for reading.
TOKEN_FILE = ".token"
DATA_DIR = "data"


class WorkdirError(UserError):
    """The workdir cannot be used: it is another run's, in use, or holds no run; the message says what to do."""


class Workdir:
    """The folder of a run on this host: `workdir / NAME` is a file in it.

    Args:
        name: a path, or the URL of a run, `gs://BUCKET/RUN`, which a temporary folder then mirrors.

    Attributes:
        path: of the folder, or of the temporary folder.
        home: the path of the run for all hosts: the folder itself, or its path in the bucket.

    Raises:
        WorkdirError: the bucket cannot be read, or the URL is not one of `gs://`.
    """

    def __init__(self, name: str | Path):
        self._mirror: Mirror | None = None
        if in_bucket(name):
            try:
                self._mirror = Mirror(str(name), leave_out=(CHECKPOINT_DIR,))
            except PathError as error:
                raise WorkdirError(f"--workdir: {error}") from error
        self.path = self._mirror.folder if self._mirror else Path(name)
        self.home = self._mirror.home if self._mirror else epath.Path(name)

    @classmethod
    def of(cls, place: Workdir | Path) -> Workdir:
        """`place` if it is a workdir, else the workdir of that folder."""
        return place if isinstance(place, Workdir) else cls(place)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def part(self, name: str) -> Workdir:
        """The folder `name` of this workdir, which is published with all of it."""
        part = copy.copy(self)
        part.path, part.home = self.path / name, self.home / name
        return part

    @property
    def is_mirror(self) -> bool:
        """Whether the run lies in a bucket."""
        return self._mirror is not None

    def shown(self, text: str) -> str:
        """`text` with the URL of the run in place of the temporary folder's path."""
        return text if self._mirror is None else text.replace(str(self.path), self._mirror.url)

    def publish(self, *, patient: bool = False) -> None:
        """Sends the changes of process 0 to the bucket; does nothing in other processes and for a plain folder.

        Args:
            patient: only warns if the bucket cannot be written, since another call follows.

        Raises:
            WorkdirError: the bucket cannot be written, or another run has claimed the workdir since.
        """
        mirror = self._mirror
        if mirror is None or not distributed.is_first():
            return
        try:
            if mirror.token is not None and mirror.read(TOKEN_FILE) != mirror.token:
                raise WorkdirError(f"another run has been started in {mirror.url}; this one ends")
            mirror.send()
        except PathError as error:
            if not patient:
                raise WorkdirError(str(error)) from error
            log.warning("%s; tried again with the next checkpoint", error)

    def claim(self, config: Mapping[str, Any], free: tuple[str, ...]) -> str:
        """Locks the workdir for this run, and writes the configuration, or checks that it is the run's.

        To be called by process 0 alone. The lock ends with this object, or with the process, however that ends. Buckets
        have no locks: there the newest claim wins, and the earlier run ends with its next checkpoint. The folder is
        made if absent, readable by its user alone unless files are shared.

        Args:
            config: a nested, JSON-like configuration.
            free: prefixes of dotted field names that may differ between the starts of one run.

        Returns:
            The token that was written to the workdir, for `check_shared`.

        Raises:
            WorkdirError: another process holds the lock, or the workdir holds a run with another configuration. A run
                that ended before it wrote anything, for example at a wrong value, does not count.
        """
        private.folder(self.path)
        self._lock()
        wanted = json.loads(json.dumps(config))
        if self._begun():
            advice = "Name another --workdir, or use the configuration it was started with."
            _refuse_another(epath.Path(self.path), wanted, free, advice)
        document = wanted | {FORMAT_FIELD: FORMAT}
        private.write(self / CONFIG_FILE, json.dumps(document, indent=2, sort_keys=True) + "\n")
        token = secrets.token_hex(8)
        private.write(self / TOKEN_FILE, token)
        self.publish()
        if self._mirror is not None:
            self._mirror.token = token
        return token

    def recorded(self, field: str) -> Any:
        """A top-level field of the configuration of the run in the workdir; None if none has begun.

        Raises:
            WorkdirError: the configuration is damaged, or of a later format.
        """
        return configuration(self.path).get(field) if self._begun() else None

    def check_same_run(self, config: Mapping[str, Any], free: tuple[str, ...]) -> None:
        """Checks, before an evaluation, that the run in the workdir was trained with this configuration.

        Args:
            config: a nested, JSON-like configuration.
            free: prefixes of dotted field names that may differ.

        Raises:
            WorkdirError: there is no run, or one with another configuration.
        """
        if not (self.home / CONFIG_FILE).is_file():
            raise WorkdirError(f"no run in {self.home}; train there first, or name another --workdir")
        advice = "Evaluate it with the --config flags that it was trained with, or name another --workdir."
        _refuse_another(self.home, json.loads(json.dumps(config)), free, advice)

    def check_shared(self, token: str, config: Mapping[str, Any], seconds: float = distributed.SHARED_SECONDS) -> None:
        """Checks that this process has the workdir and the configuration of process 0.

        Args:
            token: the one that `claim` returned in process 0.
            config: the configuration of this process.
            seconds: how long to wait for the token to appear in the workdir.

        Raises:
            WorkdirError: the token does not appear, or the configurations differ.
        """
        path = self.home / TOKEN_FILE
        if not distributed.appears(lambda: path.is_file() and path.read_text() == token, seconds):
            raise WorkdirError(
                f"{self.path} on {socket.gethostname()} is not the folder that process 0 uses; --workdir must lie on a "
                "file system that all hosts share"
            )
        written = configuration(self.home)
        if differing := _differing(written, json.loads(json.dumps(config)), ()):
            raise WorkdirError(
                f"this process on {socket.gethostname()} was not started with the configuration of process 0:\n"
                + "\n".join(differing)
            )

    def _lock(self) -> None:
        # A bare descriptor: unlike a file object, it is closed with this object and without a ResourceWarning.
        lock = os.open(self / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        weakref.finalize(self, os.close, lock)
        try:
            # Not flock: forked processes would keep its lock.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.pread(lock, 1000, 0).decode(errors="replace").split("\n")[0] or "another process"
            raise WorkdirError(
                f"{self.path} is in use by {holder}; wait for it or stop it, or name another --workdir"
            ) from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): start no second run in it", self.path, error.strerror)
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}, since {began}\n".encode(), 0)

    def _begun(self) -> bool:
        """Whether the workdir holds a configuration, and more than its claim and the data of a demo."""
        if not (self / CONFIG_FILE).exists():
            return False
        idle = {CONFIG_FILE, LOCK_FILE, TOKEN_FILE, DATA_DIR, environment.FILE}
        places = {epath.Path(self.path), self.home}
        return any(path.name not in idle for place in places if place.exists() for path in place.iterdir())


def _refuse_another(workdir: epath.Path, config: Any, free: tuple[str, ...], advice: str) -> None:
    """Raises `WorkdirError` with the fields in which the configuration in a workdir differs from `config`."""
    if differing := _differing(configuration(workdir), config, free):
        lines = "\n".join(differing)
        raise WorkdirError(f"{workdir} holds a run with another configuration:\n{lines}\n{advice}")


def configuration(workdir: Path | epath.Path) -> dict[str, Any]:
    """The configuration in a workdir. Raises `WorkdirError` for a damaged one, and one of a later format."""
    path = workdir / CONFIG_FILE
    try:
        written = json.loads(path.read_text())
        recorded = written.pop(FORMAT_FIELD, None)
    except (ValueError, AttributeError, TypeError):
        raise WorkdirError(f"{path} is damaged: restore it, or name another --workdir") from None
    if problem := format_problem(recorded, FORMAT):
        raise WorkdirError(f"{workdir} {problem}")
    return written


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], free: tuple[str, ...]) -> list[str]:
    """A line for each field that differs, except those whose names start with one of `free`.

    A field that the old configuration lacks counts as having the value that the old version behaved by.
    """
    old_fields, new_fields = flat(old), flat(new)
    defaults = {**ADDED_FIELDS, "decode.seed": old_fields.get("seed")}
    old_fields = {name: defaults[name] for name in new_fields if name in defaults} | old_fields
    return [
        f"  {name}: {old_fields.get(name, 'absent')!r} there, {new_fields.get(name, 'absent')!r} now"
        for name in sorted(old_fields.keys() | new_fields.keys())
        if old_fields.get(name) != new_fields.get(name) and not name.startswith(free)
    ]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a nested configuration, by their dotted names."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            fields |= flat(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = value
    return fields
