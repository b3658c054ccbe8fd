"""Evaluation of question answering: accuracies next to baselines that do not look at the image."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from medvill_jax.batch import Batch
from medvill_jax.data import loader, records
from medvill_jax.data.examples import QuestionRecords
from medvill_jax.metrics import vqa
from medvill_jax.tasks import subgroups
from medvill_jax.tasks.data import Data
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.vqa.objective import answer_logits
from medvill_jax.tasks.vqa.report import write
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

# Columns of the records by which accuracies are grouped.
GROUPS = ("answer_type", "organ", "question_type")
# Of an evaluation while training.
METRICS = ("questions", "accuracy", "accuracy_closed", "accuracy_open")
# Of subgroups.
MAIN = ("accuracy", "accuracy_closed", "accuracy_open")


class Answering:
    """Measures how well questions are answered.

    Args:
        evaluation: of the run.
        answers: the vocabulary.
        data: of the run.
        records_of: the records of a split.

    Attributes:
        names: of the metrics of `evaluate`.
    """

    names = tuple(f"eval/{name}" for name in METRICS)

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        answers: tuple[str, ...],
        data: Data,
        records_of: Callable[[str], QuestionRecords],
    ):
        self._evaluation, self._config = evaluation, evaluation.config
        self._answers, self._data, self._records_of = answers, data, records_of
        network = evaluation.network

        def logits(params: Tree, stats: Tree, batch: Batch) -> jax.Array:
            return answer_logits(network, evaluation.config, network.model.bind(params, stats), batch)

        self._logits = evaluation.jit(logits)

    def evaluate(self, state: Tree) -> dict[str, float]:
        """Accuracies over some questions of the split."""
        split, most = self._config.eval.split, self._config.eval.max_examples
        held_out = self._records_of(split)
        chosen = loader.evenly(len(held_out), most)
        logits = self._evaluation.outputs(self._logits, state, held_out, most)
        types = self._columns(split, ("answer_type",))["answer_type"]
        right = logits.argmax(1) == held_out.answer_ids[chosen]
        metrics: dict[str, Any] = vqa.score(right, {"answer_type": [types[row] for row in chosen]}, resamples=0)
        return {f"eval/{name}": metrics[name] for name in METRICS}

    def evaluate_best(self, step: int, state: Tree) -> dict[str, Any]:
        """Accuracies over every question of the split, with intervals and baselines."""
        split = self._config.eval.split
        log.info("answering the questions of %s with the best checkpoint, of step %d", split, step)
        held_out = self._records_of(split)
        columns = self._columns(split, (*GROUPS, "answer"))
        groups = {name: columns[name] for name in GROUPS}
        train = self._columns("train", ("answer", "answer_type"), train=True)
        subjects = held_out.subjects()
        logits = self._evaluation.outputs(self._logits, state, held_out)
        blind = self._evaluation.outputs(self._logits, state, held_out, blank=True)
        majority = np.array(vqa.majority(train["answer"], train["answer_type"], groups["answer_type"]))
        rows = {
            split: logits.argmax(1) == held_out.answer_ids,
            "baseline/majority": majority == np.array(columns["answer"]),
            "baseline/question_only": blind.argmax(1) == held_out.answer_ids,
        }
        metrics: dict[str, Any] = {f"{split}/outside_vocabulary": float((held_out.answer_ids < 0).mean())}
        for prefix, right in rows.items():
            values = vqa.score(right, groups, clusters=subjects, seed=self._config.seed)
            metrics |= {f"{prefix}/{name}": value for name, value in values.items()}
        made_with = self._evaluation.made_with(step, state, held_out)
        if jax.process_index() == 0:
            predicted = [self._answers[best] for best in logits.argmax(1)]
            workdir, seed = self._evaluation.workdir, self._config.seed
            write(workdir, metrics, held_out, columns, predicted, subjects, made_with)
            right, types = rows[split], columns["answer_type"]

            def score(some: np.ndarray) -> dict[str, Any]:
                own = {"answer_type": [types[row] for row in some]}
                return dict(vqa.score(right[some], own, clusters=subjects[some], seed=seed))

            subgroups.write(workdir, held_out.characteristics(), subjects, score, MAIN, made_with)
        return metrics

    def _columns(self, split: str, names: tuple[str, ...], *, train: bool = False) -> dict[str, list[str]]:
        """Columns of strings of the records of a split, in their order."""
        source, rows = self._data.splits.rows(split, train=train)
        columns = records.read_columns(records.place(self._config.data.path), source, list(names))
        return {name: columns[name][slice(None) if rows is None else rows].tolist() for name in names}
