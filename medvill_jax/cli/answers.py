"""A .jsonl file of answers, a film per line, to which the same command adds what is missing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from medvill_jax import private
from medvill_jax.errors import UserError

# How every line starts.
_START = b'{"film": '


class AnswersError(UserError):
    """A file in which something else stands than answers."""


def line(answer: Mapping[str, Any]) -> str:
    """An answer as a line of the file."""
    return json.dumps(answer, allow_nan=False) + "\n"


def resume(path: Path, films: Collection[str], made_with: Mapping[str, Any]) -> set[str]:
    """Prepares a file of answers to be continued: cuts an unfinished last line, and drops failures to be tried again.

    Args:
        path: need not exist.
        films: that are asked about.
        made_with: the entries that an answer must have to be one to this question, by this model. Other answers stay.

    Returns:
        Those of the films that the file answers already.

    Raises:
        AnswersError: the file holds something else, and is left as it is.
    """
    if not path.is_file():  # a pipe or a device has no past
        return set()
    asked = frozenset(films)
    made_with = json.loads(json.dumps(made_with))
    done, keep = set[str](), list[bool]()
    for row in _rows(path):
        same = row is not None and row["film"] in asked and all(row.get(name) == made_with[name] for name in made_with)
        failed = row is None or row.get("error") is not None
        if row and same and not failed:
            done.add(row["film"])
        keep.append(row is not None and not (same and failed))
    if not all(keep):
        with private.replaced(path.resolve()) as part, path.open("rb") as old, part.open("wb") as new:
            new.writelines(itertools.compress(old, keep))
    return done


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
