"""Checkpoints: training state and data position as one unit, written asynchronously by Orbax and nothing else.

On disk a state is names -> arrays. A step's folder holds `state` (the arrays) and `position` (JSON: where the data
stream stands), and is renamed into place when complete, so a half-written one is never picked up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from medvill_jax.training.policy import path_name

log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint does not fit, or cannot be read; the message says what and where."""


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
        """A number that is higher for a better checkpoint.

        Raises:
            CheckpointError: the metric is not among the figures.
        """
        if self.metric not in metrics:
            raise CheckpointError(
                f"there is no figure {self.metric!r} to choose the best checkpoint by; there are {', '.join(metrics)}"
            )
        value = metrics[self.metric]
        return value if self.higher_is_better else -value


def _names_to_arrays(state: Any) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        *branches, last = path_name(path).split("/")
        node = nested
        for branch in branches:
            node = node.setdefault(branch, {})
        node[last] = leaf
    return nested


def _shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {path_name(path): (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves}


class Checkpoints:
    """The checkpoints of one run, under `directory`."""

    def __init__(self, directory: Path, keep: Keep, *, read_only: bool = False):
        self._keep = keep
        self._directory = directory
        self._damaged: set[int] = set()
        policy = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(keep.last),
                preservation_policy.BestN(
                    get_metric_fn=keep.order, n=keep.best, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            item_handlers={"state": ocp.StandardCheckpointHandler(), "position": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=keep.order,  # without it Orbax writes no metrics to disk
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                step_format_fixed_length=8,
            ),
        )

    def save(self, step: int, state: Any, position: dict[str, int], metrics: dict[str, float] | None = None) -> None:
        """Starts writing a checkpoint; returns once the arrays may be overwritten.

        A step that is already there is left as it is, unless it was found damaged.
        """
        if step in self._damaged:
            self._manager.delete(step)
            self._damaged.remove(step)
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_names_to_arrays(state)), position=ocp.args.JsonSave(position)
            ),
            metrics=metrics,
            force=True,
        )

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def metrics(self, step: int) -> dict[str, float]:
        """The held-out figures saved with a step; empty where it was not evaluated."""
        return dict(self._manager.metrics(step) or {})

    def best_step(self) -> int | None:
        """The step of the best checkpoint by the kept metric; without any evaluated one, the newest."""
        scored = {step: self.metrics(step) for step in self.steps()}
        evaluated = {step: self._keep.order(metrics) for step, metrics in scored.items() if metrics}
        if evaluated:
            return max(evaluated, key=lambda step: evaluated[step])
        return max(scored, default=None)

    def restore_newest(self, abstract: Any) -> tuple[Any, dict[str, int]] | None:
        """The newest checkpoint that can be read, or None where there is none.

        One that is damaged is named in a warning and the one before is tried.

        Args:
            abstract: the state's structure, of `jax.ShapeDtypeStruct` with shardings.

        Raises:
            CheckpointError: none can be read, or a readable one does not fit the model.
        """
        for step in reversed(self.steps()):
            try:
                return self.restore(step, abstract)
            except CheckpointError:
                raise
            except Exception as error:  # Orbax has no type for "damaged"
                self._damaged.add(step)
                reason = str(error).partition("[")[0][:200]
                log.warning("checkpoint of step %d cannot be read (%s); trying the one before", step, reason)
        if self.steps():
            raise CheckpointError(f"no checkpoint under {self._directory} can be read; move the folder away to restart")
        return None

    def restore(self, step: int, abstract: Any) -> tuple[Any, dict[str, int]]:
        """The state and data position of one step, placed as `abstract` says.

        Raises:
            CheckpointError: names that are missing, extra or of another shape or dtype: all of them at once.
        """
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
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(_names_to_arrays(abstract)), position=ocp.args.JsonRestore()
            ),
        )
        arrays = {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(restored["state"])[0]}
        state = jax.tree_util.tree_map_with_path(lambda path, _: arrays[path_name(path)], abstract)
        return state, restored["position"]

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then releases the writer threads."""
        self._manager.wait_until_finished()
        self._manager.close()
