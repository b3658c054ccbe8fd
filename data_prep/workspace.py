"""Makes an output folder atomically: it does not exist, or it is complete.

A build writes into a hidden folder next to `out` and renames it at the end. A killed run leaves only the hidden folder;
the next run resumes with it if possible, and clears it otherwise.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medvill_jax import private
from medvill_jax.data import records
from medvill_jax.data.records import DataError


class Stopped(DataError):
    """An error that another run may not meet (a full disk, a lost worker): finished work is kept for that run."""


def _never(_: Path) -> bool:
    return False


@contextlib.contextmanager
def workspace(out: Path, resumable: Callable[[Path], bool] = _never) -> Iterator[Path]:
    """A hidden folder next to `out`, locked against other runs and removed at the end.

    If `resumable(folder)`, the work of a killed run is kept at the start, and that of this run if it is interrupted or
    raises `Stopped`. Any other `DataError` removes it, since the same command would end in the same error.

    Raises `DataError` if the folder cannot be made or another run holds it.
    """
    work = out.with_name(f".{out.name}.building")
    with contextlib.ExitStack() as stack:
        try:
            private.folder(work)
            lock = stack.enter_context(open(work / "lock", "w"))
        except OSError as error:
            raise DataError(f"cannot write next to {out}: {error.strerror or error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another run is preparing {out} right now: wait for it, or give another --out") from error
        except OSError:
            pass  # the file system has no locks
        if not resumable(work):
            _clear(work)
        keep = False
        try:
            yield work
        except BaseException as error:
            keep = (isinstance(error, Stopped) or not isinstance(error, DataError)) and resumable(work)
            raise
        finally:
            if not keep:
                shutil.rmtree(work, ignore_errors=True)


def _clear(work: Path) -> None:
    for leftover in work.iterdir():
        if leftover.is_dir():
            shutil.rmtree(leftover)
        elif leftover.name != "lock":
            leftover.unlink()


def finished(out: Path, options: dict[str, Any]) -> dict[str, Any] | None:
    """The report of the finished data set at `out`, None if there is none; `DataError` if `out` is something else."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: --out is the folder to make")
    if not out.exists() or not any(out.iterdir()):
        return None
    try:
        report = json.loads((out / records.REPORT_FILE).read_text())
        existing = dict(report["options"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{out} is not empty and not a data set made by this command: give another --out") from None
    differing = sorted(key for key in existing.keys() | options.keys() if existing.get(key) != options.get(key))
    if differing:
        lines = [
            f"  {key}: {_short(existing.get(key))} in the folder, {_short(options.get(key))} now" for key in differing
        ]
        raise DataError(
            f"{out} holds a data set prepared from another source or with other options:\n" + "\n".join(lines) + "\n"
            "Give another --out, or delete that folder first."
        )
    return report


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def failed_list(out: Path) -> Path:
    """Path of the list of rejections of a failed build."""
    return out.with_name(out.name + ".rejected.jsonl")
