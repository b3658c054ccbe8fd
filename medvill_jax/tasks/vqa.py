"""Visual question answering (paper section IV; docs/spec.md#vqa): an answer out of those of the training questions.

The vocabulary (docs/spec.md#vqa-answers) holds the answers of the questions that are trained on: not of those that
`data.holdout` sets aside or `data.fraction` leaves out. The run keeps it as `answers.json`, for evaluations and the
export.

The head reads the product of the states of [CLS] and of the image block's [SEP], or [CLS] alone (`config.summary`).
`config.targets`: "soft" scores every answer by itself (binary cross entropy, summed over the vocabulary, a question
whose answer is not in it having no positive); "hard" makes them compete (softmax). An answer outside the vocabulary
counts as wrong.

Held-out figures while training, `eval/...`: `accuracy`, `accuracy_closed`, `accuracy_open`, every question exactly
once. `--eval_only` answers all of `config.eval.split` and writes `metrics.json`: accuracies as `SPLIT/...`, by
organ and by type of question too, `SPLIT/outside_vocabulary` (the share of questions whose answer could not be given),
and two baselines, `baseline/majority/...` (the most frequent training answer to questions of that answer type) and
`baseline/question_only/...` (the same model shown a black image); and `predictions.jsonl`, a row per question.
Intervals resample subjects: all questions about a film or a patient together, whichever the data's `subject_id` names.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax import private
from medvill_jax.batch import Batch, BatchSpec, vqa_spec
from medvill_jax.cluster import distributed
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data import loader, records
from medvill_jax.data.examples import HostBatch, QuestionRecords
from medvill_jax.errors import ConfigError
from medvill_jax.metrics import bootstrap, vqa
from medvill_jax.metrics.metrics_file import write_metrics
from medvill_jax.models.finetuned import FUSIONS, SUMMARIES, Finetuned, HeadsConfig
from medvill_jax.tasks import base, setup
from medvill_jax.tasks import made_with as notes
from medvill_jax.training.losses import binary_cross_entropy, cross_entropy_sum
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

TARGETS = ("soft", "hard")
PREDICTIONS_FILE = "predictions.jsonl"
METRICS_FILE = "metrics.json"
# The published number of answers of VQA-RAD, for runs on random arrays.
PUBLISHED_ANSWERS = 458
# Columns of the records by which accuracies are told apart.
GROUPS = ("answer_type", "organ", "question_type")


class Task(base.Task):
    """Visual question answering; see the module's docstring."""

    stage = "vqa"
    unused = (r"(mlm|itm|pooler)/.*",)

    def __init__(self, config: setup.Config, workdir: Workdir | Path):
        setup.require_known(config, {"summary": SUMMARIES, "targets": TARGETS, "fusion": FUSIONS})
        setup.require_meeting(config)
        if config.data.folds:
            raise ConfigError("data.folds: the answers of a VQA data set are those of its own training questions")
        if config.fusion == "late":
            self.unused = (r"(mlm|itm)/.*",)
        super().__init__(config, workdir)
        self._logits = self.trainer.jit(self._eval_logits)

    @functools.cached_property
    def answers(self) -> tuple[str, ...]:
        """The vocabulary: the run's own, once there is one."""
        own = self.workdir / records.ANSWERS_FILE
        if own.is_file():
            return tuple(json.loads(own.read_text("utf-8")))
        if self.fake:
            return tuple(f"answer {number}" for number in range(PUBLISHED_ANSWERS))
        return records.answers(self.config.data.path, self._rows("train", train=True)[1])

    def heads(self) -> HeadsConfig:
        return HeadsConfig(answers=len(self.answers), fusion=self.config.fusion)

    def batch_spec(self) -> BatchSpec:
        config = self.config
        return vqa_spec(config.batch_size, image_size=config.model.image_size, text_len=config.model.text_len)

    def open_data(self) -> None:
        self.train_records = self._records("train", train=True)

    def fit(self) -> dict[str, float] | None:
        """As `base.Task.fit`."""
        if not self.fake and distributed.is_first():
            # What an output means is the run's, whichever rows a later evaluation sets aside.
            private.folder(self.workdir.path)
            content = json.dumps(self.answers, indent=0, ensure_ascii=False) + "\n"
            private.write(self.workdir / records.ANSWERS_FILE, content)
        return super().fit()

    def objective(self) -> Objective:
        return Objective(self._train_sums, self._train_weights, {"answer_loss": 1.0})

    def host_batches(self, start_step: int) -> Iterator[HostBatch]:
        return self.shuffled_batches(self.train_records, start_step)

    def closing_lines(self, figures: dict[str, Any]) -> list[str]:
        split = self.config.eval.split
        if "eval/accuracy" in figures:
            overall, closed, of_open = (figures[f"eval/accuracy{kind}"] for kind in ("", "_closed", "_open"))
            return [
                f"held out ({split}, {figures['eval/questions']:.0f} questions):",
                f"  accuracy {overall:.3f}, closed {closed:.3f}, open {of_open:.3f}",
                "beside baselines: the same command with --eval_only --config.eval.split=test",
            ]
        lines = [
            f"{figures[f'{split}/questions']:.0f} questions of {split}, {len(self.answers)} answers, "
            f"{100 * figures[f'{split}/outside_vocabulary']:.1f} % of the right ones not among them:",
            f"  {'':<16}{'model':>7}  {'95 % interval':>16}  {'majority answer':>15}  {'question only':>13}",
        ]
        for row in ("accuracy", "accuracy_closed", "accuracy_open"):
            low, high = figures.get(f"{split}/{row}_ci95", (float("nan"),) * 2)
            lines.append(
                f"  {row:<16}{figures[f'{split}/{row}']:>7.3f}    [{low:.3f}, {high:.3f}]"
                f"  {figures[f'baseline/majority/{row}']:>15.3f}  {figures[f'baseline/question_only/{row}']:>13.3f}"
            )
        return [*lines, bootstrap.resampled_words(figures, f"{split}/"), f"all metrics: {self.workdir / METRICS_FILE}"]

    def evaluate(self, state: Tree) -> dict[str, float]:
        """See the module's docstring."""
        split, most = self.config.eval.split, self.config.eval.max_examples
        held_out = self._records(split)
        shown = loader.evenly(len(held_out), most)
        logits = self.outputs(self._logits, state, held_out, most)
        types = self._columns(split, ("answer_type",))["answer_type"]
        right = logits.argmax(1) == held_out.answer_ids[shown]
        figures: dict[str, Any] = vqa.score(right, {"answer_type": [types[row] for row in shown]}, resamples=0)
        names = ("questions", "accuracy", "accuracy_closed", "accuracy_open")
        return {f"eval/{name}": figures[name] for name in names}

    def evaluate_best(self) -> dict[str, Any]:
        """Answers every question of `config.eval.split`; see the module's docstring."""
        self.require_data()
        step, state, _ = self.trainer.best_state()
        split = self.config.eval.split
        log.info("answering the questions of %s with the best checkpoint, of step %d", split, step)
        held_out = self._records(split)
        columns = self._columns(split, (*GROUPS, "answer"))
        groups = {name: columns[name] for name in GROUPS}
        train = self._columns("train", ("answer", "answer_type"), train=True)
        subjects = held_out.subjects()
        logits = self.outputs(self._logits, state, held_out)
        blind = self.outputs(self._logits, state, held_out, blank=True)
        majority = np.array(vqa.majority(train["answer"], train["answer_type"], groups["answer_type"]))
        rows = {
            split: logits.argmax(1) == held_out.answer_ids,
            "baseline/majority": majority == np.array(columns["answer"]),
            "baseline/question_only": blind.argmax(1) == held_out.answer_ids,
        }
        figures: dict[str, Any] = {f"{split}/outside_vocabulary": float((held_out.answer_ids < 0).mean())}
        for prefix, right in rows.items():
            found = vqa.score(right, groups, clusters=subjects, seed=self.config.seed)
            figures |= {f"{prefix}/{name}": value for name, value in found.items()}
        made_with = self.made_with(step, state, held_out)
        if jax.process_index() == 0:
            write_metrics(self.workdir / METRICS_FILE, figures)
            lines = (
                {
                    "id": held_out.identifier(record),
                    "answer": columns["answer"][record],
                    "predicted": self.answers[best],
                    "answer_type": columns["answer_type"][record],
                    "subject": int(subjects[record]),
                }
                for record, best in enumerate(logits.argmax(1))
            )
            notes.write_rows(self.workdir / PREDICTIONS_FILE, lines, made_with)
        return figures

    def export_extra(self, state: Tree) -> dict[str, Any]:
        del state
        return {"summary": self.config.summary, "fusion": self.config.fusion, "answers": list(self.answers)}

    def _records(self, split: str, *, train: bool = False) -> QuestionRecords:
        return QuestionRecords(answers=self.answers, **self.records_options(split, train=train))

    def _columns(self, split: str, names: tuple[str, ...], *, train: bool = False) -> dict[str, list[str]]:
        """Text features of the records that `_records` gives, in their order."""
        options = self.records_options(split, train=train)
        columns = records.read_columns(options["data_dir"], options["split"], list(names))
        rows = slice(None) if options["rows"] is None else options["rows"]
        return {name: columns[name][rows].tolist() for name in names}

    def _train_weights(self, batch: Batch) -> dict[str, jax.Array]:
        return {"answer_loss": jnp.sum(batch["weights"])}

    def _train_sums(self, params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        module = self.model.bind(params, stats)
        logits = self._answer_logits(module, batch, key=key, train=True)
        known = batch["answer_weights"] * batch["weights"]
        if self.config.targets == "hard":
            loss = cross_entropy_sum(logits, batch["answers"], known)
        else:
            targets = jax.nn.one_hot(batch["answers"], len(self.answers)) * batch["answer_weights"][:, None]
            loss = jnp.sum(binary_cross_entropy(logits, targets) * batch["weights"][:, None])
        return {"answer_loss": loss}, self.model.stats_of(module)

    def _eval_logits(self, params: Tree, stats: Tree, batch: Batch) -> jax.Array:
        return self._answer_logits(self.model.bind(params, stats), batch)

    def _answer_logits(
        self, module: Finetuned, batch: Batch, *, key: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        features = module.image_features(batch["image"], train=train, frozen=self.frozen_parts)
        cells = self.sample_cells(key, features.shape[0]) if train else None
        product = self.config.summary == "product"
        summary = module.summary(features, batch["text_ids"], batch["text_lens"], cells=cells, product=product, key=key)
        return module.answer_logits(summary)
