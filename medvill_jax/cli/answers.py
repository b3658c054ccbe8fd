"""A .jsonl file of answers, a film per line, to which the same command adds what is missing."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from medvill_jax import private
from medvill_jax.errors import UserError

# How every line starts.
_START = b'{"film": '


class AnswersError(UserError):
    """A file in which something else stands than answers, or which another command is writing."""


def line(answer: Mapping[str, Any]) -> str:
    """An answer as a line of the file."""
    return json.dumps(answer, allow_nan=False) + "\n"


@contextlib.contextmanager
def continued(path: Path, films: Collection[str], made_with: Mapping[str, Any]) -> Iterator[tuple[IO[bytes], set[str]]]:
    """A block that alone adds to a file of answers, less its unfinished last line and failures to be tried again.

    Args:
        path: need not exist.
        films: that are asked about.
        made_with: the entries that an answer must have to be one to this question, by this model. Other answers stay.

    Yields:
        The file, to append to, and those of the films that it answers already.

    Raises:
        AnswersError: the file holds something else, or another command is writing it; it is left as it is.
    """
    with contextlib.ExitStack() as opened:
        file: IO[bytes] = opened.enter_context(open(path, "ab", opener=private.opener))
        if not path.is_file():  # a pipe or a device has no past
            yield file, set()
            return
        _lock(file, path)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):  # replaced before the lock was there
            raise _held(path)
        done, keep = _past(path, frozenset(films), json.loads(json.dumps(made_with)))
        if not all(keep):
            with private.replaced(path.resolve()) as part:
                # Locked before it has the name, and the old one until the end: whoever opened that is refused too.
                file = opened.enter_context(part.open("ab"))
                _lock(file, path)
                with path.open("rb") as old:
                    file.writelines(itertools.compress(old, keep))
                file.flush()
        yield file, done


def _lock(file: IO[bytes], path: Path) -> None:
    if not private.lock(file):
        raise _held(path)


def _held(path: Path) -> AnswersError:
    return AnswersError(f"{path}: another command is writing it; wait for it, or name another --out")


def _past(path: Path, asked: Collection[str], made_with: Mapping[str, Any]) -> tuple[set[str], list[bool]]:
    """The films of `asked` that a file answers, and for each of its lines whether it stays."""
    done, keep = set[str](), list[bool]()
    for row in _rows(path):
        same = row is not None and row["film"] in asked and all(row.get(name) == made_with[name] for name in made_with)
        failed = row is None or row.get("error") is not None
        if row and same and not failed:
            done.add(row["film"])
        keep.append(row is not None and not (same and failed))
    return done, keep


def _rows(path: Path) -> Iterator[dict[str, Any] | None]:
    """The answers of a file; None for an unfinished last line."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") and line.startswith(_START[: len(line)]):
                yield None
                return
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict) or not isinstance(row.get("film"), str):
                raise AnswersError(f"{path}, line {number}: not an answer of this command; name another --out")
            yield row
