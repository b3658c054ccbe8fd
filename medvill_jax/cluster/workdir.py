"""The folder of a run: where it lies, whose it is, who is at work in it, and whether all processes see the same one."""

from __future__ import annotations

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
from medvill_jax.cluster import distributed
from medvill_jax.cluster.bucket import Mirror
from medvill_jax.errors import UserError
from medvill_jax.paths import PathError, in_bucket

log = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
# Fields that came later than the first runs, and what those did.
BEFORE = {
    "cells": False,
    "contrast.weight": 1.0,
    "contrast.width": 0,
    "data.fold": 0,
    "data.folds": 0,
    "data.fraction": 1.0,
    "data.holdout": 0.1,
    "data.phantom.difficulty": "standard",
    "eval.every_epochs": 0.0,
    "eval.short_runs": False,
    "init.allow": [],
    "init.bert": "",
    "init.checkpoint": "",
    "init.fresh": [],
    "init.resnet": "",
    "itm.negatives": "drawn",
    "itm.pairs": "one",
    "mesh.topology": "",
    "mlm.all_words": 0.0,
    "model.compat": "",
    "model.initializer_range": 0.02,
    "optimizer.rate_policy": [[".*", 1.0]],
    "remat": "",
}
CHECKPOINT_DIR = "checkpoints"
LOCK_FILE = ".lock"
# Beside the lock, which ends when its own process closes the file that it is on, even after only reading it.
TOKEN_FILE = ".token"
DATA_DIR = "data"


class WorkdirError(UserError):
    """The workdir is another run's, in use, or none; the message says what to do."""


class Workdir:
    """The folder of a run on this host: `workdir / NAME` is a file in it.

    Args:
        name: a path, or for `gs://BUCKET/RUN` the URL of the run, which a temporary folder then mirrors.

    Attributes:
        path: of the folder.
        home: where the run lies for all hosts: the folder itself, or its place in the bucket.

    Raises:
        WorkdirError: the bucket cannot be read, or the URL is of another kind.
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
        """A workdir as it is, or that of a folder."""
        return place if isinstance(place, Workdir) else cls(place)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def is_mirror(self) -> bool:
        """Whether the folder stands for a run in a bucket."""
        return self._mirror is not None

    def shown(self, text: str) -> str:
        """A text for a person in which a mirrored folder has its bucket's name."""
        return text if self._mirror is None else text.replace(str(self.path), self._mirror.url)

    def publish(self, *, patient: bool = False) -> None:
        """Sends what process 0 has written in a mirrored folder to its bucket; nothing to do for others.

        Args:
            patient: there is another time, so a bucket that cannot be written is only warned of.

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
        """Makes the workdir this process's own: locks it, and writes the configuration or checks that it is the same.

        The lock ends with this object, or with the process, however it ends. Buckets know no locks: there the newest
        claim holds, and a run that was at work ends with its next checkpoint. To be called by process 0 alone. The
        folder is made if absent, and closed to others unless files are shared.

        Args:
            config: a nested, JSON-like configuration.
            free: prefixes of dotted field names that may differ between the starts of one run.

        Returns:
            A token that now stands in the workdir, for `check_shared`.

        Raises:
            WorkdirError: another process is at work there, or the workdir holds a run with another configuration. One
                that ended before it began, at a wrong value say, is no run.
        """
        private.folder(self.path)
        self._lock()
        wanted = json.loads(json.dumps(config))
        if (self / CONFIG_FILE).exists() and self._begun():
            advice = "Name another --workdir, or use the configuration it was started with."
            _refuse_another(epath.Path(self.path), wanted, free, advice)
        private.write(self / CONFIG_FILE, json.dumps(wanted, indent=2, sort_keys=True) + "\n")
        token = secrets.token_hex(8)
        private.write(self / TOKEN_FILE, token)
        self.publish()
        if self._mirror is not None:
            self._mirror.token = token
        return token

    def check_same_run(self, config: Mapping[str, Any], free: tuple[str, ...]) -> None:
        """Makes sure that what the workdir holds was trained with a configuration, before it is evaluated with it.

        Args:
            config: a nested, JSON-like configuration.
            free: prefixes of dotted field names that may differ.

        Raises:
            WorkdirError: no run there, or one with another configuration.
        """
        if not (self.home / CONFIG_FILE).is_file():
            raise WorkdirError(f"no run in {self.home}; train there first, or name another --workdir")
        advice = "Evaluate it with the --config flags that it was trained with, or name another --workdir."
        _refuse_another(self.home, json.loads(json.dumps(config)), free, advice)

    def check_shared(self, token: str, config: Mapping[str, Any], seconds: float = distributed.SHARED_SECONDS) -> None:
        """Makes sure that process 0's workdir and configuration are this process's too.

        Args:
            token: what `claim` gave process 0.
            config: as this process was started with.
            seconds: to wait for the token to show.

        Raises:
            WorkdirError: it does not show, or the configurations differ.
        """
        path = self.home / TOKEN_FILE
        if not distributed.appears(lambda: path.is_file() and path.read_text() == token, seconds):
            raise WorkdirError(
                f"{self.path} on {socket.gethostname()} is not the folder that process 0 uses; --workdir must lie on a "
                "file system that all hosts share"
            )
        written = json.loads((self.home / CONFIG_FILE).read_text())
        if differing := _differing(written, json.loads(json.dumps(config)), ()):
            raise WorkdirError(
                f"this process on {socket.gethostname()} was not started with the configuration of process 0:\n"
                + "\n".join(differing)
            )

    def _lock(self) -> None:
        # A bare descriptor, so that it is closed with this object and without a word.
        lock = os.open(self / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        weakref.finalize(self, os.close, lock)
        try:
            # Not flock: its locks live on in processes that were forked.
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
        """Whether the workdir holds more than its claim and the data that a demo made for itself."""
        idle = {CONFIG_FILE, LOCK_FILE, TOKEN_FILE, DATA_DIR}
        places = {epath.Path(self.path), self.home}
        return any(path.name not in idle for place in places if place.exists() for path in place.iterdir())


def _refuse_another(workdir: epath.Path, config: Any, free: tuple[str, ...], advice: str) -> None:
    """`WorkdirError` with the fields that differ where the configuration that a workdir holds is not this one."""
    path = workdir / CONFIG_FILE
    try:
        there = json.loads(path.read_text())
    except ValueError:
        raise WorkdirError(f"{path} is damaged: restore it, or name another --workdir") from None
    if differing := _differing(there, config, free):
        lines = "\n".join(differing)
        raise WorkdirError(f"{workdir} holds a run with another configuration:\n{lines}\n{advice}")


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], free: tuple[str, ...]) -> list[str]:
    """A line for each field that differs, but for those whose names begin with one of `free`.

    A field that the old one lacks has the value with which this version does what that version did.
    """
    there, now = _flatten(old), _flatten(new)
    before = {**BEFORE, "decode.seed": there.get("seed")}
    there = {name: before[name] for name in now if name in before} | there
    return [
        f"  {name}: {there.get(name, 'absent')!r} there, {now.get(name, 'absent')!r} now"
        for name in sorted(there.keys() | now.keys())
        if there.get(name) != now.get(name) and not name.startswith(free)
    ]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
