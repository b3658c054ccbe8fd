"""Feeds sinks without the training waiting for them, or ending with them."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medvill_jax import private
from medvill_jax.training import sinks

log = logging.getLogger(__name__)

FOLDER = "sinks"
# Seconds that the end of a run waits for a sink.
PATIENCE = 60.0

Values = Mapping[str, float | None]


class Feed:
    """Sends metrics to one sink, in order, on a thread of its own.

    What the sink has is noted in the workdir, `sinks/NAME.json`, so that a resumed run sends it nothing twice: only if
    a run is killed between sending a line and noting it, this line comes again. A sink that was away gets what it
    missed with the next start. Whatever fails is one warning, after which the run goes on without the sink.

    Args:
        name: of the sink.
        workdir: of the run.
        config: as in `sinks.Start`.
        past: the lines of metrics so far, each with its `step`.
    """

    def __init__(self, name: str, workdir: Path, config: Mapping[str, Any], past: Iterable[Mapping[str, Any]]):
        self._name, self._workdir, self._config = name, workdir, config
        self._waiting: queue.SimpleQueue[tuple[int, Values] | None] = queue.SimpleQueue()
        for line in past:
            self.write(line["step"], {key: value for key, value in line.items() if key != "step"})
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)
        self._thread.start()

    def write(self, step: int, metrics: Values) -> None:
        """Sends the defined values of one step, as soon as the sink takes them; returns at once."""
        self._waiting.put((step, metrics))

    def close(self, patience: float = PATIENCE) -> None:
        """Returns when the sink has everything, has failed, or has taken `patience` seconds for it."""
        self._waiting.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            log.warning("%s is not done after %g s; the next start sends what it misses", self._name, patience)

    def _run(self) -> None:
        try:
            self._send()
        except Exception as error:  # of somebody else's package: whatever it is, the run is worth more
            told = f"{type(error).__name__}: {error}".split("\n")[0]
            log.warning("%s gets no more metrics of this start (%s); the run goes on without it", self._name, told)

    def _send(self) -> None:
        note = self._workdir / FOLDER / f"{self._name}.json"
        folder = self._workdir / FOLDER / self._name
        private.folder(folder.parent)
        private.folder(folder)
        sent = _Sent.read(note)
        sink = sinks.start(self._name, sinks.Start(folder, self._workdir.name, self._config, sent.run))
        sent.run = sink.run
        sent.write(note)  # before any value, or another start would begin another run
        for step, metrics in iter(self._waiting.get, None):
            fresh = sent.without(step, {name: value for name, value in metrics.items() if value is not None})
            if fresh:
                sink.write(step, fresh)
                sent.add(step, fresh)
                sent.write(note)
        sink.close()


class _Sent:
    """What a sink has: everything before a step, and some metrics of that step."""

    def __init__(self, run: str | None = None, step: int = -1, names: Iterable[str] = ()):
        self.run, self.step, self.names = run, step, set(names)

    @classmethod
    def read(cls, note: Path) -> _Sent:
        """From a note; one that cannot be read is as none."""
        try:
            return cls(**json.loads(note.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return cls()

    def write(self, note: Path) -> None:
        private.write(note, json.dumps({"run": self.run, "step": self.step, "names": sorted(self.names)}) + "\n")

    def without(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Those metrics of a step that the sink does not have."""
        if step < self.step:
            return {}
        return {name: value for name, value in metrics.items() if step > self.step or name not in self.names}

    def add(self, step: int, names: Iterable[str]) -> None:
        self.step, self.names = step, {*(self.names if step == self.step else ()), *names}
