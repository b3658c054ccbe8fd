"""The speed of a training loop, and whether its input keeps up.

Steps are dispatched asynchronously, so neither the duration of a call of the step nor the time spent waiting for a
batch shows whether the input or the device is the bottleneck. After a reading the device is idle; the next step is then
timed from a batch that has arrived until its results are ready. This is the rate that the device can take, and it is
compared with the rate of the input.
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

# The input is too slow if the loop waits for more than this share of its time and gets less than this share of what it
# can take.
WAITING, ENOUGH = 0.1, 0.9
TIMED_STEPS = 9


class Timing:
    """Throughput and input rate between two readings, without pauses and without the first step, which compiles.

    Args:
        batch_size: of the global batch.
        hosts: how many hosts load equal shares of it.
        processes: loader workers of each host; 0 if batches are loaded in the training process.
        barrier: returns when all processes have called it; called before a step is timed.
        seconds: of training before the input is judged.
        now: a clock, in seconds.
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
        """A block that takes the next batch; a step must follow it."""
        began = self._now()
        yield
        self._waited += self._now() - began
        if self._timing:
            # Without it, the step's time would include the wait for other hosts' batches.
            self._barrier()
            self._step_start = self._now()

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """A block that dispatches a step after its compilation, whose time does not count; `stepped` must follow."""
        self._timing = False
        with self.paused():
            yield

    def stepped(self, results: Any) -> None:
        """To be called when a step is dispatched, with the arrays that it returns."""
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
        """A block whose time does not count, such as an evaluation."""
        began = self._now()
        yield
        if self._start is not None:
            self._start += self._now() - began

    def read(self) -> dict[str, float]:
        """Metrics since the last reading; warns once if the input has been too slow for some time.

        To be called when the device has finished its steps; the next step is then timed.

        Returns:
            `step_seconds`, the mean duration of a step with its waiting; `examples_per_second` of all hosts together;
            `input_per_host` and `step_per_host`, examples/s that arrived on a host and that its step could have taken;
            `input_wait`, the share of time spent waiting. Metrics that are not known yet are left out.
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
        step_rate = self._rows / statistics.median(self._timed)
        self._judge(steps, elapsed, waited, step_rate)
        return metrics | {
            "input_per_host": self._rows / seconds,
            "step_per_host": step_rate,
            "input_wait": min(1.0, waited / elapsed),
        }

    def _judge(self, steps: int, elapsed: float, waited: float, step_rate: float) -> None:
        """Warns, once, if the input was too slow over `seconds` of training."""
        self._total_steps += steps
        self._total_seconds += elapsed
        self._total_waited += waited
        if self._total_seconds < self._seconds:
            return
        wait, rate = self._total_waited / self._total_seconds, self._rows * self._total_steps / self._total_seconds
        self._total_steps, self._total_seconds, self._total_waited = 0, 0.0, 0.0
        if self._warned or wait < WAITING or rate > ENOUGH * step_rate:
            return
        self._warned = True
        log.warning(
            "the input of host %d is too slow: %.1f examples/s arrive, the step could take %.1f and waits %.0f %% of "
            "the time; %s",
            jax.process_index(),
            rate,
            step_rate,
            100 * wait,
            advice(rate, step_rate, self._processes),
        )


def advice(rate: float, step_rate: float, processes: int, cores: int | None = None) -> str:
    """How many loader workers would be enough, as text.

    Args:
        rate: examples/s that arrive.
        step_rate: examples/s that the step could take.
        processes: loader workers now; 0 if the training process loads.
        cores: of this host; by default those that this process may use.
    """
    cores = cores or len(os.sched_getaffinity(0))
    enough = math.ceil(step_rate * max(processes, 1) / rate)
    text = f"{enough} workers would be enough (--config.data.workers.processes={enough}; now {processes})"
    if enough > cores:
        text += f", more than the {cores} cores of this host: prepare the data at the model's image size, or add hosts"
    return text
