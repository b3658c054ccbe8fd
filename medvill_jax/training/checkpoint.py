"""The checkpoints of a run: training state and data position as one unit, written by Orbax.

On disk a state is a set of named arrays, whatever devices and processes wrote them. The folder of a step holds `state`
(the arrays), `position` (JSON: the position in the data stream) and checksums (`integrity`). It is renamed into place
when it is complete, so a half-written checkpoint is never restored.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import math
import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from medvill_jax.paths import in_bucket
from medvill_jax.training import integrity
from medvill_jax.training.hosts import ALONE, Hosts
from medvill_jax.training.memory import described_once
from medvill_jax.training.saved_step import (
    INTEGRITY_FILE,
    VERSION,
    CheckpointError,
    DamagedError,
    SavedStep,
    names_to_arrays,
    shapes,
    shapes_of,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keep:
    """Which checkpoints are kept.

    Attributes:
        last: how many of the newest.
        best: how many of the best by `metric`.
        metric: name of a held-out metric.
        higher_is_better: its direction.
    """

    last: int = 2
    best: int = 1
    metric: str = "eval/loss"
    higher_is_better: bool = False

    def require(self, names: Collection[str]) -> None:
        """`CheckpointError` if the metric is not among those of an evaluation."""
        if self.metric not in names:
            raise CheckpointError(
                f"there is no metric {self.metric!r} to choose the best checkpoint by; there are {', '.join(names)}"
            )

    def order(self, metrics: Mapping[str, float]) -> float:
        """A number that is higher for a better checkpoint, and lowest where the metric is not defined.

        Raises:
            CheckpointError: `metric` is not among the metrics.
        """
        self.require(metrics)
        value = metrics[self.metric]
        if math.isnan(value):  # not defined
            return -math.inf
        return value if self.higher_is_better else -value


@dataclass
class _Held(preservation_policy.PreservationPolicy):
    """Keeps one step."""

    step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        return [checkpoint.step == self.step for checkpoint in checkpoints]


def _policy(keep: Keep, held: _Held) -> preservation_policy.PreservationPolicy:
    best = preservation_policy.BestN(get_metric_fn=keep.order, n=keep.best, keep_checkpoints_without_metrics=False)
    return preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(keep.last), best, held])


class _Manager(ocp.CheckpointManager):
    """Orbax's manager without its preemption check.

    Orbax checks in a background thread with the number of an earlier step, so JAX might choose a step to stop at that
    some processes have passed.
    """

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


class Checkpoints:
    """The checkpoints of one run; all processes must call every method together.

    Args:
        directory: of the checkpoints, the same for all hosts.
        keep: which of them are kept.
        hosts: the processes of the run.
        read_only: creates, changes and deletes nothing.
    """

    def __init__(self, directory: Path | epath.Path, keep: Keep, *, hosts: Hosts = ALONE, read_only: bool = False):
        self._keep, self._hosts = keep, hosts
        self._in_bucket = in_bucket(directory)
        self._directory = directory = epath.Path(directory if self._in_bucket else Path(directory).absolute())
        self._damaged: set[int] = set()
        self._held = _Held()
        self._recorded: dict[str, Any] = {}  # of the arrays that are being saved
        self._manager = _Manager(
            directory,
            item_handlers={"state": ocp.PyTreeCheckpointHandler(), "position": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_policy(keep, self._held),
                best_fn=keep.order,  # without it Orbax writes no metrics to disk
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                step_format_fixed_length=8,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )

    def save(
        self,
        step: int,
        state: Any,
        position: dict[str, int],
        metrics: dict[str, float] | None = None,
        *,
        hold: int | None = None,
    ) -> None:
        """Writes a checkpoint; it is complete when this returns, so a killed run loses at most one interval.

        An existing step is replaced if it was found damaged, gets the metrics if it has none, and else stays as it is.

        Args:
            step, state, position: as `restore` returns them.
            metrics: held-out, if the step was evaluated.
            hold: a step whose checkpoint, if there is one, is kept besides those of `Keep` until the next save.

        Raises:
            CheckpointError: it cannot be written; complete checkpoints stay.
        """
        self._held.step = hold
        if step in self._damaged:
            self._manager.delete(step)
            self._damaged.remove(step)
        if step in self._manager.all_steps():
            if metrics and not self.metrics(step):
                self._add_metrics(step, metrics)
            return
        self._recorded = {"arrays": integrity.of_arrays(state), "shapes": shapes(state)}
        with _explained(self._directory), described_once():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(names_to_arrays(state)), position=ocp.args.JsonSave(position)
                ),
                metrics=metrics,
                force=True,
            )
            self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def metrics(self, step: int) -> dict[str, float]:
        """The held-out metrics saved with a step; empty if it was not evaluated."""
        return self._as_first_sees("metrics", lambda: self._manager.metrics(step) or {})

    def best_step(self) -> int | None:
        """The step of the best checkpoint by `Keep.metric`; if none was evaluated, the newest; None without any."""

        def best() -> int | None:
            scored = {step: self._manager.metrics(step) for step in self.steps()}
            evaluated = {step: self._keep.order(metrics) for step, metrics in scored.items() if metrics}
            return max(evaluated or scored, key=lambda step: evaluated.get(step, step), default=None)

        return self._as_first_sees("best checkpoint", best)

    def restore_newest(self, abstract: Any) -> tuple[Any, dict[str, int]] | None:
        """The state and data position of the newest checkpoint that can be read, or None if there is no checkpoint.

        A damaged one is named in a warning, and the one before it is tried.

        Args:
            abstract: the state's structure, of `jax.ShapeDtypeStruct` with shardings.

        Raises:
            CheckpointError: there are checkpoints but none can be read, or a readable one does not fit the model.
        """
        before: int | None = None
        while True:
            step, damage = self._as_first_sees("newest checkpoint", functools.partial(self._look, before))
            for damaged, what in damage:
                self._pass_over(damaged, DamagedError(damaged, what))
            if step is None:
                break
            try:
                return self.restore(step, abstract)
            except DamagedError as error:
                self._pass_over(step, error)
                before = step
        if self.steps():
            raise CheckpointError(f"no checkpoint under {self._directory} can be read; move the folder away to restart")
        return None

    def _sees(self, step: int) -> bool:
        if step not in self._manager.all_steps():
            self._manager.reload()
        return step in self._manager.all_steps()

    def _add_metrics(self, step: int, metrics: dict[str, float]) -> None:
        with _explained(self._directory):
            self._hosts.on_first("late metrics", lambda: self._saved(step).add_metrics(metrics))
            self._manager.reload()

    def _pass_over(self, step: int, error: DamagedError) -> None:
        self._damaged.add(step)
        log.warning("%s; trying the one before", error)

    def restore(self, step: int, abstract: Any, parts: Sequence[str] = ()) -> tuple[Any, dict[str, int]]:
        """The state and data position of one step, placed as `abstract` says.

        Args:
            step: of a complete checkpoint.
            abstract: the whole state's structure, of `jax.ShapeDtypeStruct` with shardings.
            parts: the state's entries to read and return, e.g. "params"; all by default.

        Raises:
            CheckpointError: arrays are missing, extra or of another shape or dtype (all are listed), the step is of a
                later format, or this process does not see a step that process 0 sees.
            DamagedError: the step cannot be read, or is not as it was written.
        """
        if self._hosts.is_running() and not self._hosts.appears(functools.partial(self._sees, step)):
            raise CheckpointError(f"{socket.gethostname()} does not see step {step} under {self._directory}")
        saved, wanted = self._saved(step), {name: abstract[name] for name in parts or abstract}
        recorded = self._as_first_sees("integrity", saved.recorded)
        if recorded is None:
            raise DamagedError(step, f"its {INTEGRITY_FILE} is unreadable")
        saved.check_format(recorded)
        failure, state, position = None, {}, {}
        try:
            # Records of earlier versions have no shapes.
            described = recorded.get("shapes") or shapes_of(self._manager.item_metadata(step)["state"])
            saved.check_fit(described, abstract)
            state, position = saved.read(wanted)
        except CheckpointError:
            raise
        except Exception as error:  # Orbax has no type for "damaged"
            failure = str(error).partition("[")[0][:200] or type(error).__name__
        if self._hosts.any_of(failure is not None):
            raise DamagedError(step, failure or "by another process")
        saved.check_arrays(state, recorded)
        return state, position

    def close(self) -> None:
        """Ends Orbax's background threads."""
        self._manager.close()

    def _seal(self) -> None:
        """Writes the checksums; Orbax calls this in its thread once all other files of a step are written."""
        if jax.process_index() == 0:
            for folder in self._directory.iterdir():
                if folder.is_dir() and not ocp.utils.is_checkpoint_finalized(folder):
                    files = integrity.of_files(folder, in_bucket=self._in_bucket)
                    checksums = {"version": VERSION, **self._recorded, "files": files}
                    (folder / INTEGRITY_FILE).write_text(json.dumps(checksums, indent=1) + "\n")

    def _saved(self, step: int) -> SavedStep:
        return SavedStep(self._directory, step, self._in_bucket)

    def _look(self, before: int | None) -> tuple[int | None, list[tuple[int, str]]]:
        """The newest step (before `before`, if given) with undamaged files, and `(step, damage)` of the newer ones."""
        damage: list[tuple[int, str]] = []
        for step in reversed(self.steps()):
            if before is not None and step >= before:
                continue
            what = self._saved(step).damage()
            if what is None:
                return step, damage
            damage.append((step, what))
        return None, damage

    def _as_first_sees(self, what: str, look: Callable[[], Any]) -> Any:
        """The result of `look` in process 0, which must be JSON-like.

        Processes may see different files, but Orbax needs all of them to restore the same step.
        """
        return json.loads(self._hosts.on_first(what, lambda: json.dumps(look())))


@contextlib.contextmanager
def _explained(directory: epath.Path) -> Iterator[None]:
    """A block that writes; whatever fails in it becomes one line of a `CheckpointError`."""
    try:
        yield
    except Exception as error:  # whatever Orbax, TensorStore and the file system raise
        full = any(part in str(error) for part in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)))
        what = "the disk is full" if full else str(error).split("\n")[0][:300]
        complete = sorted(ocp.utils.checkpoint_steps(directory))
        raise CheckpointError(
            f"a checkpoint cannot be written under {directory}: {what}. "
            + (f"The one of step {complete[-1]} is complete" if complete else "None is complete yet")
            + "; with room, the same command goes on from it"
        ) from error
