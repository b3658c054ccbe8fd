"""The training loop: step, log, evaluate, save."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jax
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from medvill_jax.batch import Batch
from medvill_jax.errors import UserError
from medvill_jax.training import sinks
from medvill_jax.training.bad_steps import BadSteps
from medvill_jax.training.checkpoint import Checkpoints
from medvill_jax.training.memory import Tidy
from medvill_jax.training.timing import Timing
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
        and evaluated if the run has at least `eval_every` steps.
    load_processes: loader workers of each host, for the advice of `timing`.
    sinks: that get the metrics too.
    bad_steps: what a step that is not finite, or a spike of the loss, does.
    seen: source -> how many of the first so many examples are its, logged as `train/SOURCE/examples`.
    """

    steps: int
    batch_size: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    load_processes: int = 0
    sinks: sinks.Chosen = sinks.NONE
    bad_steps: BadSteps = field(default_factory=BadSteps)
    seen: Callable[[int], Mapping[str, int]] = lambda examples: {}

    def evaluates(self, step: int) -> bool:
        """Whether a run evaluates after a step."""
        return _due(step, self.eval_every) or (step == self.steps and 0 < self.eval_every <= self.steps)


def train(
    state: Tree,
    step_fn: Callable[[Tree, Batch], tuple[Tree, dict[str, jax.Array]]],
    batches: Iterator[Batch],
    evaluate: Callable[[Tree], dict[str, float] | None],
    checkpoints: Checkpoints,
    config: LoopConfig,
    workdir: Path,
    *,
    should_stop: Callable[[], str | None] = lambda: None,
    publish: Callable[[], None] = lambda: None,
    barrier: Callable[[], None] = lambda: None,
    go_back: Callable[[Tree], tuple[Tree, Iterator[Batch]]] = lambda state: (state, iter(())),
) -> tuple[Tree, dict[str, float] | None, bool]:
    """Trains from `state["step"]` to `config.steps`, or until `should_stop` returns a reason.

    A step whose evaluation was cut short is saved without held-out metrics, and evaluated first when the run goes on.

    Args:
        state: on the mesh; donated.
        step_fn: the compiled step, which donates its state.
        batches: the global batches from that step on.
        evaluate: returns held-out metrics named "eval/...", or None if a signal ended the evaluation.
        checkpoints: of the run.
        workdir: the folder for metrics.
        config: see `LoopConfig`.
        should_stop: called after every step; returns what stops the run there, such as a signal's name, or None. It
            must return the same in all processes, and a reason must stay the same once it is returned.
        publish: called before every checkpoint, to copy the metrics of its steps to where they are kept.
        barrier: returns when all processes have called it.
        go_back: returns the state that goes on from one that `config.bad_steps` has halted, and the batches from its
            step on, or raises; needed if steps are judged.

    Returns:
        The state; the last step's held-out metrics, None if the run was stopped or is too short to be evaluated; and
        whether the run is complete.

    Raises:
        NotFiniteError: the loss or another training metric is infinite or NaN, and steps are not judged; earlier
            checkpoints stay.
        BadStepsError: of `go_back`.
    """
    # ---------------------------------------------- where the run stands ----------------------------------------------
    step = first_step = int(jax.device_get(state["step"]))
    held_out = (checkpoints.metrics(step) or None) if step else None
    first_process = jax.process_index() == 0
    writer = MetricsWriter(workdir, resume_step=step, active=first_process, to=config.sinks)
    progress = tqdm(total=config.steps, initial=step, unit="step", disable=not (first_process and sys.stderr.isatty()))
    told, rule, tidy = False, config.bad_steps, Tidy()
    compiled: set[tuple[tuple[int, ...], ...]] = set()  # the shapes of batches that a step is compiled for
    seen = rule.seen(state)
    timing = Timing(config.batch_size, hosts=jax.process_count(), processes=config.load_processes, barrier=barrier)

    def measure() -> dict[str, float] | None:
        with timing.paused():
            metrics = evaluate(state)
            tidy()
        if metrics is not None:
            writer.write(step, metrics)
            log.info("step %d held out: %s", step, _held_out_line(metrics))
        return metrics

    def save() -> None:
        with timing.paused():
            publish()
            position = {"next_example": step * config.batch_size}
            checkpoints.save(step, state, position, held_out, hold=rule.holds(seen))

    def due() -> tuple[bool, bool, bool]:
        last, evaluates = step == config.steps, config.evaluates(step) and not stop
        logs = last or _due(step, config.log_every)
        return logs, evaluates, bool(last or stop or evaluates or _due(step, config.checkpoint_every))

    with contextlib.ExitStack() as stack:
        stack.callback(writer.close)
        stack.callback(progress.close)
        stack.enter_context(logging_redirect_tqdm())
        stack.enter_context(jax.transfer_guard("disallow"))

        # ------------------------- a saved step whose evaluation was cut short ----------------------------------------
        stop = None
        if step and config.evaluates(step) and held_out is None:
            held_out = measure()
            stop = should_stop() if held_out is None else None
            save()

        # --------------------------------------------------- the loop -------------------------------------------------
        while step < config.steps and not stop:
            with timing.waiting():
                batch = next(batches)
            if (shapes := _shapes(batch)) in compiled:
                state, metrics = step_fn(state, batch)
            else:
                compiled.add(shapes)
                jax.block_until_ready(state)  # the steps before count in full
                with timing.compiling():
                    state, metrics = step_fn(state, batch)
            step += 1
            timing.stepped(metrics)
            progress.update()

            # Once per step: a later signal stops the evaluation or the next step, either of which then saves.
            stop, held_out = should_stop(), None
            logs, evaluates, saves = due()
            if not (logs or saves):
                continue
            before, seen = seen, rule.seen(state)
            _tell_skipped(step, before, seen)
            if rule.halted(seen):
                # The steps after the one that halted it returned it as it was: they are as if they had not been.
                with timing.paused(), jax.transfer_guard("allow"):
                    state, batches = go_back(state)
                step, seen = int(jax.device_get(state["step"])), rule.seen(state)
                progress.update(step - progress.n)
                logs, evaluates, saves = due()
            values = {f"train/{name}": float(value) for name, value in jax.device_get(metrics).items()}
            if not rule.judges:
                _check_finite(step, values, checkpoints)
            if logs:
                sources = config.seen(step * config.batch_size)
                more = rule.metrics(seen) | timing.read() | {f"{name}/examples": sources[name] for name in sources}
                values |= {f"train/{name}": value for name, value in more.items()}
                if not told and (rate := values.get("train/examples_per_second")) and step < config.steps:
                    told = True
                    log.info("%s", expected(config.steps - step, config.batch_size, rate))
                writer.write(step, values)
                _show(progress, step, config.steps, values)
            if evaluates:
                held_out = measure()
                stop = should_stop() if held_out is None else None
            if saves:
                save()

    # ------------------------------------------------------ the end ---------------------------------------------------
    complete = step == config.steps and (held_out is not None or not config.evaluates(step))
    if stop and not complete:
        log.warning("%s: saved step %d of %d; the same command goes on from here", stop, step, config.steps)
    elif step == first_step:
        log.info("the run is complete: step %d of %d", step, config.steps)
    return state, held_out, complete


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _shapes(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in jax.tree.leaves(batch))


