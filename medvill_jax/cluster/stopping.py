"""Stopping on a signal, between two computations, where a run or an evaluation can go on later."""

from __future__ import annotations

import logging
import os
import signal
from types import FrameType
from typing import Any

from medvill_jax.cluster import distributed

log = logging.getLogger(__name__)


class Stopped(Exception):
    """A signal came, and what was going on ends here; the message is the signal's name."""


class StopSignal:
    """Turns SIGINT and SIGTERM into a question; a second SIGINT interrupts at once.

    A block: signals mean what they always do outside of it. In a run of several processes JAX has taken SIGTERM, and
    tells the others; SIGINT is passed on as SIGTERM.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._shared = distributed.is_running()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        global _current
        for number in (signal.SIGINT,) if self._shared else (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        _current = self
        return self

    def __exit__(self, *_: object) -> None:
        global _current
        _current = None
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stops(self) -> bool:
        """Whether the run stops here; all processes ask at the same places, such as after every step."""
        if distributed.stop_agreed():
            self.received = self.received or "SIGTERM"
            return True
        return self.received is not None and not self._shared

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        log.info("%s: stopping where the run can go on (Ctrl-C again to stop at once)", self.received)
        if self._shared:
            os.kill(os.getpid(), signal.SIGTERM)


_current: StopSignal | None = None


def check() -> None:
    """Raises `Stopped` if a signal has come; nothing outside of a `StopSignal` block.

    To be called by all processes, or by none, between two computations.
    """
    if _current is not None and _current.stops():
        raise Stopped(_current.received)
