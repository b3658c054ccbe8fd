"""Diagnosis classification (paper section IV; docs/spec.md#classification): which findings a study has.

The model reads the image alone (`config.inputs=image`), or image and report under the bidirectional mask
(`image+report`). Labels are read from reports, so a model that reads the report has the answer before it; its figures
say how well it copies, not how well it looks.

The loss is binary cross entropy, averaged over the labels that count: `config.labels` says what uncertain and
unmentioned ones are, and what its positive term weighs. Held-out figures while training, `eval/...`: `loss`, and
AUROC, AUPRC, F1 and calibration error (`metrics.classification`), every example exactly once. F1 is at thresholds that
maximise it on the validation split; they go into the export. Where that is the split that is scored, F1 is in-sample,
higher than it would be elsewhere, and `f1_in_sample` is 1 (else 0).

`--eval_only` scores the best checkpoint on `config.eval.split`, with thresholds from the validation split, and writes
`metrics.json` (`SPLIT/...`, beside `baseline/prevalence/...`, what answering with each finding's frequency in training
achieves, at thresholds of its own from the validation split), `predictions.jsonl` (a row per example: id,
probabilities, labels, and a number that examples of one subject share) and `reliability.png`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.batch import Batch, BatchSpec, classify_spec
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data import loader, records
from medvill_jax.data.examples import HostBatch, LabelRecords
from medvill_jax.data.labels import positive_weights
from medvill_jax.errors import ConfigError
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS
from medvill_jax.metrics import bootstrap, classification, plots
from medvill_jax.metrics.metrics_file import write_metrics
from medvill_jax.models.finetuned import Finetuned, HeadsConfig
from medvill_jax.tasks import base, setup
from medvill_jax.tasks import made_with as notes
from medvill_jax.training.losses import binary_cross_entropy
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

INPUTS = ("image", "image+report")
PREDICTIONS_FILE = "predictions.jsonl"
METRICS_FILE = "metrics.json"
PLOT_FILE = "reliability.png"


class Task(base.Task):
    """Classification; see the module's docstring."""

    stage = "classification"
    unused = (r"(mlm|itm)/.*",)

    def __init__(self, config: setup.Config, workdir: Workdir | Path):
        setup.require_known(config, {"inputs": INPUTS})
        self._reads_report = config.inputs == "image+report"
        if config.fusion == "late" and not self._reads_report:
            raise ConfigError("fusion=late joins image and report: set --config.inputs=image+report")
        if config.labels.positive_weight not in ("none", "balanced"):
            raise ConfigError(f"labels.positive_weight={config.labels.positive_weight!r}; there are none, balanced")
        if self._reads_report:
            setup.require_meeting(config)
            log.warning("inputs=image+report: the labels were read from these reports, so expect near-perfect figures")
        self.names = CHEXPERT_FINDINGS
        if config.data.path not in ("", base.FAKE):
            self.names = records.label_names(config.data.path)
        super().__init__(config, workdir)
        self._logits = self.trainer.jit(self._eval_logits)

    def heads(self) -> HeadsConfig:
        return HeadsConfig(classes=len(self.names), fusion=self.config.fusion, cells=self.config.cells)

    def batch_spec(self) -> BatchSpec:
        config = self.config
        return classify_spec(
            config.batch_size,
            image_size=config.model.image_size,
            text_len=config.model.text_len if self._reads_report else 0,
            classes=len(self.names),
        )

    def open_data(self) -> None:
        self.train_records = self._records("train", train=True)
        weights = self.train_records.target_weights
        positive = (self.train_records.targets * weights).sum(0)
        if not weights.any():
            raise records.DataError(f"no training record of {self.config.data.path} has a label that counts")
        if empty := [name for name, count in zip(self.names, positive, strict=True) if not count]:
            log.warning("no positive example to learn from: %s", ", ".join(empty))
        if unlabelled := int((self.train_records.labels == ABSENT).all(1).sum()):
            log.warning(
                "%d of %d training records have no label at all; with labels.absent=%s they %s",
                unlabelled,
                len(self.train_records),
                self.config.labels.absent,
                "count as negative throughout" if self.config.labels.absent == "negative" else "are left out",
            )

    def objective(self) -> Objective:
        return Objective(self._train_sums, self._train_weights, {"label_loss": 1.0})

    def host_batches(self, start_step: int) -> Iterator[HostBatch]:
        return self.shuffled_batches(self.train_records, start_step)

    def closing_lines(self, figures: dict[str, Any]) -> list[str]:
        split = self.config.eval.split
        kind = split if f"{split}/examples" in figures else "eval"
        rows = ("auroc_macro", "auroc_micro", "auprc_macro", "f1_macro", "ece")
        lines = [f"{figures[f'{kind}/examples']:.0f} examples of {split}, inputs {self.config.inputs}:"]
        for row in rows:
            low, high = figures.get(f"{kind}/{row}_ci95", (None, None))
            interval = f"   [{low:.3f}, {high:.3f}]" if low is not None else ""
            baseline = figures.get(f"baseline/prevalence/{row}")
            beside = f"   prevalence {baseline:.3f}" if baseline is not None else ""
            if row == "f1_macro" and figures.get(f"{kind}/f1_in_sample"):
                beside += "   in-sample: thresholds chosen on these examples"
            lines.append(f"  {row:<12}{figures[f'{kind}/{row}']:>7.3f}{interval}{beside}")
        if absent := figures.get(f"{kind}/classes_absent"):
            alarms = figures[f"{kind}/classes_absent_false_alarms"]
            lines.append(f"  {absent:.0f} classes have no positive and are not in f1_macro; {alarms:.0f} false alarms")
        if undefined := figures[f"{kind}/classes_undefined"]:
            lines.append(f"  {undefined:.0f} of {len(self.names)} classes have no AUROC here: one side has no example")
        if kind == "eval":
            return [*lines, "the test split, once: the same command with --eval_only --config.eval.split=test"]
        lines.append(bootstrap.resampled_words(figures, f"{split}/"))
        return [*lines, f"all metrics: {self.workdir / METRICS_FILE}, calibration: {self.workdir / PLOT_FILE}"]

    def evaluate(self, state: Tree) -> dict[str, float]:
        """See the module's docstring."""
        held_out = self._records(self.config.eval.split)
        logits = self.outputs(self._logits, state, held_out, self.config.eval.max_examples)
        shown = loader.evenly(len(held_out), self.config.eval.max_examples)
        thresholds = None if self._in_sample else self._thresholds(state)
        figures = self._score(logits, held_out, shown, thresholds, resamples=0)
        return {f"eval/{name}": value for name, value in figures.items() if "/" not in name}

    def evaluate_best(self) -> dict[str, Any]:
        """Scores every example of `config.eval.split`; see the module's docstring."""
        self.require_data()
        step, state, _ = self.trainer.best_state()
        split = self.config.eval.split
        log.info("scoring %s with the best checkpoint, of step %d", split, step)
        held_out = self._records(split)
        everyone, subjects = np.arange(len(held_out)), held_out.subjects()
        logits = self.outputs(self._logits, state, held_out)
        validation = held_out if self._in_sample else self._records("validation")
        chosen_on = logits if self._in_sample else self.outputs(self._logits, state, validation)
        prior, prior_validation = (np.tile(self._prior_logits, (len(each), 1)) for each in (held_out, validation))
        own = self._score(logits, held_out, everyone, _thresholds(chosen_on, validation), clusters=subjects)
        alone = self._score(prior, held_out, everyone, _thresholds(prior_validation, validation), resamples=0)
        figures = {f"{split}/{name}": value for name, value in own.items()}
        figures |= {f"baseline/prevalence/{name}": value for name, value in alone.items() if "/" not in name}
        made_with = self.made_with(step, state, held_out)
        if jax.process_index() == 0:
            self._write(figures, logits, held_out, subjects, made_with)
        return figures

    def export_extra(self, state: Tree) -> dict[str, Any]:
        thresholds = self._thresholds(state)
        return {"inputs": self.config.inputs, "fusion": self.config.fusion, "thresholds": thresholds.tolist()}

    @property
    def _in_sample(self) -> bool:
        """Whether the examples that are scored are those that thresholds are chosen on."""
        return self.config.eval.split == "validation"

    def _write(
        self,
        figures: dict[str, Any],
        logits: np.ndarray,
        held_out: LabelRecords,
        subjects: np.ndarray,
        made_with: dict[str, Any],
    ) -> None:
        write_metrics(self.workdir / METRICS_FILE, figures)
        probabilities = _sigmoid(logits)
        rows = (
            {
                "id": held_out.identifier(record),
                "probabilities": dict(zip(self.names, row.tolist(), strict=True)),
                "labels": {n: int(v) for n, v in zip(self.names, labels, strict=True) if v != ABSENT},
                "subject": int(subjects[record]),
            }
            for record, (row, labels) in enumerate(zip(probabilities, held_out.labels, strict=True))
        )
        notes.write_rows(self.workdir / PREDICTIONS_FILE, rows, made_with)
        truth, known = _binary(held_out)
        curves = {
            name: classification.reliability(probabilities[:, c], truth[:, c], known[:, c])
            for c, name in enumerate(self.names)
        }
        plots.reliability_plot(
            self.workdir / PLOT_FILE,
            classification.reliability(probabilities, truth, known),
            curves,
            title=f"Reliability on {self.config.eval.split}",
            ece=figures[f"{self.config.eval.split}/ece"],
        )

    def _score(
        self,
        logits: np.ndarray,
        held_out: LabelRecords,
        shown: np.ndarray,
        thresholds: np.ndarray | None,
        **resampling: Any,
    ) -> dict[str, Any]:
        """All figures of some examples, at thresholds that are given, or else chosen on these examples."""
        truth, known = (array[shown] for array in _binary(held_out))
        probabilities = _sigmoid(logits)
        if thresholds is None:
            thresholds = classification.best_thresholds(probabilities, truth, known)
        figures: dict[str, Any] = classification.score(
            probabilities, truth, known, self.names, thresholds, seed=self.config.seed, **resampling
        )
        figures["f1_in_sample"] = float(self._in_sample)
        losses = binary_cross_entropy(logits, held_out.targets[shown])
        weights = held_out.target_weights[shown]
        return figures | {"loss": float((losses * weights).sum() / max(weights.sum(), 1.0))}

    def _thresholds(self, state: Tree) -> np.ndarray:
        """float `[C]`, those that maximise F1 on the validation split."""
        validation = self._records("validation")
        return _thresholds(self.outputs(self._logits, state, validation), validation)

    @functools.cached_property
    def _prior_logits(self) -> np.ndarray:
        train = self.train_records
        positive = (train.targets * train.target_weights).sum(0) + 0.5
        return np.log(positive / (train.target_weights.sum(0) + 1 - positive))

    @functools.cached_property
    def _positive_weights(self) -> np.ndarray:
        if self.config.labels.positive_weight == "none" or self.fake:
            return np.ones(len(self.names), np.float32)
        return positive_weights(self.train_records.targets, self.train_records.target_weights)

    def _records(self, split: str, *, train: bool = False) -> LabelRecords:
        labels = self.config.labels
        return LabelRecords(
            report=self._reads_report,
            uncertain=labels.uncertain,
            absent=labels.absent,
            **self.records_options(split, train=train),
        )

    def _train_weights(self, batch: Batch) -> dict[str, jax.Array]:
        return {"label_loss": jnp.sum(batch["target_weights"] * batch["weights"][:, None])}

    def _train_sums(self, params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        module = self.model.bind(params, stats)
        logits = self._class_logits(module, batch, key=key, train=True)
        losses = binary_cross_entropy(logits, batch["targets"], self._positive_weights)  # [B, C]
        weights = batch["target_weights"] * batch["weights"][:, None]
        return {"label_loss": jnp.sum(losses * weights)}, self.model.stats_of(module)

    def _eval_logits(self, params: Tree, stats: Tree, batch: Batch) -> jax.Array:
        return self._class_logits(self.model.bind(params, stats), batch)

    def _class_logits(
        self, module: Finetuned, batch: Batch, *, key: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        features = module.image_features(batch["image"], train=train, frozen=self.frozen_parts)
        cells = self.sample_cells(key, features.shape[0]) if train else None
        text = (batch["text_ids"], batch["text_lens"]) if self._reads_report else ()
        return module.class_logits(module.summary(features, *text, cells=cells, key=key))


def _binary(held_out: LabelRecords) -> tuple[np.ndarray, np.ndarray]:
    """Truth bool `[n, C]`, and which labels are known: all that count but those with a target of one half."""
    known = (held_out.target_weights > 0) & (held_out.targets != 0.5)
    return held_out.targets > 0.5, known


def _thresholds(logits: np.ndarray, chosen_on: LabelRecords) -> np.ndarray:
    """float `[C]`, those that maximise F1 of logits `[n, C]` on their records."""
    return classification.best_thresholds(_sigmoid(logits), *_binary(chosen_on))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))
