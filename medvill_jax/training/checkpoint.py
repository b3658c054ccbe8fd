"""Checkpoints: training state and data position as one unit, written by Orbax and nothing else.

On disk a state is names -> arrays, however many devices and processes wrote them. A step's folder holds `state` (the
arrays), `position` (JSON: where the data stream stands) and what `integrity` says of them, and is renamed into place
when complete, so a half-written one is never picked up and a damaged one never taken for a good one.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from medvill_jax.errors import UserError
from medvill_jax.paths import in_bucket
from medvill_jax.training import integrity
from medvill_jax.training.hosts import ALONE, Hosts
from medvill_jax.trees import flatten, nest, tree_names

log = logging.getLogger(__name__)

INTEGRITY_FILE = "integrity.json"


class CheckpointError(UserError):
    """A checkpoint does not fit, or cannot be read; the message says what and where."""


class DamagedError(CheckpointError):
    """A checkpoint is not as it was written."""

    def __init__(self, step: int, what: str):
        super().__init__(f"checkpoint of step {step} cannot be read ({what})")


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay.

    Attributes:
        last: the newest ones.
        best: the best ones by `metric`.
        metric: name of an evaluation figure.
        higher_is_better: its direction.
    """

    last: int = 2
    best: int = 1
    metric: str = "eval/loss"
    higher_is_better: bool = False

    def order(self, metrics: Mapping[str, float]) -> float:
        """A number that is higher for a better checkpoint, and lowest where the figure is not defined.

        Raises:
            CheckpointError: the metric is not among the figures.
        """
        if self.metric not in metrics:
            raise CheckpointError(
                f"there is no figure {self.metric!r} to choose the best checkpoint by; there are {', '.join(metrics)}"
            )
        value = metrics[self.metric]
        if math.isnan(value):  # not defined
            return -math.inf
        return value if self.higher_is_better else -value


def _names_to_arrays(state: Any) -> dict[str, Any]:
    return nest(flatten(state), lists=False)


def _shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(leaf.shape), str(leaf.dtype)) for name, leaf in flatten(tree).items()}


class _Manager(ocp.CheckpointManager):
    """Orbax's, but for its questions about preemption: they come from a thread of its own and with the number of an
    earlier step, and would lead JAX to a step for all processes to stop after that some have passed.
    """

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


