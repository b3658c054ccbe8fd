"""Stopping on a signal between two computations, where a run or an evaluation can be resumed."""

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
    """A signal ended an evaluation; the message is the signal's name."""


class StopSignal:
    """A block in which SIGINT and SIGTERM ask the run to stop at its next check; a second SIGINT interrupts at once.

    Outside the block signals keep their usual handlers, and `stops` returns None. In a run of several processes JAX
    handles SIGTERM and informs the others; SIGINT is passed on as SIGTERM.
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
        """The name of the signal that stops the run here, or None to go on.

        All processes must call this at the same places, such as after every step. Once it has returned a name, it
        always returns that name.
        """
        if self._inside and self._agreed is None:
            if distributed.stop_agreed():
                self._agreed = self._received or "SIGTERM"
            elif not self._shared:
                self._agreed = self._received
        return self._agreed if self._inside else None

    @property
    def stopped(self) -> bool:
        """Whether `stops` has returned a name; also after the block."""
        return self._agreed is not None

    def check(self) -> None:
        """Raises `Stopped` if `stops` returns a name; all processes must call this at the same places."""
        if (signal_name := self.stops()) is not None:
            raise Stopped(signal_name)

    def interruptible(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """A function that returns what `compute` returns, or None if a `check` in it raised `Stopped`."""

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
        log.info("%s: stopping where the run can be resumed (Ctrl-C again to stop at once)", self._received)
        if self._shared:
            os.kill(os.getpid(), signal.SIGTERM)
