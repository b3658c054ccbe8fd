"""Report generation: fine-tuning under the s2s mask (SPEC sections 7 and 8).

Two objectives, `config.objective`:

* `causal`: every word and the final [SEP] is predicted from the image and the words before it, with a [MASK] as query,
  which is what a decoder asks; all positions in one pass (`models.causal`).
* `masked`: some positions are hidden behind [MASK] and predicted from the image and what stands before them, as
  published, with a ratio of one's choice.

Held-out figures while training (`eval/...`):

* of next words, the report as written standing before each, [SEP] counted, every report exactly once: `loss` (nats a
  word piece), `perplexity` (its exponential over the whole split), `accuracy`, and `loss_shuffled_images`, each report
  facing another study's image;
* of reports that the model writes by itself, over `config.eval.generate_examples` fixed examples: `bleu4`,
  `clinical_micro_f1_14` (`metrics.generation`), and the latter with shuffled images.

`--eval_only` writes a report for every example of `config.eval.split` into `predictions.jsonl`, and `metrics.json`: all
figures of `metrics.generation` as `SPLIT/...`, and those of two baselines, `baseline/most_frequent/...` (the most
frequent training report) and `baseline/shuffled_images/...` (the same model shown another study's image).
"""

from __future__ import annotations

import functools
import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from medvill_jax.batch import Batch, BatchSpec, report_spec
from medvill_jax.data import loader
from medvill_jax.data.examples import HostBatch, ReportRecords
from medvill_jax.data.tokenizer import SPECIAL_TOKENS
from medvill_jax.data.transforms import MlmConfig
from medvill_jax.hub import generation
from medvill_jax.metrics import clinical, predictions, text
from medvill_jax.metrics.generation import score
from medvill_jax.metrics.predictions import Prediction
from medvill_jax.models import medvill
from medvill_jax.models.causal import next_word_states
from medvill_jax.tasks import base, setup
from medvill_jax.training.losses import correct_sum, cross_entropy_sum
from medvill_jax.training.policy import Tree
from medvill_jax.training.step import Objective

log = logging.getLogger(__name__)

OBJECTIVES = ("causal", "masked")
PREDICTIONS_FILE = "predictions.jsonl"
SHUFFLED_FILE = "predictions_shuffled_images.jsonl"
# What the prediction files were made with; another checkpoint or decoder starts them anew.
MADE_WITH_FILE = "predictions.json"
METRICS_FILE = "metrics.json"
# Enough training reports to know the most frequent one.
BASELINE_REPORTS = 20_000