class Checkpoints:
    """The checkpoints of one run; every process has them, and calls every method together.

    Args:
        directory: where they lie, for all hosts.
        keep: which of them stay.
        hosts: the processes of the run.
        read_only: makes, changes and deletes nothing.
    """

    def __init__(self, directory: Path | epath.Path, keep: Keep, *, hosts: Hosts = ALONE, read_only: bool = False):
        self._keep, self._hosts = keep, hosts
        self._in_bucket = in_bucket(directory)
        self._directory = directory = epath.Path(directory if self._in_bucket else Path(directory).absolute())
        self._damaged: set[int] = set()
        self._numbers: dict[str, int] = {}  # of the arrays that are being saved
        policy = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(keep.last),
                preservation_policy.BestN(
                    get_metric_fn=keep.order, n=keep.best, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        self._manager = _Manager(
            directory,
            item_handlers={"state": ocp.PyTreeCheckpointHandler(), "position": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=keep.order,  # without it Orbax writes no metrics to disk
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                step_format_fixed_length=8,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )

    def save(self, step: int, state: Any, position: dict[str, int], metrics: dict[str, float] | None = None) -> None:
        """Writes a checkpoint; it is complete when this returns, so a killed run never loses more than one interval.

        A step that is already there is left as it is, unless it was found damaged or has no figures and now gets some.

        Raises:
            CheckpointError: it cannot be written; the complete ones stay.
        """
        if step in self._damaged:
            self._manager.delete(step)
            self._damaged.remove(step)
        if step in self._manager.all_steps():
            if metrics and not self.metrics(step):
                self._add_metrics(step, metrics)
            return
        self._numbers = integrity.of_arrays(state)
        with self._explained():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(_names_to_arrays(state)), position=ocp.args.JsonSave(position)
                ),
                metrics=metrics,
                force=True,
            )
            self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def metrics(self, step: int) -> dict[str, float]:
        """The held-out figures saved with a step; empty where it was not evaluated."""
        return self._as_first_sees("figures", lambda: self._manager.metrics(step) or {})

    def best_step(self) -> int | None:
        """The step of the best checkpoint by the kept metric; without any evaluated one, the newest."""

        def best() -> int | None:
            scored = {step: self._manager.metrics(step) for step in self.steps()}
            evaluated = {step: self._keep.order(metrics) for step, metrics in scored.items() if metrics}
            return max(evaluated or scored, key=lambda step: evaluated.get(step, step), default=None)

        return self._as_first_sees("best checkpoint", best)

    def restore_newest(self, abstract: Any) -> tuple[Any, dict[str, int]] | None:
        """The newest checkpoint that can be read, or None where there is none.

        One that is damaged is named in a warning and the one before is tried.

        Args:
            abstract: the state's structure, of `jax.ShapeDtypeStruct` with shardings.

        Raises:
            CheckpointError: none can be read, or a readable one does not fit the model.
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
        """Puts figures beside the arrays of a complete step, as Orbax would have done."""

        def write() -> None:
            item = self._directory / f"{step:08d}" / "metrics"
            # In a folder the item gets its name when it is complete; in a bucket an object does so by itself.
            made = item if self._in_bucket else item.with_name("metrics.tmp")
            made.mkdir(parents=True, exist_ok=True)
            (made / "metrics").write_text(json.dumps(metrics))
            if made != item:
                made.replace(item)

        with self._explained():
            self._hosts.on_first("late figures", write)
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
            CheckpointError: names that are missing, extra or of another shape or dtype: all of them at once; or this
                process does not see a step that process 0 sees.
            DamagedError: it cannot be read, or is not as it was written.
        """
        if self._hosts.is_running() and not self._hosts.appears(functools.partial(self._sees, step)):
            raise CheckpointError(f"{socket.gethostname()} does not see step {step} under {self._directory}")
        wanted = {name: abstract[name] for name in parts or abstract}
        recorded = self._as_first_sees("integrity", lambda: self._recorded(step))
        if recorded is None:
            raise DamagedError(step, f"its {INTEGRITY_FILE} is unreadable")
        failure, restored, position = None, {}, {}
        try:
            self._check_fit(step, abstract)
            restored, position = self._read(self._directory / f"{step:08d}", _names_to_arrays(wanted))
        except CheckpointError:
            raise
        except Exception as error:  # Orbax has no type for "damaged"
            failure = str(error).partition("[")[0][:200] or type(error).__name__
        if self._hosts.any_of(failure is not None):
            raise DamagedError(step, failure or "by another process")
        state = jax.tree.map(flatten(restored).__getitem__, tree_names(wanted))
        numbers = recorded.get("arrays", {})
        for name, number in integrity.of_arrays(state).items():
            if numbers.get(name, number) != number:
                raise DamagedError(step, f"{name} is not as it was written")
        return state, position

    def _check_fit(self, step: int, abstract: Any) -> None:
        metadata = self._manager.item_metadata(step)
        if metadata["state"] is None:
            raise ValueError(f"the description of step {step} is unreadable")
        found = _shapes(metadata["state"].tree)
        wanted = _shapes(abstract)
        problems = [
            *(f"missing: {name} {wanted[name]}" for name in wanted if name not in found),
            *(f"extra: {name} {found[name]}" for name in found if name not in wanted),
            *(
                f"differs: {name} is {found[name]}, expected {wanted[name]}"
                for name in wanted
                if name in found and found[name] != wanted[name]
            ),
        ]
        if problems:
            raise CheckpointError(
                f"checkpoint of step {step} under {self._directory} does not fit this model:\n  "
                + "\n  ".join(problems)
            )

    def _read(self, folder: epath.Path, named: Any) -> tuple[Any, dict[str, int]]:
        """Not through the manager: it waits for all processes, and one that fails would leave the others waiting."""
        state = ocp.PyTreeCheckpointHandler().restore(
            folder / "state",
            args=ocp.args.PyTreeRestore(
                named, restore_args=ocp.checkpoint_utils.construct_restore_args(named), partial_restore=True
            ),
        )
        return state, dict(ocp.JsonCheckpointHandler().restore(folder / "position"))

    def close(self) -> None:
        """Releases the writer threads."""
        self._manager.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever Orbax, TensorStore and the file system raise
            full = any(part in str(error) for part in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)))
            what = "the disk is full" if full else str(error).split("\n")[0][:300]
            there = sorted(ocp.utils.checkpoint_steps(self._directory))
            raise CheckpointError(
                f"a checkpoint cannot be written under {self._directory}: {what}. "
                + (f"The one of step {there[-1]} is complete" if there else "None is complete yet")
                + "; with room, the same command goes on from it"
            ) from error

    def _seal(self) -> None:
        """Orbax calls this in its thread when all files of a step are written, before the step counts as complete."""
        if jax.process_index() == 0:
            for folder in self._directory.iterdir():
                if folder.is_dir() and not ocp.utils.is_checkpoint_finalized(folder):
                    files = integrity.of_files(folder, in_bucket=self._in_bucket)
                    numbers = {"arrays": self._numbers, "files": files}
                    (folder / INTEGRITY_FILE).write_text(json.dumps(numbers, indent=1) + "\n")

    def _recorded(self, step: int) -> dict[str, dict[str, int]] | None:
        """What was written of a step's integrity, empty if nothing was; None where that is unreadable."""
        try:
            return json.loads((self._directory / f"{step:08d}" / INTEGRITY_FILE).read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            return None

    def _look(self, before: int | None) -> tuple[int | None, list[tuple[int, str]]]:
        """The newest step, or the newest before one, whose files are as written, and `(step, what)` of damaged ones."""
        damage: list[tuple[int, str]] = []
        for step in reversed(self.steps()):
            if before is not None and step >= before:
                continue
            what = self._damage(step)
            if what is None:
                return step, damage
            damage.append((step, what))
        return None, damage

    def _damage(self, step: int) -> str | None:
        """What is wrong with a step's files; None if nothing is known to be."""
        recorded = self._recorded(step)
        if recorded is None:
            return f"its {INTEGRITY_FILE} is unreadable"
        folder = self._directory / f"{step:08d}"
        return integrity.damaged_file(folder, recorded.get("files", {}), in_bucket=self._in_bucket)

    def _as_first_sees(self, what: str, look: Callable[[], Any]) -> Any:
        """What process 0 finds, JSON-like.

        What each process finds might differ, and Orbax works with all or with none.
        """
        return json.loads(self._hosts.on_first(what, lambda: json.dumps(look())))
