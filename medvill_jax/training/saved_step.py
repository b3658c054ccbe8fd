"""One step of a checkpoint on disk: its files, what was recorded of them, and its contents."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from medvill_jax.errors import UserError
from medvill_jax.training import integrity
from medvill_jax.training.memory import described_once
from medvill_jax.trees import flatten, nest, tree_names
from medvill_jax.version import format_problem

INTEGRITY_FILE = "integrity.json"
# Of the format, among the checksums; a step without it is of the first.
VERSION = 1


class CheckpointError(UserError):
    """A checkpoint does not fit, or cannot be read or written; the message says what and where."""


class DamagedError(CheckpointError):
    """A checkpoint is not as it was written."""

    def __init__(self, step: int, what: str):
        super().__init__(f"checkpoint of step {step} cannot be read ({what})")


@dataclass(frozen=True)
class SavedStep:
    """The folder of one step.

    Attributes:
        directory: the folder of all checkpoints of a run.
        number: of the step.
        in_bucket: whether the directory lies in a bucket.
    """

    directory: epath.Path
    number: int
    in_bucket: bool

    @property
    def folder(self) -> epath.Path:
        """The folder of this step once it is complete."""
        return self.directory / f"{self.number:08d}"

    def recorded(self) -> dict[str, Any] | None:
        """The format and the checksums that were saved with the step, empty if there are none; None if unreadable."""
        try:
            return json.loads((self.folder / INTEGRITY_FILE).read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            return None

    def damage(self) -> str | None:
        """What is wrong with the files; None if nothing is known to be."""
        recorded = self.recorded()
        if recorded is None:
            return f"its {INTEGRITY_FILE} is unreadable"
        if format_problem(recorded.get("version"), VERSION):
            return None  # not for this version to judge
        return integrity.damaged_file(self.folder, recorded.get("files", {}), in_bucket=self.in_bucket)

    def check_format(self, recorded: dict[str, Any]) -> None:
        """Raises `CheckpointError` for a format that is not known here."""
        if problem := format_problem(recorded.get("version"), VERSION):
            raise CheckpointError(f"checkpoint of step {self.number} under {self.directory} {problem}")

    def add_metrics(self, metrics: dict[str, float]) -> None:
        """Writes the metrics of a complete step, in the form that Orbax writes."""
        item = self.folder / "metrics"
        # In a folder the item gets its name when it is complete; in a bucket an object appears complete.
        unfinished = item if self.in_bucket else item.with_name("metrics.tmp")
        unfinished.mkdir(parents=True, exist_ok=True)
        (unfinished / "metrics").write_text(json.dumps(metrics))
        if unfinished != item:
            unfinished.replace(item)

    def check_fit(self, saved: dict[str, str], abstract: Any) -> None:
        """Compares the names, shapes and dtypes of the saved arrays with those of a state.

        Args:
            saved: `shapes` of the saved state.
            abstract: the state's structure, of `jax.ShapeDtypeStruct`.

        Raises:
            CheckpointError: every difference, in one message.
        """
        wanted = shapes(abstract)
        problems = [
            *(f"missing: {name} {wanted[name]}" for name in wanted if name not in saved),
            *(f"extra: {name} {saved[name]}" for name in saved if name not in wanted),
            *(
                f"differs: {name} is {saved[name]}, expected {wanted[name]}"
                for name in wanted
                if name in saved and saved[name] != wanted[name]
            ),
        ]
        if problems:
            raise CheckpointError(
                f"checkpoint of step {self.number} under {self.directory} does not fit this model:\n  "
                + "\n  ".join(problems)
            )

    @described_once()
    def read(self, wanted: Any) -> tuple[Any, dict[str, int]]:
        """The arrays, in the structure of `wanted` and placed as it says, and the data position.

        Orbax's manager would wait for all processes here, and one that fails would leave the others waiting.
        """
        named = names_to_arrays(wanted)
        arrays = ocp.PyTreeCheckpointHandler().restore(
            self.folder / "state",
            args=ocp.args.PyTreeRestore(
                named, restore_args=ocp.checkpoint_utils.construct_restore_args(named), partial_restore=True
            ),
        )
        position = dict(ocp.JsonCheckpointHandler().restore(self.folder / "position"))
        return jax.tree.map(flatten(arrays).__getitem__, tree_names(wanted)), position

    def check_arrays(self, state: Any, recorded: dict[str, Any]) -> None:
        """Compares restored arrays with their recorded checksums; all processes must call it together.

        Raises:
            DamagedError: an array differs.
        """
        saved = recorded.get("arrays", {})
        for name, checksum in integrity.of_arrays(state).items():
            if saved.get(name, checksum) != checksum:
                raise DamagedError(self.number, f"{name} is not as it was written")


def names_to_arrays(state: Any) -> dict[str, Any]:
    """A state as it is saved: nested dicts whose keys are all strings."""
    return nest(flatten(state), lists=False)


def shapes(tree: Any) -> dict[str, str]:
    """The shape and the dtype of each array of a state, by its name."""
    return {name: f"{tuple(leaf.shape)} {leaf.dtype}" for name, leaf in flatten(tree).items()}


def shapes_of(metadata: Any) -> dict[str, str]:
    """The same from Orbax's description of a saved state. Raises `ValueError` where it is unreadable, None."""
    if metadata is None:
        raise ValueError("its description is unreadable")
    return shapes(metadata.tree)