class Task(base.Task):
    """Report generation; see the module's docstring."""

    stage = "generation"

    def __init__(self, config: setup.Config, workdir: Path):
        if config.objective not in OBJECTIVES:
            raise ValueError(f"objective={config.objective!r}; there are {', '.join(OBJECTIVES)}")
        if config.model.attention != "s2s":
            raise ValueError(f"model.attention={config.model.attention!r}: reports are written under s2s")
        # A missing library shows now, not at the first evaluation.
        text.bleu_counts(["word"], ["word"])
        super().__init__(config, workdir)
        self._eval_step = jax.jit(self._eval_sums)
        self._write = jax.jit(self._written)
        if not self.fake:
            special: dict[str, int] = dict(zip(SPECIAL_TOKENS, self.tokenizer.special_ids, strict=True))
            self._words = generation.Words(special, self.tokenizer)
            self._writing = self._words.writing(
                self.model_config,
                beams=config.decode.beam_size,
                max_len=config.decode.max_len,
                min_len=0,
                no_repeat_ngram=config.decode.no_repeat_ngram,
                banned=None,
                length_penalty=config.decode.length_penalty,
            )

    @property
    def _causal(self) -> bool:
        return self.config.objective == "causal"

    def batch_spec(self) -> BatchSpec:
        config = self.config
        return report_spec(
            config.batch_size,
            image_size=config.model.image_size,
            text_len=config.model.text_len,
            max_predictions=0 if self._causal else config.mask.max_predictions,
        )

    def open_data(self) -> None:
        self.train_records = self._records("train", train=True)

    def objective(self) -> Objective:
        return Objective(self._train_sums, self._train_weights, {"word_loss": 1.0})

    def closing_lines(self, figures: dict[str, float]) -> list[str]:
        split = self.config.eval.split
        if f"{split}/bleu4" not in figures:
            lines = [
                f"held out ({split}, {figures['eval/examples']:.0f} examples):",
                f"  next word      perplexity {figures['eval/perplexity']:.3f}, "
                f"accuracy {figures['eval/accuracy']:.3f}",
                f"  loss           {figures['eval/loss']:.3f}   shuffled images "
                f"{figures['eval/loss_shuffled_images']:.3f}",
            ]
            if "eval/clinical_micro_f1_14" in figures:
                lines.append(
                    f"  clinical F1    {figures['eval/clinical_micro_f1_14']:.3f}   shuffled images "
                    f"{figures['eval/clinical_micro_f1_14_shuffled_images']:.3f}"
                )
            return [*lines, "reports of a whole split, scored: the same command with --eval_only"]
        rows = ("clinical_micro_f1_14", "clinical_macro_f1_14", "clinical_micro_f1_5", "bleu1", "bleu4", "rouge_l")
        sources = (split, "baseline/most_frequent", "baseline/shuffled_images")
        return [
            f"{figures[f'{split}/examples']:.0f} reports of {split}, perplexity {figures[f'{split}/perplexity']:.3f}:",
            f"  {'':<22}{'model':>8}  {'most frequent report':>20}  {'shuffled images':>15}",
            *(
                f"  {row:<22}{figures[f'{sources[0]}/{row}']:>8.3f}  {figures[f'{sources[1]}/{row}']:>20.3f}"
                f"  {figures[f'{sources[2]}/{row}']:>15.3f}"
                for row in rows
            ),
            f"predictions: {self.workdir / PREDICTIONS_FILE}, all figures: {self.workdir / METRICS_FILE}",
        ]

    def host_batches(self, start_step: int) -> Iterator[HostBatch]:
        return self.shuffled_batches(self.train_records, start_step)

    def evaluate(self, state: Tree) -> dict[str, float]:
        """See the module's docstring."""
        held_out = self._records(self.config.eval.split, train=False)
        own = self._evaluate_pass(state, held_out, own_image=True)
        shuffled = self._evaluate_pass(state, held_out, own_image=False)
        loss = own["loss"] / own["words"]
        figures = {
            "eval/loss": loss,
            "eval/loss_shuffled_images": shuffled["loss"] / shuffled["words"],
            "eval/perplexity": math.exp(loss),
            "eval/accuracy": own["correct"] / own["words"],
            "eval/examples": own["examples"],
        }
        count = min(self.config.eval.generate_examples, len(held_out))
        if count:
            chosen = np.linspace(0, len(held_out), count, endpoint=False).astype(int).tolist()
            plain = functools.partial(score, meteor=False, resamples=0)
            written = plain(list(self._reports(state, held_out, chosen, own_image=True)))
            blind = plain(list(self._reports(state, held_out, chosen, own_image=False)))
            figures |= {f"eval/{name}": _number(written[name]) for name in ("bleu4", "clinical_micro_f1_14")}
            figures["eval/clinical_micro_f1_14_shuffled_images"] = _number(blind["clinical_micro_f1_14"])
        return figures

    def evaluate_best(self) -> dict[str, float]:
        """Writes and scores a report for every example of `config.eval.split`; see the module's docstring.

        Interrupted, it goes on with the reports that it has.
        """
        self.require_data()
        step, state, _ = self.trainer.best_state()
        split = self.config.eval.split
        log.info("writing the reports of %s with the best checkpoint, of step %d", split, step)
        held_out = self._records(split, train=False)
        self._start_predictions({"step": step, "split": split, **self.config.decode.to_dict()})
        train = range(min(len(self.train_records), BASELINE_REPORTS))
        own = score(
            self._predict(state, held_out, self.workdir / PREDICTIONS_FILE, own_image=True),
            train_texts=(self.train_records.text(record) for record in train),
        )
        blind = score(self._predict(state, held_out, self.workdir / SHUFFLED_FILE, own_image=False), meteor=False)
        words = self._evaluate_pass(state, held_out, own_image=True)
        figures: dict[str, Any] = {f"{split}/perplexity": math.exp(words["loss"] / words["words"])}
        for name, value in own.items():
            plain = name.removeprefix("baseline_")
            figures[f"{split}/{name}" if plain == name else f"baseline/most_frequent/{plain}"] = value
        figures |= {f"baseline/shuffled_images/{name}": value for name, value in blind.items()}
        # JSON knows no NaN: what is not defined is null.
        defined = {name: None if value != value else value for name, value in figures.items()}
        (self.workdir / METRICS_FILE).write_text(json.dumps(defined, indent=2) + "\n")
        return figures

    def _start_predictions(self, made_with: dict[str, Any]) -> None:
        path = self.workdir / MADE_WITH_FILE
        if not path.is_file() or json.loads(path.read_text()) != made_with:
            for name in (PREDICTIONS_FILE, SHUFFLED_FILE):
                (self.workdir / name).unlink(missing_ok=True)
            path.write_text(json.dumps(made_with, indent=2) + "\n")

    def _predict(self, state: Tree, held_out: ReportRecords, path: Path, *, own_image: bool) -> list[Prediction]:
        """A report for every example, those that the file already holds left as they are; in the split's order."""
        with predictions.Writer(path) as out:
            left = [record for record in range(len(held_out)) if held_out.identifier(record) not in out.done]
            reports = self._reports(state, held_out, left, own_image=own_image)
            for report in tqdm(reports, total=len(left), unit="report", disable=not sys.stderr.isatty()):
                out.write(report)
        return predictions.read(path)

    def _reports(
        self, state: Tree, held_out: ReportRecords, chosen: Sequence[int], *, own_image: bool
    ) -> Iterator[Prediction]:
        """The reports of some records, written by the model."""
        run = functools.partial(self._write, state["params"], state["stats"])
        size = self.config.decode.batch_size
        for start in range(0, len(chosen), size):
            some = [int(record) for record in chosen[start : start + size]]
            images = np.stack([held_out.image(record, held_out.rng(record), own_image=own_image) for record in some])
            # Images come from the host here, a few at a time; inside the training loop that must be said.
            with jax.transfer_guard("allow"):
                texts = self._words.reports(generation.in_batches(run, images, 0, size))
            references = [held_out.text(record) for record in some]
            labels = clinical.label_batch([*references, *(written["text"] for written in texts)])
            for row, (record, written) in enumerate(zip(some, texts, strict=True)):
                yield Prediction(
                    held_out.identifier(record),
                    references[row],
                    written["text"],
                    written["log_prob"],
                    tuple(labels[row].tolist()),
                    tuple(labels[len(some) + row].tolist()),
                )

    def _written(self, params: Tree, stats: Tree, images: jax.Array, live: jax.Array, seeds: jax.Array) -> Any:
        return generation.write(self.model.bind(params, stats), images, live, seeds, self._writing)

    def _records(self, split: str, *, train: bool) -> ReportRecords:
        config, tokenizer = self.config, self.tokenizer
        mask = None
        if train and not self._causal:
            mask = MlmConfig(
                probability=config.mask.probability,
                max_predictions=config.mask.max_predictions,
                vocab_size=tokenizer.vocab_size,
                mask_id=tokenizer.mask_id,
                special_ids=tuple(tokenizer.special_ids),
            )
        return ReportRecords(mask=mask, **self.records_options(split, train=train))

    def _train_weights(self, batch: Batch) -> dict[str, jax.Array]:
        weights = _word_weights(batch) if self._causal else batch["mlm_weights"]
        return {"word_loss": jnp.sum(weights)}

    def _train_sums(self, params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        config = self.model_config
        cells_key, dropout_key = jax.random.split(key)
        cells = None
        if config.num_cells is not None:
            rows, shared = batch["text_ids"].shape[0], config.compat.shared_cells
            cells = medvill.sample_cells(cells_key, rows, config.grid_cells, config.num_cells, shared=shared)
        module = self.model.bind(params, stats)
        if self._causal:
            states = next_word_states(
                module,
                batch["image"],
                batch["text_ids"],
                mask_id=self._mask_id,
                cells=cells,
                key=dropout_key,
                train=True,
                frozen=self.frozen_parts,
            )
            loss = cross_entropy_sum(module.mlm_logits(states), batch["text_ids"], _word_weights(batch))
        else:
            hidden = module.encode(
                batch["image"],
                batch["text_ids"],
                batch["text_lens"],
                cells=cells,
                key=dropout_key,
                train=True,
                frozen=self.frozen_parts,
            )
            logits = module.mlm_logits(hidden.text, batch["mlm_positions"])
            loss = cross_entropy_sum(logits, batch["mlm_ids"], batch["mlm_weights"])
        return {"word_loss": loss}, self.model.stats_of(module)

    @property
    def _mask_id(self) -> int:
        return 103 if self.fake else self.tokenizer.mask_id

    def _eval_sums(self, params: Tree, stats: Tree, batch: Batch) -> dict[str, jax.Array]:
        module = self.model.bind(params, stats)
        states = next_word_states(module, batch["image"], batch["text_ids"], mask_id=self._mask_id)
        logits, weights = module.mlm_logits(states), _word_weights(batch)
        return {
            "examples": jnp.sum(batch["weights"]),
            "words": jnp.sum(weights),
            "loss": cross_entropy_sum(logits, batch["text_ids"], weights),
            "correct": correct_sum(logits, batch["text_ids"], weights),
        }

    def _evaluate_pass(self, state: Tree, held_out: ReportRecords, *, own_image: bool) -> dict[str, float]:
        config = self.config
        batches = loader.eval_batches(
            held_out,
            batch_size=config.eval.batch_size or config.batch_size,
            max_examples=config.eval.max_examples,
            workers=setup.workers(config.data),
            own_image=own_image,
        )
        totals: dict[str, float] = {}
        for batch in loader.to_device(batches, self.trainer.batch_sharding):
            sums = jax.device_get(self._eval_step(state["params"], state["stats"], batch))
            totals = {name: totals.get(name, 0.0) + float(value) for name, value in sums.items()}
        return totals


def _number(value: Any) -> float:
    return float(value)


def _word_weights(batch: Batch) -> jax.Array:
    """float32 `[B, T+1]`: 1 for words and the final [SEP] of real examples."""
    slots = jnp.arange(batch["text_ids"].shape[1])
    return (slots < batch["text_lens"][:, None]) * batch["weights"][:, None]