def _tell_skipped(step: int, before: dict[str, float], seen: dict[str, float]) -> None:
    if more := seen.get("skipped", 0) - before.get("skipped", 0):
        log.warning(
            "step %d: bad steps that were skipped: %d since the last look, %d in all", step, more, seen["skipped"]
        )


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


def _show(progress: tqdm, step: int, steps: int, values: dict[str, float]) -> None:
    """Shows metrics on the progress bar, or logs them as one line if there is no bar."""
    progress.set_postfix(loss=f"{values['train/loss']:.3f}")
    if not progress.disable:
        return
    line = f"step {step}/{steps} loss {values['train/loss']:.4f}"
    if (speed := values.get("train/examples_per_second")) is not None:
        line += f" {speed:.1f} examples/s"
    if (step_rate := values.get("train/step_per_host")) is not None:
        line += f" (a host: input {values['train/input_per_host']:.1f}, step {step_rate:.1f})"
    log.info("%s", line)


def expected(steps: int, batch_size: int, rate: float) -> str:
    """How long the rest of a run will take, as text."""
    seconds = steps * batch_size / rate
    long = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{math.ceil(seconds / 60)} min"
    return f"{steps:,} steps more at {rate:.4g} examples/s: {long}, without evaluations"


def _held_out_line(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('eval/')} {value:.4f}" for name, value in metrics.items())
