"""Whether the input keeps up: what the loader of this host gives beside what the step could take.

Steps are dispatched ahead of the device, so neither the time that a call of the step takes nor the time spent waiting
for a batch tells alone who waits for whom. After figures were read the device is idle; the next step is then timed to
its end, from a batch that is already there. That is what a step needs, and what is needed is compared with what came.
"""

from __future__ import annotations

import collections
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator

import jax

from medvill_jax.batch import Batch
from medvill_jax.cluster import distributed
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

# Input falls short when the loop waits for more than this share of its time, and gets less than this share of its need.
WAITING, ENOUGH = 0.1, 0.9
PROBES = 9


class Feed:
    """The batches of a loop, and the time it waits for them.

    Args:
        batches: global batches on the mesh.
        rows: examples of each batch that this host loads.
        processes: loading processes that are at it; 0 if they are loaded in this one.
        seconds: of stepping before the input is judged.
        now: the time in seconds, from anywhere on.
    """

    def __init__(
        self,
        batches: Iterator[Batch],
        *,
        rows: int,
        processes: int,
        seconds: float = 10.0,
        now: Callable[[], float] = time.perf_counter,
    ):
        self._now = now
        self._batches, self._rows, self._processes, self._seconds = batches, rows, processes, seconds
        self._waited, self._steps = 0.0, 0
        self._total_waited, self._total_seconds, self._total_steps = 0.0, 0.0, 0
        self._probing, self._warned = False, False
        self._probes: collections.deque[float] = collections.deque(maxlen=PROBES)

    def step(
        self, step_fn: Callable[[Tree, Batch], tuple[Tree, dict[str, jax.Array]]], state: Tree
    ) -> tuple[Tree, dict[str, jax.Array]]:
        """Takes the next batch through a step."""
        began = self._now()
        batch = next(self._batches)
        there = self._now()
        self._waited += there - began
        if self._probing:
            # Else the time would contain waiting for the batches of other hosts.
            distributed.barrier("timed step", distributed.LONG_SECONDS)
            there = self._now()
        self._steps += 1
        state, figures = step_fn(state, batch)
        if self._probing:
            jax.block_until_ready(figures)
            self._probes.append(self._now() - there)
        self._probing = False
        return state, figures

    def read(self, step_seconds: float | None) -> dict[str, float]:
        """Figures since the last reading, and a warning once the input has fallen short for some time.

        To be called when the device has finished its steps; the next one is then timed.

        Args:
            step_seconds: of a step in the mean since then, waiting included; None if there is no such figure.

        Returns:
            `input_per_host` and `step_per_host`, examples/s that came and that the step could have taken, and
            `input_wait`, the share of time spent waiting; empty as long as nothing is known.
        """
        waited, steps = self._waited, self._steps
        self._waited, self._steps = 0.0, 0
        self._probing = True
        if step_seconds is None or not self._probes or not steps:
            return {}
        self._total_waited += waited
        self._total_seconds += steps * step_seconds
        self._total_steps += steps
        need = self._rows / statistics.median(self._probes)
        if self._total_seconds >= self._seconds:
            self._judge(
                self._total_waited / self._total_seconds, self._rows * self._total_steps / self._total_seconds, need
            )
            self._total_waited, self._total_seconds, self._total_steps = 0.0, 0.0, 0
        return {
            "input_per_host": self._rows / step_seconds,
            "step_per_host": need,
            "input_wait": min(1.0, waited / (steps * step_seconds)),
        }

    def _judge(self, wait: float, rate: float, need: float) -> None:
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
