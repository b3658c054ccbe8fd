"""The training loop: restore, step, log, evaluate, save; stops cleanly on a signal and refuses to save nonsense."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from medvill_jax.batch import Batch
from medvill_jax.cluster import stopping
from medvill_jax.cluster import workdir as workdirs
from medvill_jax.errors import UserError
from medvill_jax.training.checkpoint import Checkpoints
from medvill_jax.training.feed import Feed
from medvill_jax.training.writer import MetricsWriter
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)


class NotFiniteError(UserError):
    """The loss or the gradient became infinite or NaN."""


@dataclass(frozen=True)
class LoopConfig:
    """Attributes:
    steps: total.
    batch_size: global, for the throughput and the data position.
    log_every, eval_every, checkpoint_every: steps between; 0 for never. A run's last step is always logged and saved,
        and evaluated when it is long enough to have been evaluated at all.
    load_processes: what the loader was told to use on each host, for advice.
    """

    steps: int
    batch_size: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    load_processes: int = 0

    def evaluates(self, step: int) -> bool:
        """Whether a run has held-out figures of a step."""
        return _due(step, self.eval_every) or (step == self.steps and 0 < self.eval_every <= self.steps)


def train(
    state: Tree,
    step_fn: Callable[[Tree, Batch], tuple[Tree, dict[str, jax.Array]]],
    batches: Iterator[Batch],
    evaluate: Callable[[Tree], dict[str, float]],
    checkpoints: Checkpoints,
    config: LoopConfig,
    workdir: Path,
) -> tuple[Tree, dict[str, float] | None, bool]:
    """Trains from `state["step"]` to `config.steps`, or until a signal.

    A step whose evaluation a signal cut short is saved without figures, and evaluated first when the run goes on.

    Args:
        state: on the mesh; donated.
        step_fn: compiled, donating.
        batches: the global batches from that step on.
        evaluate: held-out figures, named "eval/..."; may ask `stopping.check`.
        checkpoints, workdir: where things go.
        config: see `LoopConfig`.

    Returns:
        The state; the last step's held-out figures, None if the run was stopped or is too short to be evaluated; and
        whether the run is complete.

    Raises:
        NotFiniteError: the checkpoints written before stay.
    """
    step = first_step = int(jax.device_get(state["step"]))
    writer = MetricsWriter(workdir, resume_step=step, active=jax.process_index() == 0)
    progress = tqdm(
        total=config.steps, initial=step, unit="step", disable=not sys.stderr.isatty() or jax.process_index() != 0
    )
    figures = (checkpoints.metrics(step) or None) if step else None
    clock = Clock(config.batch_size)
    feed = Feed(batches, rows=config.batch_size // jax.process_count(), processes=config.load_processes)

    def look() -> dict[str, float] | None:
        try:
            with clock.paused():
                found = evaluate(state)
        except stopping.Stopped:
            return None
        writer.write(step, found)
        log.info("step %d held out: %s", step, _figures_line(found))
        return found

    def save() -> None:
        with clock.paused():
            workdirs.publish(workdir, patient=True)
            checkpoints.save(step, state, {"next_example": step * config.batch_size}, figures)

    try:
        with stopping.StopSignal() as stop, logging_redirect_tqdm(), jax.transfer_guard("disallow"):
            stops = False
            if step and config.evaluates(step) and figures is None:
                figures = look()
                stops = figures is None
                save()
            while step < config.steps and not stops:
                state, metrics = feed.step(step_fn, state)
                step += 1
                progress.update()
                last = step == config.steps
                # Read once: a signal from here on is for an evaluation or the next step, which then saves.
                stops = stop.stops()
                logs = last or _due(step, config.log_every)
                evaluates = config.evaluates(step) and not stops
                saves = last or stops or evaluates or _due(step, config.checkpoint_every)
                clock.tick()
                figures = None
                if not (logs or saves):
                    continue
                values = {f"train/{name}": float(value) for name, value in jax.device_get(metrics).items()}
                _check_finite(step, values, checkpoints)
                if logs:
                    speed = clock.read()
                    came = feed.read(speed.get("train/step_seconds"))
                    values |= speed | {f"train/{name}": value for name, value in came.items()}
                    writer.write(step, values)
                    progress.set_postfix(loss=f"{values['train/loss']:.3f}")
                    if progress.disable:
                        log.info(_summary(step, config.steps, values))
                if evaluates:
                    figures = look()
                    stops = figures is None
                if saves:
                    save()
        complete = step == config.steps and (figures is not None or not config.evaluates(step))
        if stops and not complete:
            log.warning(
                "%s: saved step %d of %d; the same command goes on from here", stop.received, step, config.steps
            )
        elif step == first_step:
            log.info("the run is complete: step %d of %d", step, config.steps)
    finally:
        progress.close()
        writer.close()
    return state, figures, complete


class Clock:
    """Throughput between two readings, evaluation and saving left out; the first step, which compiles, too."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._start: float | None = None
        self._steps = 0

    def tick(self) -> None:
        """One step was dispatched."""
        if self._start is None:
            self._start = time.perf_counter()
        else:
            self._steps += 1

    def read(self) -> dict[str, float]:
        """Seconds a step and examples/s since the last reading; empty before a second step. Call with work finished."""
        if self._start is None or not self._steps:
            return {}
        now = time.perf_counter()
        seconds = (now - self._start) / self._steps
        self._start, self._steps = now, 0
        return {"train/step_seconds": seconds, "train/examples_per_second": self._batch_size / seconds}

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A block that does not count."""
        began = time.perf_counter()
        yield
        if self._start is not None:
            self._start += time.perf_counter() - began


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _check_finite(step: int, values: dict[str, float], checkpoints: Checkpoints) -> None:
    if all(map(math.isfinite, values.values())):
        return
    saved = checkpoints.steps()
    raise NotFiniteError(
        f"not finite at step {step}: "
        + ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))
        + (f". The checkpoint of step {saved[-1]} is kept" if saved else ". There is no checkpoint yet")
        + ". Lower --config.optimizer.learning_rate, set --config.optimizer.clip_norm=1.0, or train in float32."
    )


def _summary(step: int, steps: int, values: dict[str, float]) -> str:
    line = f"step {step}/{steps} loss {values['train/loss']:.4f}"
    if (speed := values.get("train/examples_per_second")) is not None:
        line += f" {speed:.1f} examples/s"
    if (need := values.get("train/step_per_host")) is not None:
        line += f" (a host: input {values['train/input_per_host']:.1f}, step {need:.1f})"
    return line


def _figures_line(figures: dict[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('eval/')} {value:.4f}" for name, value in figures.items())
