"""What a task is made of: a function `build(config, workdir) -> Parts` that the runner makes a run of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from medvill_jax.batch import BatchSpec
from medvill_jax.tasks.data import Data, TrainRecords
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.network import Network
from medvill_jax.training.step import Objective
from medvill_jax.training.trainer import Trainer
from medvill_jax.trees import Tree


class Evaluator(Protocol):
    """Measures a state: parameters and statistics."""

    @property
    def names(self) -> Collection[str]:
        """The names of the metrics that `evaluate` returns."""
        ...

    def evaluate(self, state: Tree) -> dict[str, float]:
        """The held-out metrics while training, by names that begin with "eval/"."""
        ...

    def evaluate_best(self, step: int, state: Tree) -> dict[str, Any]:
        """All metrics of the checkpoint of a step on `config.eval.split`, written to the workdir too."""
        ...


def _nothing(evaluator: Any, state: Tree) -> dict[str, Any]:
    del evaluator, state
    return {}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One run of a task, taken apart.

    Attributes:
        stage: how an export names what the model was trained as.
        data: what it reads.
        network: what it trains.
        spec: of the global training batch.
        objective: what is minimised.
        train_records: the examples to train on, opened so that what is wrong with them shows before anything is
            compiled; None for random arrays. Their examples are rows of `spec`.
        evaluator: makes what measures a state, once the run has its devices.
        closing_lines: metrics beside their baselines, for a person.
        shared_in_batch: what an example's loss takes from the others of its microbatch beside BatchNorm's statistics,
            for a warning; all else is a sum over examples, and the same however the batch is cut.
        files: content by name, which the workdir gets before training.
        export_extra: what the export's config.json records of the task, JSON-like, from the evaluator and a state.
        plan: what an evaluation would take, said in its place; None where it is to be done.
    """

    stage: str
    data: Data
    network: Network
    spec: BatchSpec
    objective: Objective
    train_records: TrainRecords | None
    evaluator: Callable[[Evaluation], Evaluator]
    closing_lines: Callable[[dict[str, Any]], list[str]]
    shared_in_batch: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    export_extra: Callable[[Any, Tree], dict[str, Any]] = _nothing
    plan: Callable[[Trainer], list[str]] | None = None
