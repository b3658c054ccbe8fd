"""Uploaded films, in memory only, until they are too many or too old."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from medvill_jax.app.film import Film


@dataclass(frozen=True)
class Upload:
    """A film that waits for questions.

    Attributes:
        picture: PNG of the film as the page shows it, padded to a square as for the network.
        films: the film as each model takes it, by the model's number.
        answers: those given, by what was asked.
    """

    picture: bytes
    films: Mapping[int, Film]
    answers: OrderedDict[Any, dict[str, Any]] = field(default_factory=OrderedDict)


class Shelf:
    """Uploads by names that nobody can guess; for one thread, that of the event loop.

    Args:
        most: uploads; the one that was asked about longest ago goes first.
        seconds: after which an upload goes that nobody asks about.
        clock: seconds from anywhere.
    """

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._most, self._seconds, self._clock = most, seconds, clock
        self._kept: OrderedDict[str, tuple[float, Upload]] = OrderedDict()

    def __len__(self) -> int:
        self._drop()
        return len(self._kept)

    def put(self, upload: Upload) -> str:
        """Keeps an upload; returns its name."""
        name = secrets.token_urlsafe(16)
        self._kept[name] = self._clock(), upload
        self._drop()
        return name

    def get(self, name: str) -> Upload | None:
        """The upload of a name, which now counts as asked about; None if there is none any more."""
        self._drop()
        if (kept := self._kept.pop(name, None)) is None:
            return None
        self._kept[name] = self._clock(), kept[1]
        return kept[1]

    def forget(self, name: str) -> None:
        """Drops an upload, if it is there."""
        self._kept.pop(name, None)

    def _drop(self) -> None:
        oldest = self._clock() - self._seconds
        while self._kept and (len(self._kept) > self._most or next(iter(self._kept.values()))[0] < oldest):
            self._kept.popitem(last=False)
