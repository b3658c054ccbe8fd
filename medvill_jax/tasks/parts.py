"""The parts of a task: its function `build(config, workdir)` returns `Parts`, from which the runner makes a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from medvill_jax.batch import BatchSpec
from medvill_jax.data.loader import Examples
from medvill_jax.tasks.data import Data
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.network import Network
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree


class Evaluator(Protocol):
    """Measures a state: parameters and statistics."""

    @property
    def names(self) -> Collection[str]:
        """The names of the metrics that `evaluate` returns."""
        ...

    def evaluate(self, state: Tree) -> dict[str, float]:
        """The held-out metrics while training; their names begin with "eval/"."""
        ...

    def evaluate_best(self, step: int, state: Tree) -> dict[str, Any]:
        """All metrics on `config.eval.split` of the checkpoint of a step, which it also writes to the workdir."""
        ...


def _nothing(evaluator: Any, state: Tree) -> dict[str, Any]:
    del evaluator, state
    return {}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of one run of a task.

    Attributes:
        stage: the name of this training in an export.
        data: of the run.
        network: of the run.
        spec: of the global training batch.
        objective: the losses that training minimises.
        train_records: the examples to train on, whose rows are those of `spec`; None for random arrays. They are open,
            so that damaged data are an error before anything is compiled. Those with texts are `data.TrainRecords`.
        evaluator: makes the evaluator, once the run has its devices.
        closing_lines: formats metrics next to their baselines, as text.
        shared_in_batch: what an example's loss takes from the other examples of its microbatch, other than BatchNorm's
            statistics: the start of a warning. All other losses are sums over examples, however the batch is split.
        files: content by file name, written to the workdir before training.
        export_extra: further entries of the export's config.json, JSON-like, from the evaluator and a state.
        plan: formats an estimate of the evaluation's time, which replaces the evaluation; None evaluates.
    """

    stage: str
    data: Data
    network: Network
    spec: BatchSpec
    objective: Objective
    train_records: Examples | None
    evaluator: Callable[[Evaluation], Evaluator]
    closing_lines: Callable[[dict[str, Any]], list[str]]
    shared_in_batch: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    export_extra: Callable[[Any, Tree], dict[str, Any]] = _nothing
    plan: Callable[[Evaluation], list[str]] | None = None
