"""Evaluation of report generation: next word pieces, and whole reports next to baselines."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

from medvill_jax.cluster import distributed
from medvill_jax.data import loader
from medvill_jax.data.examples import ReportRecords
from medvill_jax.metrics.predictions import Prediction
from medvill_jax.metrics.report_scores import metric_groups, perplexity, score
from medvill_jax.tasks import made_with as notes
from medvill_jax.tasks import subgroups
from medvill_jax.tasks.data import Data
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.generate.neighbours import Neighbours
from medvill_jax.tasks.generate.objective import next_word_sums
from medvill_jax.tasks.generate.report import MADE_WITH_FILE, SHUFFLED_FILE, write
from medvill_jax.tasks.generate.writing import Writer
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

# Training reports, evenly spaced, that the baselines choose from.
BASELINE_REPORTS = 20_000
# The metrics of an evaluation while training: of next word pieces, and of reports that the model writes.
NEXT_WORDS = ("eval/loss", "eval/loss_shuffled_images", "eval/perplexity", "eval/accuracy", "eval/examples")
WRITTEN = ("eval/bleu4", "eval/clinical_micro_f1_14", "eval/clinical_micro_f1_14_shuffled_images")
# Of subgroups.
MAIN = ("clinical_micro_f1_14", "clinical_macro_f1_14", "bleu4", "rouge_l")


class Generation:
    """Measures next word pieces and written reports.

    Args:
        evaluation: of the run.
        data: of the run.
        held_out: the records of `config.eval.split`.
        records_of: the records of a split.
        train_records: whose reports the baselines use; None for random arrays.

    Attributes:
        names: of the metrics of `evaluate`.
        writer: writes reports with the model; absent for random arrays.
        neighbours: finds the most similar films.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        data: Data,
        held_out: Callable[[], ReportRecords],
        records_of: Callable[[str], ReportRecords],
        train_records: ReportRecords | None,
    ):
        self._evaluation, self._config, self._workdir = evaluation, evaluation.config, evaluation.workdir
        self._held_out, self._records_of, self._train_records = held_out, records_of, train_records
        self._next_words = evaluation.jit(next_word_sums(evaluation.network, data.vocabulary.mask_id))
        self.neighbours = Neighbours(evaluation)
        self.names = (*NEXT_WORDS, *WRITTEN) if self._config.eval.generate_examples else NEXT_WORDS
        if not data.fake:
            self.writer = Writer(evaluation, data.tokenizer, held_out)

    def evaluate(self, state: Tree) -> dict[str, float]:
        """The metrics of next word pieces over some examples of the split, and of some written reports."""
        held_out = self._held_out()
        matched = self._words(state, own_image=True)
        shuffled = self._words(state, own_image=False)
        metrics = {
            "eval/loss": matched["loss"] / matched["words"],
            "eval/loss_shuffled_images": shuffled["loss"] / shuffled["words"],
            "eval/perplexity": perplexity(-matched["loss"], round(matched["words"])),
            "eval/accuracy": matched["correct"] / matched["words"],
            "eval/examples": matched["examples"],
        }
        count = min(self._config.eval.generate_examples, len(held_out))
        if count:
            chosen = loader.evenly(len(held_out), count).tolist()
            quick_score: Any = functools.partial(score, meteor=False, resamples=0)
            written = quick_score(list(self.writer.reports(state, chosen, own_image=True)))
            blind = quick_score(list(self.writer.reports(state, chosen, own_image=False)))
            metrics |= {f"eval/{name}": written[name] for name in ("bleu4", "clinical_micro_f1_14")}
            metrics["eval/clinical_micro_f1_14_shuffled_images"] = blind["clinical_micro_f1_14"]
        return metrics

    def evaluate_best(self, step: int, state: Tree) -> dict[str, Any]:
        """Writes and scores a report for every example of the split. An interrupted evaluation goes on.

        Raises:
            DataError: a report without a word.
        """
        config, split = self._config, self._config.eval.split
        log.info("writing the reports of %s with the best checkpoint, of step %d", split, step)
        decoder = {name: value for name, value in config.decode.to_dict().items() if name != "batch_size"}
        made_with = self._evaluation.made_with(step, state, self._held_out()) | {"decode": decoder}
        self._start_files(made_with)
        written = self.writer.to_file(state, notes.PREDICTIONS_FILE, own_image=True)
        blind = self.writer.to_file(state, SHUFFLED_FILE, own_image=False)
        words = self._words(state, own_image=True)
        nearest = self.nearest_films(state)
        if not distributed.is_first():
            return {}
        metrics: dict[str, Any] = {f"{split}/perplexity": perplexity(-words["loss"], round(words["words"]))}
        metrics |= self._scores(written, blind, nearest)
        write(self._workdir, metrics)
        self._write_subgroups(written, made_with)
        return metrics

    def _write_subgroups(self, written: list[Prediction], made_with: dict[str, Any]) -> None:
        held_out = self._held_out()
        subjects = held_out.subjects()
        # Only where there are groups to tell apart.
        measure = functools.cache(lambda: subgroups.score_of_sums(metric_groups(written), subjects, self._config.seed))
        characteristics = held_out.characteristics()
        subgroups.write(self._workdir, characteristics, subjects, lambda rows: measure()(rows), MAIN, made_with)

    def nearest_films(self, state: Tree) -> list[int]:
        """The training film most similar to each held-out film, as its place among `BASELINE_REPORTS` evenly spaced."""
        return self.neighbours.nearest(state, self._held_out(), self._records_of("train"), BASELINE_REPORTS)

    def _scores(self, written: list[Prediction], blind: list[Prediction], nearest: list[int]) -> dict[str, Any]:
        """Metrics of the written reports, and of the reports of the baselines."""
        split, train = self._config.eval.split, self._train_records
        if train is None:
            raise ValueError("random arrays have no reports")
        texts = [train.text(int(record)) for record in loader.evenly(len(train), BASELINE_REPORTS)]
        retrieved = [
            dataclasses.replace(row, hypothesis=texts[place], log_prob=None, hypothesis_labels=None)
            for row, place in zip(written, nearest, strict=True)
        ]
        metrics: dict[str, Any] = {}
        for name, value in score(written, train_texts=texts).items():
            metric = name.removeprefix("baseline_")
            metrics[f"{split}/{name}" if metric == name else f"baseline/most_frequent/{metric}"] = value
        for name, rows in (("nearest_neighbour", retrieved), ("shuffled_images", blind)):
            metrics |= {f"baseline/{name}/{key}": value for key, value in score(rows, meteor=False).items()}
        return metrics

    def _start_files(self, made_with: dict[str, Any]) -> None:
        """Deletes reports that were written by another checkpoint or decoder, or for other records."""
        note = self._workdir / MADE_WITH_FILE
        if distributed.is_first() and not notes.fits(note, made_with):
            for name in (notes.PREDICTIONS_FILE, SHUFFLED_FILE):
                (self._workdir / name).unlink(missing_ok=True)
            notes.write(note, made_with)

    def _words(self, state: Tree, *, own_image: bool) -> dict[str, float]:
        most = self._config.eval.max_examples
        return self._evaluation.sums(self._next_words, state, self._held_out(), most, own_image=own_image)
