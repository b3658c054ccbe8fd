"""Stopping on a signal, between two computations, where a run or an evaluation can go on later."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from medvill_jax.cluster import distributed

log = logging.getLogger(__name__)


class Stopped(Exception):
    """A signal came, and what was going on ends here; the message is the signal's name."""


class StopSignal:
    """Turns SIGINT and SIGTERM into a question; a second SIGINT interrupts at once.

    A block: signals mean what they always do outside of it, where nothing stops. In a run of several processes JAX has
    taken SIGTERM, and tells the others; SIGINT is passed on as SIGTERM.
    """

    def __init__(self) -> None:
        self._inside = False
        self._received: str | None = None
        self._agreed: str | None = None
        self._shared = distributed.is_running()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        self._inside, self._received, self._agreed = True, None, None
        for number in (signal.SIGINT,) if self._shared else (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._inside = False
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stops(self) -> str | None:
        """The name of the signal that stops the run here, None to go on.

        All processes ask at the same places, such as after every step. Once there is a name, it is given for good.
        """
        if self._inside and self._agreed is None:
            if distributed.stop_agreed():
                self._agreed = self._received or "SIGTERM"
            elif not self._shared:
                self._agreed = self._received
        return self._agreed if self._inside else None

    def check(self) -> None:
        """Raises `Stopped` where `stops` gives a name; all processes call this, or none, between two computations."""
        if (signal_name := self.stops()) is not None:
            raise Stopped(signal_name)

    def interruptible(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """A function that gives what `compute` gives, or None where a `check` in it was answered by `Stopped`."""

        def call(*arguments: Any) -> Any:
            try:
                return compute(*arguments)
            except Stopped:
                return None

        return call

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = signal.Signals(number).name
        log.info("%s: stopping where the run can go on (Ctrl-C again to stop at once)", self._received)
        if self._shared:
            os.kill(os.getpid(), signal.SIGTERM)
