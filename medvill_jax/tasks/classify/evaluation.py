"""Evaluation of classification: from logits and labels to metrics."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from medvill_jax.batch import Batch
from medvill_jax.data import loader
from medvill_jax.data.examples import LabelRecords
from medvill_jax.metrics import classification
from medvill_jax.tasks import subgroups
from medvill_jax.tasks.classify.objective import class_logits
from medvill_jax.tasks.classify.report import write
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.training.losses import binary_cross_entropy
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)


# Of an evaluation while training.
METRICS = (
    *("examples", "classes_undefined", "classes_absent", "classes_absent_false_alarms"),
    *(f"{metric}_{mean}" for metric in ("auroc", "auprc", "f1") for mean in ("macro", "micro")),
    *("ece", "f1_in_sample", "loss"),
)
# Of subgroups.
MAIN = ("auroc_macro", "auroc_micro", "f1_macro")


class Classification:
    """Measures how well findings are classified.

    Args:
        evaluation: of the run.
        names: of the classes.
        reads_report: whether the report is an input next to the image.
        records_of: the records of a split.
        train_records: whose labels the baseline counts; None for random arrays.

    Attributes:
        names: of the metrics of `evaluate`.
    """

    names = tuple(f"eval/{name}" for name in METRICS)

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        names: tuple[str, ...],
        reads_report: bool,
        records_of: Callable[[str], LabelRecords],
        train_records: LabelRecords | None,
    ):
        self._evaluation, self._config, self._names = evaluation, evaluation.config, names
        self._records_of, self._train_records = records_of, train_records
        network = evaluation.network

        def logits(params: Tree, stats: Tree, batch: Batch) -> jax.Array:
            return class_logits(network, network.model.bind(params, stats), batch, reads_report=reads_report)

        self._logits = evaluation.jit(logits)

    def evaluate(self, state: Tree) -> dict[str, float]:
        """The metrics of some examples of the split, at the thresholds of the validation split."""
        config = self._config.eval
        held_out = self._records_of(config.split)
        logits = self._evaluation.outputs(self._logits, state, held_out, config.max_examples)
        chosen = loader.evenly(len(held_out), config.max_examples)
        thresholds = None if self._in_sample else self.thresholds(state)
        metrics = self._score(logits, held_out, chosen, thresholds, resamples=0)
        return {f"eval/{name}": metrics[name] for name in METRICS}

    def evaluate_best(self, step: int, state: Tree) -> dict[str, Any]:
        """The metrics of every example of the split, with intervals and the baseline."""
        split = self._config.eval.split
        log.info("scoring %s with the best checkpoint, of step %d", split, step)
        held_out = self._records_of(split)
        everything, subjects = np.arange(len(held_out)), held_out.subjects()
        logits = self._evaluation.outputs(self._logits, state, held_out)
        validation = held_out if self._in_sample else self._records_of("validation")
        chosen_on = logits if self._in_sample else self._evaluation.outputs(self._logits, state, validation)
        prior, prior_validation = (
            np.tile(self._prior_logits, (len(split_records), 1)) for split_records in (held_out, validation)
        )
        thresholds = best_thresholds(chosen_on, validation)
        model = self._score(logits, held_out, everything, thresholds, clusters=subjects)
        baseline = self._score(prior, held_out, everything, best_thresholds(prior_validation, validation), resamples=0)
        metrics = {f"{split}/{name}": value for name, value in model.items()}
        metrics |= {f"baseline/prevalence/{name}": value for name, value in baseline.items() if "/" not in name}
        made_with = self._evaluation.made_with(step, state, held_out)
        if jax.process_index() == 0:
            truth, known = binary(held_out)
            write(
                self._evaluation.workdir,
                metrics,
                sigmoid(logits),
                truth,
                known,
                held_out,
                split=split,
                names=self._names,
                subjects=subjects,
                made_with=made_with,
            )

            def score(rows: np.ndarray) -> dict[str, Any]:
                if not known[rows].any():
                    return {}
                return self._score(logits[rows], held_out, rows, thresholds, clusters=subjects[rows])

            workdir = self._evaluation.workdir
            subgroups.write(workdir, held_out.characteristics(), subjects, score, MAIN, made_with)
        return metrics

    def thresholds(self, state: Tree) -> np.ndarray:
        """The thresholds, float `[C]`, that maximise F1 on the validation split."""
        validation = self._records_of("validation")
        return best_thresholds(self._evaluation.outputs(self._logits, state, validation), validation)

    @property
    def _in_sample(self) -> bool:
        """Whether thresholds are chosen on the examples that are scored."""
        return self._config.eval.split == "validation"

    def _score(
        self,
        logits: np.ndarray,
        held_out: LabelRecords,
        chosen: np.ndarray,
        thresholds: np.ndarray | None,
        **resampling: Any,
    ) -> dict[str, Any]:
        """All metrics of some examples, at the thresholds, or, if None, at those that are best on these examples."""
        truth, known = (array[chosen] for array in binary(held_out))
        probabilities = sigmoid(logits)
        if thresholds is None:
            thresholds = classification.best_thresholds(probabilities, truth, known)
        metrics: dict[str, Any] = classification.score(
            probabilities, truth, known, self._names, thresholds, seed=self._config.seed, **resampling
        )
        metrics["f1_in_sample"] = float(self._in_sample)
        losses = binary_cross_entropy(logits, held_out.targets[chosen])
        weights = held_out.target_weights[chosen]
        return metrics | {"loss": float((losses * weights).sum() / max(weights.sum(), 1.0))}

    @functools.cached_property
    def _prior_logits(self) -> np.ndarray:
        """float `[C]`, the log-odds of each finding in the training records: the baseline's answer for every film."""
        train = self._train_records
        if train is None:
            raise ValueError("random arrays have no prevalence")
        positive = (train.targets * train.target_weights).sum(0) + 0.5
        return np.log(positive / (train.target_weights.sum(0) + 1 - positive))


def binary(held_out: LabelRecords) -> tuple[np.ndarray, np.ndarray]:
    """Truth and known labels, bool `[n, C]` each: a label that counts is known unless its target is 0.5."""
    known = (held_out.target_weights > 0) & (held_out.targets != 0.5)
    return held_out.targets > 0.5, known


def best_thresholds(logits: np.ndarray, chosen_on: LabelRecords) -> np.ndarray:
    """The thresholds, float `[C]`, that maximise F1 of logits `[n, C]` on their records."""
    return classification.best_thresholds(sigmoid(logits), *binary(chosen_on))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The probabilities float64 of logits of any shape, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))
