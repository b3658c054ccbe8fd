"""The life of an output folder: absent, in work beside its place, then complete. Never half.

A build writes into a hidden sibling of `out` and renames it at the end. A killed run leaves nothing but that sibling:
the next run goes on with it where that can be done, and clears it otherwise.
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
    """An error that another try may get past (a full disk, a lost worker): what was finished is kept for it."""


def _never(_: Path) -> bool:
    return False


@contextlib.contextmanager
def workspace(out: Path, resumable: Callable[[Path], bool] = _never) -> Iterator[Path]:
    """A hidden folder beside `out`, locked against another run, gone at the end.

    What a killed or interrupted run left in it stays if `resumable` says so, at the start and after an interruption; a
    `DataError` clears it, since the same command would end in the same error.
    """
    work = out.with_name(f".{out.name}.building")
    with contextlib.ExitStack() as stack:
        try:
            private.folder(work)
            lock = stack.enter_context(open(work / "lock", "w"))
        except OSError as error:
            raise DataError(f"cannot write beside {out}: {error.strerror or error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another run is preparing {out} right now: wait for it, or give another --out") from error
        except OSError:
            pass  # a file system without locks
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
    """The report of the finished data set at `out`, None if there is nothing; `DataError` if it is something else."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: --out is the folder to make")
    if not out.exists() or not any(out.iterdir()):
        return None
    try:
        report = json.loads((out / records.REPORT_FILE).read_text())
        there = dict(report["options"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{out} is not empty and not a data set made by this command: give another --out") from None
    differing = sorted(key for key in there.keys() | options.keys() if there.get(key) != options.get(key))
    if differing:
        lines = [f"  {key}: {_short(there.get(key))} there, {_short(options.get(key))} now" for key in differing]
        raise DataError(
            f"{out} holds a data set prepared from another source or with other options:\n" + "\n".join(lines) + "\n"
            "Give another --out, or delete that folder first."
        )
    return report


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def failed_list(out: Path) -> Path:
    """Where the rejections of a build that failed are kept."""
    return out.with_name(out.name + ".rejected.jsonl")
