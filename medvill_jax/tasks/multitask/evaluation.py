"""Evaluation of all tasks, each by its own evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from medvill_jax import private
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.metrics.metrics_file import write_metrics
from medvill_jax.tasks import setup
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.multitask.report import METRICS_FILE, named
from medvill_jax.tasks.parts import Evaluator, Parts
from medvill_jax.trees import Tree

# The metric of every task, between 0 and 1, whose mean chooses the best checkpoint.
SCORES = {"findings": "auroc_macro", "report": "clinical_micro_f1_14", "ask": "accuracy", "match": "mrr"}
# That of reports where a run writes none while training: of the next word piece.
UNWRITTEN = "accuracy"
MEAN = "eval/mean"


class Multitask:
    """Measures every task by its own evaluator.

    Args:
        evaluation: of the run.
        parts: of each task.
        configs: of each task.
        folders: of each task, for what it writes.

    Attributes:
        of: the evaluator of each task.
        names: of the metrics of `evaluate`.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        parts: Mapping[str, Parts],
        configs: Mapping[str, setup.Config],
        folders: Mapping[str, Workdir],
    ):
        self._workdir, self._folders = evaluation.workdir, folders
        network, trainer = evaluation.network, evaluation.trainer
        self.of: dict[str, Evaluator] = {
            name: part.evaluator(Evaluation(configs[name], folders[name], network, trainer, part.spec))
            for name, part in parts.items()
        }
        found = [name for task, evaluator in self.of.items() for name in named(task, dict.fromkeys(evaluator.names))]
        self.names = (*found, MEAN)

    def evaluate(self, state: Tree) -> dict[str, float]:
        """The held-out metrics of every task, and `eval/mean`."""
        metrics: dict[str, float] = {}
        for task, evaluator in self.of.items():
            metrics |= named(task, evaluator.evaluate(state))
        chosen = {task: f"eval/{task}/{score}" for task, score in SCORES.items()}
        if chosen["report"] not in metrics:
            chosen["report"] = f"eval/report/{UNWRITTEN}"
        return metrics | {MEAN: float(np.mean([metrics[name] for name in chosen.values()]))}

    def evaluate_best(self, step: int, state: Tree) -> dict[str, Any]:
        """All metrics of every task, also written to the workdir; an interrupted evaluation goes on where tasks do."""
        metrics: dict[str, Any] = {}
        for task, evaluator in self.of.items():
            private.folder(self._folders[task].path)
            metrics |= named(task, evaluator.evaluate_best(step, state))
        if jax.process_index() == 0:
            write_metrics(self._workdir / METRICS_FILE, metrics)
        return metrics
