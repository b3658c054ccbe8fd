"""Report generation: fine-tuning under the s2s mask (docs/spec.md#generation).

Two objectives, `config.objective`:

* `causal`: every word and the report's end, its [SEP], is predicted from the image and the words before it, with a
  [MASK] as query, which is what a decoder asks; all positions in one pass (`models.causal`).
* `masked`: some positions are hidden behind [MASK] and predicted from the image and what stands before them, as
  published, with a ratio of one's choice.

Held-out figures while training (`eval/...`):

* of next words, the report as written standing before each, every report exactly once: `loss` (nats a word piece),
  `perplexity` (its exponential over the whole split), `accuracy`, and `loss_shuffled_images`, each report facing
  another study's image. The final [SEP] counts where the report ends, and not where `model.text_len` cuts it;
* of reports that the model writes by itself, over `config.eval.generate_examples` fixed examples: `bleu4`,
  `clinical_micro_f1_14` (`metrics.report_scores`), and the latter with shuffled images.

`--eval_only` writes a report for every example of `config.eval.split` into `predictions.jsonl`, and `metrics.json`: all
figures of `metrics.report_scores` as `SPLIT/...`, and those of three baselines:

* `baseline/most_frequent/...`: the most frequent training report, whatever the film;
* `baseline/nearest_neighbour/...`: the report of the training film that looks most alike, by the cosine of the image
  encoder's features, averaged over the cells, less their mean over the training films. The encoder is that of the
  evaluated checkpoint: it has learnt what reports tell apart, which makes it a stronger baseline than the encoder that
  the run began with, and what the model gains over it is gained by writing;
* `baseline/shuffled_images/...`: the same model shown another study's image.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from medvill_jax.batch import Batch, BatchSpec, report_spec
from medvill_jax.cluster import distributed
from medvill_jax.cluster import workdir as workdirs
from medvill_jax.data import loader
from medvill_jax.data.examples import HostBatch, ReportRecords
from medvill_jax.data.records import DataError
from medvill_jax.data.tokenizer import SPECIAL_TOKENS
from medvill_jax.data.transforms import MlmConfig
from medvill_jax.hub import generation
from medvill_jax.metrics import bootstrap, clinical, predictions, text
from medvill_jax.metrics.predictions import Prediction
from medvill_jax.metrics.report_scores import perplexity, score
from medvill_jax.models import medvill
from medvill_jax.models.causal import next_word_states
from medvill_jax.tasks import base, setup
from medvill_jax.tasks import made_with as notes
from medvill_jax.training.losses import correct_sum, cross_entropy_sum
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

OBJECTIVES = ("causal", "masked")
PREDICTIONS_FILE = "predictions.jsonl"
SHUFFLED_FILE = "predictions_shuffled_images.jsonl"
# What the prediction files were made with; another checkpoint or decoder starts them anew.
MADE_WITH_FILE = "predictions.json"
METRICS_FILE = "metrics.json"
# Training reports, evenly spaced, that the baselines choose from.
BASELINE_REPORTS = 20_000
TABLE_ROWS = (
    "clinical_micro_f1_14",
    "clinical_macro_f1_14",
    "clinical_micro_f1_5",
    "bleu1",
    "bleu4",
    "rouge_l",
    "cider",
)
# Reports between two times that those written so far are sent to the workdir's bucket.
PUBLISH_REPORTS = 256
BASELINES = ("most_frequent", "nearest_neighbour", "shuffled_images")


class Task(base.Task):
    """Report generation; see the module's docstring."""

    stage = "generation"

    def __init__(self, config: setup.Config, workdir: Path):
        setup.require_known(config, {"objective": OBJECTIVES})
        if config.model.attention != "s2s":
            raise ValueError(f"model.attention={config.model.attention!r}: reports are written under s2s")
        # A missing library shows now, not at the first evaluation.
        text.bleu_counts(["word"], ["word"])
        super().__init__(config, workdir)
        self._eval_step = self.trainer.jit(self._eval_sums)
        self._film_features = self.trainer.jit(self._pooled_features)
        self._write = self.trainer.jit(self._written)
        if not self.fake:
            special: dict[str, int] = dict(zip(SPECIAL_TOKENS, self.tokenizer.special_ids, strict=True))
            self._words = generation.Words(special, self.tokenizer)
            self._writing = self._words.writing(
                self.model_config,
                beams=config.decode.beam_size,
                max_len=config.decode.max_len,
                min_len=config.decode.min_len,
                no_repeat_ngram=config.decode.no_repeat_ngram,
                banned=None,
                length_penalty=config.decode.length_penalty,
                top_p=config.decode.top_p or None,
                temperature=config.decode.temperature,
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
        if self.config.eval.every_epochs or self.config.eval.every_steps:
            _ = self._held_out  # what is wrong with it shows now, not after an epoch

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
        columns = {"model": split, **{name.replace("_", " "): f"baseline/{name}" for name in BASELINES}}
        return [
            f"{figures[f'{split}/examples']:.0f} reports of {split}, perplexity {figures[f'{split}/perplexity']:.3f}:",
            f"  {'':<22}" + "".join(f"  {title:>17}" for title in columns),
            *(
                f"  {row:<22}" + "".join(f"  {figures[f'{source}/{row}']:>17.3f}" for source in columns.values())
                for row in TABLE_ROWS
            ),
            f"{bootstrap.resampled_words(figures, f'{split}/')}, those of {METRICS_FILE}",
            f"predictions: {self.workdir / PREDICTIONS_FILE}, all metrics: {self.workdir / METRICS_FILE}; in ReXrank's "
            "form: python -m medvill_jax.metrics.rexrank --help",
        ]

    def host_batches(self, start_step: int) -> Iterator[HostBatch]:
        return self.shuffled_batches(self.train_records, start_step)

    def evaluate(self, state: Tree) -> dict[str, float]:
        """See the module's docstring."""
        held_out = self._held_out
        own = self._evaluate_pass(state, own_image=True)
        shuffled = self._evaluate_pass(state, own_image=False)
        figures = {
            "eval/loss": own["loss"] / own["words"],
            "eval/loss_shuffled_images": shuffled["loss"] / shuffled["words"],
            "eval/perplexity": perplexity(-own["loss"], round(own["words"])),
            "eval/accuracy": own["correct"] / own["words"],
            "eval/examples": own["examples"],
        }
        count = min(self.config.eval.generate_examples, len(held_out))
        if count:
            chosen = loader.evenly(len(held_out), count).tolist()
            plain: Any = functools.partial(score, meteor=False, resamples=0)
            written = plain(list(self._reports(state, chosen, own_image=True)))
            blind = plain(list(self._reports(state, chosen, own_image=False)))
            figures |= {f"eval/{name}": written[name] for name in ("bleu4", "clinical_micro_f1_14")}
            figures["eval/clinical_micro_f1_14_shuffled_images"] = blind["clinical_micro_f1_14"]
        return figures

    def evaluate_best(self) -> dict[str, float]:
        """Writes and scores a report for every example of `config.eval.split`; see the module's docstring.

        Interrupted, it goes on with the reports that it has.

        Raises:
            DataError: the data are random arrays, lack the split, or have reports without a word in it.
            WorkdirError: there is no checkpoint.
        """
        self.require_data()
        step, state, _ = self.trainer.best_state()
        split = self.config.eval.split
        log.info("writing the reports of %s with the best checkpoint, of step %d", split, step)
        decoder = {name: value for name, value in self.config.decode.to_dict().items() if name != "batch_size"}
        self._start_predictions(self.made_with(step, state, self._held_out) | {"decode": decoder})
        written = self._predict(state, self.workdir / PREDICTIONS_FILE, own_image=True)
        blind = self._predict(state, self.workdir / SHUFFLED_FILE, own_image=False)
        words = self._evaluate_pass(state, own_image=True)
        nearest = self._nearest_films(state)
        if not distributed.is_first():
            return {}
        texts = [
            self.train_records.text(int(record)) for record in loader.evenly(len(self.train_records), BASELINE_REPORTS)
        ]
        retrieved = [
            dataclasses.replace(row, hypothesis=texts[place], log_prob=None, hypothesis_labels=None)
            for row, place in zip(written, nearest, strict=True)
        ]
        figures: dict[str, Any] = {f"{split}/perplexity": perplexity(-words["loss"], round(words["words"]))}
        for name, value in score(written, train_texts=texts).items():
            plain = name.removeprefix("baseline_")
            figures[f"{split}/{name}" if plain == name else f"baseline/most_frequent/{plain}"] = value
        for name, rows in (("nearest_neighbour", retrieved), ("shuffled_images", blind)):
            figures |= {f"baseline/{name}/{key}": value for key, value in score(rows, meteor=False).items()}
        # JSON knows no NaN: what is not defined is null.
        defined = {name: None if np.isnan(value).any() else value for name, value in figures.items()}
        (self.workdir / METRICS_FILE).write_text(json.dumps(defined, indent=2) + "\n")
        return figures

    def _start_predictions(self, made_with: dict[str, Any]) -> None:
        note = self.workdir / MADE_WITH_FILE
        if distributed.is_first() and not notes.fits(note, made_with):
            for name in (PREDICTIONS_FILE, SHUFFLED_FILE):
                (self.workdir / name).unlink(missing_ok=True)
            notes.write(note, made_with)

    def _predict(self, state: Tree, path: Path, *, own_image: bool) -> list[Prediction]:
        """A report for every example, those that the file already holds left as they are; in the split's order.

        All processes write, each on its own devices, and the first keeps the file; the others get no list.
        """
        held_out, first = self._held_out, distributed.is_first()
        with predictions.Writer(path) if first else contextlib.nullcontext() as out:

            def missing() -> str:
                done = out.done if out else ()
                return json.dumps([row for row in range(len(held_out)) if held_out.identifier(row) not in done])

            left = json.loads(distributed.on_first("reports to write", missing))
            reports = self._reports(state, left, own_image=own_image)
            progress = tqdm(reports, total=len(left), unit="report", disable=not (first and sys.stderr.isatty()))
            for number, report in enumerate(progress, 1):
                if out:
                    out.write(report)
                if number % PUBLISH_REPORTS == 0:
                    workdirs.publish(self.workdir, patient=True)
        return predictions.read(path) if first else []

    def _reports(self, state: Tree, chosen: Sequence[int], *, own_image: bool) -> Iterator[Prediction]:
        """The reports of some held-out records, written by the model: every device writes some of each batch."""
        held_out, size = self._held_out, self.trainer.filled(self.config.decode.batch_size)
        for start in range(0, len(chosen), size):
            some = list(chosen[start : start + size])
            filled = self.trainer.filled(generation.filled_size(len(some), size))
            own = loader.local_rows({"record": np.resize(some, filled), "live": np.arange(filled) < len(some)})
            rows = [int(record) for record in own["record"]]
            images = [held_out.image(record, held_out.rng(record), own_image=own_image) for record in rows]
            # What is drawn about a film is the same in any batch, and after an interruption.
            draws = (np.random.default_rng((self.config.decode.seed, record)) for record in rows)
            seeds = np.array([draw.integers(2**31) for draw in draws], np.int32)
            host = {"image": np.stack(images), "live": own["live"], "seeds": seeds}
            batch = next(loader.to_device(iter([host]), self.trainer.batch_sharding))
            found = self._write(state["params"], state["stats"], batch["image"], batch["live"], batch["seeds"])
            # Texts come to the host here, a few at a time; inside the training loop that must be said.
            real = len(some)
            with jax.transfer_guard("allow"):
                decoded = jax.tree.map(lambda leaf, real=real: np.asarray(leaf.addressable_data(0))[:real], found)
                texts = self._words.reports([decoded])
            references = [held_out.text(record) for record in some]
            if not all(map(text.tokens, references)):
                raise DataError("a report holds no word that could be compared with what is written: prepare it again")
            labels = clinical.label_batch([*references, *(written["text"] for written in texts)])
            for row, (record, written) in enumerate(zip(some, texts, strict=True)):
                yield Prediction(
                    held_out.identifier(record),
                    references[row],
                    written["text"],
                    written["log_prob"],
                    tuple(labels[row].tolist()),
                    tuple(labels[len(some) + row].tolist()),
                    int(self._subjects[record]),
                )

    def _written(self, params: Tree, stats: Tree, images: jax.Array, live: jax.Array, seeds: jax.Array) -> Any:
        return generation.write(self.model.bind(params, stats), images, live, seeds, self._writing)

    def _nearest_films(self, state: Tree) -> list[int]:
        """For every held-out film the training film that looks most alike, as a place in those evenly spaced."""
        known = self._features(state, self._records("train", train=False), BASELINE_REPORTS)  # [M, C]
        asked = self._features(state, self._held_out, 0)  # [N, C]
        middle = known.mean(0)
        known, asked = (_unit_rows(features - middle) for features in (known, asked))
        # A block at a time, as N x M cosines may be many.
        blocks = np.array_split(asked, -(-len(asked) // 256))
        return [int(place) for block in blocks for place in (block @ known.T).argmax(1)]

    def _features(self, state: Tree, films: ReportRecords, most: int) -> np.ndarray:
        """Image features of the films of a split, at most `most` of them (0: all), float32 `[N, C]`."""
        found, size = [], min(most or len(films), len(films))
        with tqdm(total=size, unit="film", disable=not sys.stderr.isatty()) as progress:
            for batch in self._batches(films, most):
                rows = np.asarray(self._film_features(state["params"], state["stats"], batch["image"]))
                found.append(rows)
                progress.update(len(rows))
        return np.concatenate(found)[:size]

    def _pooled_features(self, params: Tree, stats: Tree, images: jax.Array) -> jax.Array:
        return jnp.mean(self.model.bind(params, stats).image_features(images), axis=1, dtype=jnp.float32)

    @functools.cached_property
    def _held_out(self) -> ReportRecords:
        """The records of `config.eval.split`."""
        return self._records(self.config.eval.split, train=False)

    @functools.cached_property
    def _subjects(self) -> np.ndarray:
        return self._held_out.subjects()

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

    def _evaluate_pass(self, state: Tree, *, own_image: bool) -> dict[str, float]:
        totals: dict[str, float] = {}
        for batch in self._batches(self._held_out, self.config.eval.max_examples, own_image=own_image):
            sums = jax.device_get(self._eval_step(state["params"], state["stats"], batch))
            totals = {name: totals.get(name, 0.0) + float(value) for name, value in sums.items()}
        return totals

    def _batches(self, examples: ReportRecords, most: int, *, own_image: bool = True) -> Iterator[Batch]:
        """At most `most` examples of a split (0: all), each once, the last batch padded."""
        batches = loader.eval_batches(
            examples,
            self.spec,
            batch_size=self.config.eval.batch_size or self.config.batch_size,
            max_examples=most,
            workers=setup.workers(self.config.data),
            own_image=own_image,
        )
        return loader.to_device(batches, self.trainer.batch_sharding)


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _word_weights(batch: Batch) -> jax.Array:
    """float32 `[B, T+1]`: 1 for words of real examples, and for the final [SEP] where their report really ends."""
    slots, ends = jnp.arange(batch["text_ids"].shape[1]), batch["text_lens"] - batch["text_cut"]
    return (slots < ends[:, None]) * batch["weights"][:, None]
