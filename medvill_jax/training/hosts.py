"""What the processes of a run decide together, handed in by whoever knows how they talk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Hosts(Protocol):
    """The processes of a run; all of them call every method together."""

    def is_running(self) -> bool:
        """Whether there are several."""
        ...

    def on_first(self, what: str, action: Callable[[], object]) -> str:
        """What an action, done in process 0 alone, gave, as text, in every process."""
        ...

    def any_of(self, here: bool) -> bool:
        """Whether something is so in any process."""
        ...

    def appears(self, there: Callable[[], bool]) -> bool:
        """Whether what another host has written shows on this one, within some seconds."""
        ...

    def barrier(self, what: str) -> None:
        """Waits until all processes are here."""
        ...


class Alone:
    """A run of one process."""

    def is_running(self) -> bool:
        return False

    def on_first(self, what: str, action: Callable[[], object]) -> str:
        del what
        return str(action())

    def any_of(self, here: bool) -> bool:
        return here

    def appears(self, there: Callable[[], bool]) -> bool:
        return there()

    def barrier(self, what: str) -> None:
        del what


ALONE: Hosts = Alone()
