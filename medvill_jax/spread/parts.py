"""What workers are asked and have answered: a file of films and a file of answers for every part of the work.

They lie in a folder, or in a bucket, that all workers see. A part that was done twice, as runners may have it, is one
file; what workers of an earlier run still write there has other names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvill_jax import paths, private
from medvill_jax.app.prepared import Prepared
from medvill_jax.errors import UserError

# A path, or a film of a prepared data set: what any worker finds by itself.
Found = str | Prepared
# Films of a part and the answers to them, as JSON.
_FILMS, _ANSWERS = "films.json", "answers.json"


class UnreadError(UserError):
    """Answers of workers cannot be read now; the message says where they are."""


@dataclass(frozen=True)
class Parts:
    """The files of one run.

    Attributes:
        folder: an absolute path or a `gs://` URL.
        run: in the name of every file.
    """

    folder: str
    run: str

    def ask(self, number: int, films: Sequence[Found]) -> None:
        """Writes the films of a part."""
        self._write(number, _FILMS, [film if isinstance(film, str) else dataclasses.asdict(film) for film in films])

    def films(self, number: int) -> tuple[Found, ...]:
        """The films of a part."""
        return tuple(film if isinstance(film, str) else Prepared(**film) for film in self._read(number, _FILMS))

    def answer(self, number: int, answers: Sequence[dict[str, Any]]) -> None:
        """Writes the answers of a part: whole, or not at all."""
        self._write(number, _ANSWERS, answers)

    def answers(self, number: int) -> list[dict[str, Any]]:
        """The answers of a part that is done. Raises `UnreadError`."""
        with self._reading():
            return self._read(number, _ANSWERS)

    def done(self) -> set[int]:
        """The numbers of the parts that have answers. Raises `UnreadError`."""
        with self._reading():
            ours = [path.name.split("-") for path in paths.place(self.folder).iterdir() if path.name.endswith(_ANSWERS)]
        return {int(name[1]) for name in ours if name[0] == self.run}

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # gcsfs, google.auth and aiohttp have exceptions without a common base
            why = paths.unreachable(self.folder, "read", error)
            raise UnreadError(f"{why}; answers not yet collected stay there until the command is repeated") from error

    def _name(self, number: int, kind: str) -> str:
        return f"{self.run}-{number:06}-{kind}"

    def _write(self, number: int, kind: str, content: Any) -> None:
        text = json.dumps(content, allow_nan=False)
        if paths.in_bucket(self.folder):
            (paths.place(self.folder) / self._name(number, kind)).write_text(text)
            return
        with private.replaced(Path(self.folder, self._name(number, kind)), by_umask=True) as file:
            file.write_text(text)

    def _read(self, number: int, kind: str) -> Any:
        return json.loads((paths.place(self.folder) / self._name(number, kind)).read_text())


@contextlib.contextmanager
def opened(folder: Path | str) -> Iterator[Parts]:
    """The files of a run in a folder, or at a `gs://` URL, that is emptied before and gone after the block.

    It stays after an `UnreadError`, whose answers are nowhere else.

    Raises:
        PathError: the bucket cannot be written.
    """
    remove(folder)
    if not paths.in_bucket(folder):
        folder = Path(folder).absolute()
        private.folder(folder)
    keep = False
    try:
        yield Parts(str(folder), uuid.uuid4().hex[:8])
    except UnreadError:
        keep = True
        raise
    finally:
        if not keep:
            remove(folder)


def remove(folder: Path | str) -> None:
    """Deletes the folder of an earlier run, if there is one."""
    if not paths.in_bucket(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    place = paths.place(folder)
    try:
        if place.exists():
            place.rmtree()
    except Exception as error:  # gcsfs, google.auth and aiohttp have exceptions without a common base
        raise paths.unreachable(folder, "written", error) from error
