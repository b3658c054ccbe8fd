"""How fast a loop steps, and whether its input keeps up: an observer that stands beside the loop.

Steps are dispatched ahead of the device, so neither the time that a call of the step takes nor the time spent waiting
for a batch tells alone who waits for whom. After a reading the device is idle; the next step is then timed to its end,
from a batch that is already there. That is what a step needs, and it is compared with what came.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

log = logging.getLogger(__name__)

# Input falls short when the loop waits for more than this share of its time, and gets less than this share of its need.
WAITING, ENOUGH = 0.1, 0.9
TIMED_STEPS = 9


class Timing:
    """Throughput and input rate between two readings, without pauses and without the first step, which compiles.

    Args:
        batch_size: of the global batch.
        hosts: that load equal shares of it.
        processes: loading processes of each host; 0 if batches are loaded in the training process.
        barrier: returns when all processes have called it; asked before a step is timed.
        seconds: of stepping before the input is judged.
        now: the time in seconds, from anywhere on.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        hosts: int = 1,
        processes: int = 0,
        barrier: Callable[[], None] = lambda: None,
        seconds: float = 10.0,
        now: Callable[[], float] = time.perf_counter,
    ):
        self._batch_size, self._rows, self._processes = batch_size, batch_size // hosts, processes
        self._barrier, self._seconds, self._now = barrier, seconds, now
        self._start: float | None = None
        self._steps, self._waited = 0, 0.0
        self._total_steps, self._total_seconds, self._total_waited = 0, 0.0, 0.0
        self._timing, self._step_start, self._warned = False, 0.0, False
        self._timed: collections.deque[float] = collections.deque(maxlen=TIMED_STEPS)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that takes the next batch; a step follows it."""
        began = self._now()
        yield
        self._waited += self._now() - began
        if self._timing:
            # Else the step's time would contain waiting for the batches of other hosts.
            self._barrier()
            self._step_start = self._now()

    def stepped(self, results: Any) -> None:
        """A step was dispatched, whose results are these arrays."""
        if self._timing:
            jax.block_until_ready(results)
            self._timed.append(self._now() - self._step_start)
            self._timing = False
        if self._start is None:
            self._start, self._waited = self._now(), 0.0
        else:
            self._steps += 1

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A block that does not count, such as an evaluation."""
        began = self._now()
        yield
        if self._start is not None:
            self._start += self._now() - began

    def read(self) -> dict[str, float]:
        """Metrics since the last reading, and a warning once the input has fallen short for some time.

        To be called when the device has finished its steps; the next one is then timed.

        Returns:
            `step_seconds` of a step in the mean, waiting included, and `examples_per_second`, of all hosts together;
            `input_per_host` and `step_per_host`, examples/s that came and that the step could have taken, and
            `input_wait`, the share of time spent waiting. What is not known yet is left out.
        """
        self._timing = True
        if self._start is None or not self._steps:
            return {}
        now, steps, waited = self._now(), self._steps, self._waited
        elapsed = now - self._start
        self._start, self._steps, self._waited = now, 0, 0.0
        seconds = elapsed / steps
        metrics = {"step_seconds": seconds, "examples_per_second": self._batch_size / seconds}
        if not self._timed:
            return metrics
        need = self._rows / statistics.median(self._timed)
        self._judge(steps, elapsed, waited, need)
        return metrics | {
            "input_per_host": self._rows / seconds,
            "step_per_host": need,
            "input_wait": min(1.0, waited / elapsed),
        }

    def _judge(self, steps: int, elapsed: float, waited: float, need: float) -> None:
        """Warns, once, where enough seconds have shown that the input falls short."""
        self._total_steps += steps
        self._total_seconds += elapsed
        self._total_waited += waited
        if self._total_seconds < self._seconds:
            return
        wait, rate = self._total_waited / self._total_seconds, self._rows * self._total_steps / self._total_seconds
        self._total_steps, self._total_seconds, self._total_waited = 0, 0.0, 0.0
        if self._warned or wait < WAITING or rate > ENOUGH * need:
            return
        self._warned = True
        log.warning(
            "input falls short on host %d: %.1f examples/s come, the step could take %.1f, and waits %.0f %% of the "
            "time; %s",
            jax.process_index(),
            rate,
            need,
            100 * wait,
            advice(rate, need, self._processes),
        )


def advice(rate: float, need: float, processes: int, cores: int | None = None) -> str:
    """How many loading processes would do.

    Args:
        rate, need: examples/s that come, and that are asked for.
        processes: that give this rate; 0 if the training process loads.
        cores: of this host; by default, those that this process may use.
    """
    cores = cores or len(os.sched_getaffinity(0))
    enough = math.ceil(need * max(processes, 1) / rate)
    text = f"{enough} loading processes would do (--config.data.workers.processes={enough}; now {processes})"
    if enough > cores:
        text += f", more than the {cores} cores here: prepare the data at the size that the model reads, or add hosts"
    return text
