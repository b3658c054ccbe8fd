"""What the processes of a run decide together: an interface, which the caller of `Trainer` implements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Hosts(Protocol):
    """The processes of a run; all of them must call every method together."""

    def is_running(self) -> bool:
        """Whether this is a run of several processes."""
        ...

    def on_first(self, what: str, action: Callable[[], object]) -> str:
        """Runs `action` in process 0 and returns its result, as text, in every process; `what` names it in messages."""
        ...

    def any_of(self, here: bool) -> bool:
        """Whether `here` is true in any process."""
        ...

    def appears(self, there: Callable[[], bool]) -> bool:
        """Waits for a file of another host: whether `there` becomes true on this host within some seconds."""
        ...

    def barrier(self, what: str) -> None:
        """Waits until all processes have called it; `what` names the place in messages."""
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
