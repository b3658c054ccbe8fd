"""Measuring pre-training: held-out words and pairs beside their baselines, and what films alone tell."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.batch import Batch
from medvill_jax.data import loader
from medvill_jax.data.examples import PretrainRecords
from medvill_jax.metrics import probe
from medvill_jax.tasks import setup
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.network import Network
from medvill_jax.training.losses import correct_sum, cross_entropy_sum
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

# Training films that the linear probe learns from: few labels, and a few seconds.
PROBE_FILMS = 512
# Enough training reports for stable word frequencies, few enough to read at start-up.
UNIGRAM_REPORTS = 10_000
# Of an evaluation: of masked words, which `mixed` evaluates under either half too, and all others.
MLM_METRICS = ("mlm_loss", "mlm_loss_shuffled_images", "mlm_loss_unigram", "mlm_accuracy", "mlm_accuracy_unigram")
METRICS = (
    *("eval/loss", "eval/itm_loss", "eval/itm_accuracy", "eval/examples"),
    *("eval/probe_auroc", "eval/probe_auroc_cells", "eval/image_rank", "eval/image_rank_cells"),
)


class Pretraining:
    """Measures what pre-training has learnt.

    Args:
        evaluation: what it computes with.
        config: of the run.
        network: of the run.
        vocab_size: V.
        records_of: the records of a split, with films that training crops left whole if asked.
        train_records: whose words the unigram baseline counts; None for random arrays.

    Attributes:
        names: of the metrics of `evaluate`.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        config: setup.Config,
        network: Network,
        vocab_size: int,
        records_of: Callable[..., PretrainRecords],
        train_records: PretrainRecords | None,
    ):
        self._evaluation, self._config, self._vocab_size = evaluation, config, vocab_size
        self._records_of, self._train_records = records_of, train_records
        own, s2s_prob = network.config.attention, network.config.s2s_prob
        # Which masks words are predicted under, and the share of each.
        self._shares = {"bidirectional": 1 - s2s_prob, "s2s": s2s_prob} if own == "mixed" else {own: 1.0}
        paired = config.itm.pairs == "both"
        self._sums = {
            kind: evaluation.jit(functools.partial(_sums, network, paired, attention=kind)) for kind in self._shares
        }
        self._encode = evaluation.jit(functools.partial(_encoded, network))
        endings = ("", *(f"_{kind}" for kind in self._shares)) if len(self._shares) > 1 else ("",)
        self.names = (*METRICS, *(f"eval/{name}{ending}" for name in MLM_METRICS for ending in endings))

    def evaluate(self, state: Tree) -> dict[str, float]:
        """All metrics of `config.eval.split`."""
        held_out = self._records_of(self._config.eval.split)
        metrics: dict[str, float] = {}
        matched: dict[str, dict[str, float]] = {}
        for kind, share in self._shares.items():
            own = matched[kind] = self._totals(state, held_out, kind)
            shuffled = self._totals(state, held_out, kind, own_image=False)
            words = {
                "mlm_loss": own["mlm_loss"] / own["words"],
                "mlm_loss_shuffled_images": shuffled["mlm_loss"] / shuffled["words"],
                "mlm_loss_unigram": own["unigram_loss"] / own["words"],
                "mlm_accuracy": own["mlm_correct"] / own["words"],
                "mlm_accuracy_unigram": own["unigram_correct"] / own["words"],
            }
            for name, value in words.items():
                metrics[f"eval/{name}"] = metrics.get(f"eval/{name}", 0.0) + share * value
                if len(self._shares) > 1:
                    metrics[f"eval/{name}_{kind}"] = value
        itm_loss = itm_accuracy = math.nan
        itm_kind = next(iter(self._shares))
        examples = matched[itm_kind]["examples"]
        if itm_kind != "s2s":
            both = matched[itm_kind], self._totals(state, held_out, itm_kind, matched=False)
            itm_loss = sum(found["itm_loss"] for found in both) / (2 * examples)
            itm_accuracy = sum(found["itm_correct"] for found in both) / (2 * examples)
        metrics |= self._probe(state, held_out)
        return {
            "eval/loss": metrics["eval/mlm_loss"] + (0.0 if math.isnan(itm_loss) else itm_loss),
            "eval/itm_loss": itm_loss,
            "eval/itm_accuracy": itm_accuracy,
            **metrics,
            "eval/examples": examples,
        }

    def evaluate_best(self, step: int, state: Tree) -> dict[str, float]:
        """The same of the best checkpoint."""
        log.info("evaluating the best checkpoint, of step %d, on %s", step, self._config.eval.split)
        return self.evaluate(state)

    def _totals(
        self,
        state: Tree,
        held_out: PretrainRecords,
        attention: str,
        *,
        matched: bool = True,
        own_image: bool = True,
    ) -> dict[str, float]:
        unigram = self._unigram_log_probs

        def sums(params: Tree, stats: Tree, batch: Batch) -> dict[str, jax.Array]:
            return self._sums[attention](params, stats, batch, unigram)

        most = self._config.eval.max_examples
        return self._evaluation.sums(sums, state, held_out, most, matched=matched, own_image=own_image)

    def _probe(self, state: Tree, held_out: PretrainRecords) -> dict[str, float]:
        """What features of films alone say of findings, learnt from a few training films."""
        train, most = self._probed, self._config.eval.max_examples
        shown = loader.evenly(len(train), PROBE_FILMS), loader.evenly(len(held_out), most)
        few = self._evaluation.outputs(self._encode, state, train, PROBE_FILMS)
        new = self._evaluation.outputs(self._encode, state, held_out, most)
        labels = train.positive[shown[0]], held_out.positive[shown[1]]
        metrics = {
            name: probe.linear_auroc(few[kind], labels[0], new[kind], labels[1])
            for name, kind in (("eval/probe_auroc", "summary"), ("eval/probe_auroc_cells", "cells"))
        }
        return metrics | {
            "eval/image_rank": probe.effective_rank(new["summary"]),
            "eval/image_rank_cells": probe.effective_rank(new["cells"]),
        }

    @functools.cached_property
    def _probed(self) -> PretrainRecords:
        """What trains, with its films whole."""
        return self._records_of("train", train=True, whole=True)

    @functools.cached_property
    def _unigram_log_probs(self) -> jax.Array:
        """float32 `[V]`: add-one smoothed log-frequencies of the words in the training reports."""
        train = self._train_records
        if train is None:
            raise ValueError("random arrays have no words to count")
        total = len(train)
        counts = np.ones(self._vocab_size)
        for record in np.linspace(0, total, min(total, UNIGRAM_REPORTS), endpoint=False).astype(int):
            np.add.at(counts, train.text_ids(int(record)), 1)
        log_probs = np.log(counts / counts.sum()).astype(np.float32)
        return jax.device_put(log_probs, self._evaluation.trainer.replicated)


def _sums(
    network: Network, paired: bool, params: Tree, stats: Tree, batch: Batch, unigram: jax.Array, *, attention: str
) -> dict[str, jax.Array]:
    module = network.model.bind(params, stats)
    features = module.image_features(batch["image"])
    block = module.embed_image(features, None, None)
    hidden = module.encode_block(block, batch["text_ids"], batch["text_lens"], attention=attention)
    mlm = module.mlm_logits(hidden.text, batch["mlm_positions"])
    if paired:
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


def _encoded(network: Network, params: Tree, stats: Tree, batch: Batch) -> dict[str, jax.Array]:
    """What a film alone is to the network: pooled [CLS] and mean cell, float32 `[B, H]`."""
    module = network.model.bind(params, stats)
    features = module.image_features(batch["image"])
    summary = module.encode_image(module.embed_image(features, None, None))
    return {"summary": summary.astype(jnp.float32), "cells": features.mean(axis=1, dtype=jnp.float32)}
