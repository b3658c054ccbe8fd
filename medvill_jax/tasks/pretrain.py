"""Pre-training: masked language modelling + image-text matching (paper section III-B; docs/spec.md#pretraining).

Held-out figures (`eval/...`), each over every example of the split exactly once:

* `mlm_loss`, `mlm_accuracy`: on matched pairs; beside them `mlm_loss_unigram`, `mlm_accuracy_unigram`, what the
  frequencies of the training words alone achieve on the same masked words, and `mlm_loss_shuffled_images`, the same
  reports and masks with each report facing another study's image.
* `itm_accuracy`, `itm_loss`: every image once with its own report and once with one of another label set; chance 0.5.
* `loss`: `mlm_loss + itm_loss`, by which the best checkpoint is chosen.
* `probe_auroc`, `probe_auroc_cells`: what a linear probe, learnt from `PROBE_FILMS` training films, says of the
  findings of films without a text, from the pooled [CLS] or from the mean of the image encoder's cells (not defined
  without labels); `image_rank`, `image_rank_cells`: in how many directions these vary. A rank near 1 is a collapse: the
  network tells films apart by little more than one number.

With `config.itm.pairs=both` a film is encoded once, and faces its own report with words hidden (MLM) and, with nothing
hidden, its own and another's (ITM). `config.contrast` adds a symmetric InfoNCE of films alone with reports alone
(`encode_image`, `encode_text`), from which `itm.negatives=in_batch` draws the reports that confuse it most.

Under `s2s` the image never sees the report, so there is nothing that could tell whether they match: `itm_accuracy` and
`itm_loss` are not defined, and `loss` is `mlm_loss`. Under `mixed`, words are evaluated under either half, `NAME_s2s`
and `NAME_bidirectional`, NAME alone being their mean with the weights that they have in training; matching is evaluated
under the bidirectional half.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.batch import Batch, BatchSpec, pretrain_spec
from medvill_jax.data import loader
from medvill_jax.data.examples import HostBatch, PretrainRecords
from medvill_jax.data.transforms import MlmConfig
from medvill_jax.metrics import probe
from medvill_jax.models.finetuned import HeadsConfig
from medvill_jax.tasks import base, setup
from medvill_jax.training import contrast
from medvill_jax.training.losses import correct_sum, cross_entropy_sum
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree

# "one": a film faces its own report or another's, as published; "both": its own and another's.
PAIRS = ("one", "both")
NEGATIVES = ("drawn", "in_batch")
# Training films that the linear probe learns from: few labels, and a few seconds.
PROBE_FILMS = 512
# Enough training reports for stable word frequencies, few enough to read at start-up.
UNIGRAM_REPORTS = 10_000


class Task(base.Task):
    """Pre-training; see the module's docstring."""

    stage = "pretraining"

    def __init__(self, config: setup.Config, workdir: Path):
        setup.require_known(config, {"itm.pairs": PAIRS, "itm.negatives": NEGATIVES})
        if config.contrast.width and config.itm.pairs != "both":
            raise ValueError(
                f"contrast.width={config.contrast.width} needs itm.pairs=both: reports with nothing masked"
            )
        if config.itm.negatives == "in_batch" and not config.contrast.width:
            raise ValueError("itm.negatives=in_batch finds them by the contrast: set contrast.width")
        if not 0 <= config.mlm.all_words <= 1:
            raise ValueError(f"mlm.all_words={config.mlm.all_words} is not in 0..1")
        super().__init__(config, workdir)
        own, s2s_prob = self.model_config.attention, self.model_config.s2s_prob
        # Which masks words are predicted under, and the share of each.
        self._shares = {"bidirectional": 1 - s2s_prob, "s2s": s2s_prob} if own == "mixed" else {own: 1.0}
        self._eval_steps = {
            kind: self.trainer.jit(functools.partial(self._eval_sums, attention=kind)) for kind in self._shares
        }
        self._encode = self.trainer.jit(self._encoded)

    def heads(self) -> HeadsConfig | None:
        width = self.config.contrast.width
        return HeadsConfig(contrast=width) if width else None

    def batch_spec(self) -> BatchSpec:
        config = self.config
        return pretrain_spec(
            config.batch_size,
            image_size=config.model.image_size,
            text_len=config.model.text_len,
            max_predictions=config.mlm.max_predictions,
            paired=self._paired,
        )

    def open_data(self) -> None:
        self.train_records = self._records("train", train=True)

    def objective(self) -> Objective:
        coefficients = {"mlm_loss": 1.0, "itm_loss": 1.0}
        if self._contrasts:
            coefficients["contrast_loss"] = self.config.contrast.weight
        sums = self._paired_sums if self._paired else self._train_sums
        return Objective(sums, self._train_weights, coefficients)

    def closing_lines(self, figures: dict[str, float]) -> list[str]:
        value = {name.removeprefix("eval/"): figure for name, figure in figures.items()}
        return [
            f"held out ({self.config.eval.split}, {value['examples']:.0f} examples):",
            "  ITM accuracy  undefined: under s2s the image never sees the report"
            if math.isnan(value["itm_accuracy"])
            else f"  ITM accuracy  {value['itm_accuracy']:.3f}   chance 0.500",
            f"  MLM accuracy  {value['mlm_accuracy']:.3f}   unigram {value['mlm_accuracy_unigram']:.3f}",
            f"  MLM loss      {value['mlm_loss']:.3f}   shuffled images {value['mlm_loss_shuffled_images']:.3f}, "
            f"unigram {value['mlm_loss_unigram']:.3f}",
            "  film alone    no labels to probe it with"
            if math.isnan(value["probe_auroc"])
            else f"  film alone    probe AUROC {value['probe_auroc']:.3f}, its cells {value['probe_auroc_cells']:.3f}",
            f"                varies in {value['image_rank']:.1f} directions, its cells in "
            f"{value['image_rank_cells']:.1f}",
        ]

    def host_batches(self, start_step: int) -> Iterator[HostBatch]:
        return self.shuffled_batches(self.train_records, start_step)

    def evaluate(self, state: Tree) -> dict[str, float]:
        """See the module's docstring."""
        held_out = self._records(self.config.eval.split)
        run = functools.partial(self._evaluate_pass, state, held_out, self._unigram_log_probs)
        figures: dict[str, float] = {}
        matched: dict[str, dict[str, float]] = {}
        for kind, share in self._shares.items():
            own = matched[kind] = run(kind)
            shuffled = run(kind, own_image=False)
            words = {
                "mlm_loss": own["mlm_loss"] / own["words"],
                "mlm_loss_shuffled_images": shuffled["mlm_loss"] / shuffled["words"],
                "mlm_loss_unigram": own["unigram_loss"] / own["words"],
                "mlm_accuracy": own["mlm_correct"] / own["words"],
                "mlm_accuracy_unigram": own["unigram_correct"] / own["words"],
            }
            for name, value in words.items():
                figures[f"eval/{name}"] = figures.get(f"eval/{name}", 0.0) + share * value
                if len(self._shares) > 1:
                    figures[f"eval/{name}_{kind}"] = value
        itm_loss = itm_accuracy = math.nan
        itm_kind = next(iter(self._shares))
        examples = matched[itm_kind]["examples"]
        if itm_kind != "s2s":
            both = matched[itm_kind], run(itm_kind, matched=False)
            itm_loss = sum(found["itm_loss"] for found in both) / (2 * examples)
            itm_accuracy = sum(found["itm_correct"] for found in both) / (2 * examples)
        figures |= self._probe(state, held_out)
        return {
            "eval/loss": figures["eval/mlm_loss"] + (0.0 if math.isnan(itm_loss) else itm_loss),
            "eval/itm_loss": itm_loss,
            "eval/itm_accuracy": itm_accuracy,
            **figures,
            "eval/examples": examples,
        }

    @property
    def _paired(self) -> bool:
        return self.config.itm.pairs == "both"

    @property
    def _contrasts(self) -> bool:
        return self.config.contrast.width > 0

    def shared_in_batch(self) -> list[str]:
        others = ["the pairs that do not match are"] if self._contrasts else []
        return [*super().shared_in_batch(), *others]

    def _records(self, split: str, *, train: bool = False, whole: bool = False) -> PretrainRecords:
        """A split; `train` takes what trains of it and crops films, `whole` leaves them whole all the same."""
        config, tokenizer = self.config, self.tokenizer
        mlm = MlmConfig(
            probability=config.mlm.probability,
            max_predictions=config.mlm.max_predictions,
            vocab_size=tokenizer.vocab_size,
            mask_id=tokenizer.mask_id,
            special_ids=tuple(tokenizer.special_ids),
            all_words=config.mlm.all_words if train else 0.0,
        )
        options = self.records_options(split, train=train)
        if whole:
            options["crop"] = None
        return PretrainRecords(mlm=mlm, paired=self._paired, **options)

    def _train_weights(self, batch: Batch) -> dict[str, jax.Array]:
        examples = jnp.sum(batch["weights"])
        weights = {"mlm_loss": jnp.sum(self._mlm_weights(batch)), "itm_loss": (1 + self._paired) * examples}
        return weights | ({"contrast_loss": examples} if self._contrasts else {})

    def _mlm_weights(self, batch: Batch) -> jax.Array:
        weights = batch["mlm_weights"]
        return weights if self.config.mlm.on_mismatched else weights * batch["itm_labels"][:, None]

    def _train_sums(self, params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        rows = batch["text_ids"].shape[0]
        cells_key, mixed_key, dropout_key = jax.random.split(key, 3)
        cells = self.kept_cells(cells_key, rows)
        module = self.model.bind(params, stats)
        hidden = module.encode(
            batch["image"],
            batch["text_ids"],
            batch["text_lens"],
            cells=cells,
            use_s2s=self._use_s2s(mixed_key, rows),
            key=dropout_key,
            train=True,
            frozen=self.frozen_parts,
        )
        mlm_logits = module.mlm_logits(hidden.text, batch["mlm_positions"])
        sums = {
            "mlm_loss": cross_entropy_sum(mlm_logits, batch["mlm_ids"], self._mlm_weights(batch)),
            "itm_loss": cross_entropy_sum(module.itm_logits(hidden.summary), batch["itm_labels"], batch["weights"]),
        }
        return sums, self.model.stats_of(module)

    def _paired_sums(
        self, params: Tree, stats: Tree, batch: Batch, key: jax.Array
    ) -> tuple[dict[str, jax.Array], Tree]:
        """Each film, encoded once, beside its own report with words hidden, and beside whole reports to match."""
        config = self.config
        rows, weights = batch["text_ids"].shape[0], batch["weights"]
        cells_key, mixed_key, words_key, pair_key, contrast_key, hard_key = jax.random.split(key, 6)
        module = self.model.bind(params, stats)
        features = module.image_features(batch["image"], train=True, frozen=self.frozen_parts)
        block = module.embed_image(features, self.kept_cells(cells_key, rows), words_key)
        ids, lens = batch["plain_ids"], batch["text_lens"]
        words = module.encode_block(
            block, batch["text_ids"], lens, use_s2s=self._use_s2s(mixed_key, rows), key=words_key
        )
        mlm_logits = module.mlm_logits(words.text, batch["mlm_positions"])
        sums = {"mlm_loss": cross_entropy_sum(mlm_logits, batch["mlm_ids"], batch["mlm_weights"])}
        other_ids, other_lens = batch["negative_ids"], batch["negative_lens"]
        if self._contrasts:
            image = module.project_image(block, contrast_key) * module.heads.contrast.temperature()
            text = module.project_text(ids, lens, contrast_key)
            cosines, negative = image @ text.T, contrast.negative_pairs(batch)
            sums["contrast_loss"] = contrast.info_nce_sum(cosines, negative, weights)
            if config.itm.negatives == "in_batch":
                text_of, _ = contrast.draw_confusing(hard_key, cosines, negative)
                there = negative.any(axis=1)
                other_ids = jnp.where(there[:, None], ids[text_of], other_ids)
                other_lens = jnp.where(there, lens[text_of], other_lens)
        logits = module.match(
            jnp.concatenate([block, block]),
            jnp.concatenate([ids, other_ids]),
            jnp.concatenate([lens, other_lens]),
            # One mask for all pairs; under half of the others the image would not see its text.
            attention="bidirectional" if self.model_config.attention == "mixed" else None,
            key=pair_key,
        )
        labels = jnp.repeat(jnp.array([1, 0]), rows)
        sums["itm_loss"] = cross_entropy_sum(logits, labels, jnp.concatenate([weights, weights]))
        return sums, self.model.stats_of(module)

    def _use_s2s(self, key: jax.Array, rows: int) -> jax.Array | None:
        if self.model_config.attention != "mixed":
            return None
        return jax.random.bernoulli(key, self.model_config.s2s_prob, (rows,))

    def _eval_sums(
        self, params: Tree, stats: Tree, batch: Batch, unigram: jax.Array, *, attention: str
    ) -> dict[str, jax.Array]:
        module = self.model.bind(params, stats)
        features = module.image_features(batch["image"])
        block = module.embed_image(features, None, None)
        hidden = module.encode_block(block, batch["text_ids"], batch["text_lens"], attention=attention)
        mlm = module.mlm_logits(hidden.text, batch["mlm_positions"])
        if self._paired:
            itm = module.match(block, batch["plain_ids"], batch["text_lens"], attention=attention)
        else:
            itm = module.itm_logits(hidden.summary)
        ids, words = batch["mlm_ids"], batch["mlm_weights"]
        labels, examples = batch["itm_labels"], batch["weights"]
        guess = jnp.broadcast_to(unigram, mlm.shape)
        return {
            "examples": jnp.sum(examples),
            "words": jnp.sum(words),
            "mlm_loss": cross_entropy_sum(mlm, ids, words),
            "mlm_correct": correct_sum(mlm, ids, words),
            "unigram_loss": cross_entropy_sum(guess, ids, words),
            "unigram_correct": correct_sum(guess, ids, words),
            "itm_loss": cross_entropy_sum(itm, labels, examples),
            "itm_correct": correct_sum(itm, labels, examples),
        }

    def _probe(self, state: Tree, held_out: PretrainRecords) -> dict[str, float]:
        """What features of films alone say of findings, learnt from a few training films."""
        train, most = self._probed, self.config.eval.max_examples
        shown = loader.evenly(len(train), PROBE_FILMS), loader.evenly(len(held_out), most)
        few = self.outputs(self._encode, state, train, PROBE_FILMS)
        new = self.outputs(self._encode, state, held_out, most)
        labels = train.positive[shown[0]], held_out.positive[shown[1]]
        figures = {
            name: probe.linear_auroc(few[kind], labels[0], new[kind], labels[1])
            for name, kind in (("eval/probe_auroc", "summary"), ("eval/probe_auroc_cells", "cells"))
        }
        return figures | {
            "eval/image_rank": probe.effective_rank(new["summary"]),
            "eval/image_rank_cells": probe.effective_rank(new["cells"]),
        }

    @functools.cached_property
    def _probed(self) -> PretrainRecords:
        """What trains, with its films whole."""
        return self._records("train", train=True, whole=True)

    def _encoded(self, params: Tree, stats: Tree, batch: Batch) -> dict[str, jax.Array]:
        module = self.model.bind(params, stats)
        features = module.image_features(batch["image"])
        summary = module.encode_image(module.embed_image(features, None, None))
        return {"summary": summary.astype(jnp.float32), "cells": features.mean(axis=1, dtype=jnp.float32)}

    def _evaluate_pass(
        self,
        state: Tree,
        held_out: PretrainRecords,
        unigram: jax.Array,
        attention: str,
        *,
        matched: bool = True,
        own_image: bool = True,
    ) -> dict[str, float]:
        config = self.config
        batches = loader.eval_batches(
            held_out,
            self.spec,
            batch_size=config.eval.batch_size or config.batch_size,
            max_examples=config.eval.max_examples,
            workers=setup.workers(config.data),
            matched=matched,
            own_image=own_image,
        )
        totals: dict[str, float] = {}
        for batch in loader.to_device(batches, self.trainer.batch_sharding):
            sums = jax.device_get(self._eval_steps[attention](state["params"], state["stats"], batch, unigram))
            totals = {name: totals.get(name, 0.0) + float(value) for name, value in sums.items()}
        return totals

    @functools.cached_property
    def _unigram_log_probs(self) -> jax.Array:
        """float32 `[V]`: add-one smoothed log-frequencies of the words in the training reports."""
        total = len(self.train_records)
        counts = np.ones(self.tokenizer.vocab_size)
        for record in np.linspace(0, total, min(total, UNIGRAM_REPORTS), endpoint=False).astype(int):
            np.add.at(counts, self.train_records.text_ids(int(record)), 1)
        return jax.device_put(np.log(counts / counts.sum()).astype(np.float32), self.trainer.replicated)
