"""Evaluation of pre-training: masked tokens and pairs next to their baselines, and a probe of films alone."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medvill_jax.batch import Batch
from medvill_jax.data import loader
from medvill_jax.data.examples import PretrainRecords
from medvill_jax.data.joined import JoinedRecords
from medvill_jax.data.mixed import MixedRecords
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.network import Network
from medvill_jax.tasks.pretrain.measured import METRICS, MLM_METRICS, Films, Measured, metrics_of, pooled
from medvill_jax.tasks.pretrain.report import write, write_subgroups
from medvill_jax.training.losses import correct_sum, cross_entropy_sum
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

# Training films of the linear probe: few labels, and a few seconds.
PROBE_FILMS = 512
# Enough training reports for stable token frequencies, few enough to read at start-up.
UNIGRAM_REPORTS = 10_000


class Pretraining:
    """Measures masked language modelling, matching, and features of films.

    Args:
        evaluation: of the run.
        vocab_size: V, word pieces.
        records_of: the records of a split; with `whole` no film is cropped.
        train_records: whose tokens the unigram baseline counts; None for random arrays.
        sources: the names of the data sets of a mixture, each of which has metrics of its own too.

    Attributes:
        names: of the metrics of `evaluate`.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        vocab_size: int,
        records_of: Callable[..., PretrainRecords | MixedRecords],
        train_records: PretrainRecords | JoinedRecords | None,
        sources: Sequence[str] = (),
    ):
        self._evaluation, self._config, self._vocab_size = evaluation, evaluation.config, vocab_size
        self._records_of, self._train_records, self._sources = records_of, train_records, tuple(sources)
        network = evaluation.network
        attention, s2s_prob = network.config.attention, network.config.s2s_prob
        # The attention masks under which tokens are predicted, and the share of each.
        self._shares = {"bidirectional": 1 - s2s_prob, "s2s": s2s_prob} if attention == "mixed" else {attention: 1.0}
        paired = self._config.itm.pairs == "both"
        self._sums = {
            kind: evaluation.jit(functools.partial(_sums, network, paired, attention=kind)) for kind in self._shares
        }
        self._rows = {
            kind: evaluation.jit(functools.partial(_rows, network, paired, attention=kind)) for kind in self._shares
        }
        self._encode = evaluation.jit(functools.partial(_encoded, network))
        endings = ("", *(f"_{kind}" for kind in self._shares)) if len(self._shares) > 1 else ("",)
        names = (*METRICS, *(f"eval/{name}{ending}" for name in MLM_METRICS for ending in endings))
        of_sources = (name.replace("eval/", f"eval/{source}/") for source in sources for name in names)
        self.names = (*names, *of_sources)

    def evaluate(self, state: Tree) -> dict[str, float]:
        """All metrics of `config.eval.split`; of a mixture over all sources, and of each."""
        parts = self._parts(self._records_of(self._config.eval.split))
        measured = {name: self._measured(state, part, most) for name, (part, most) in parts.items()}
        train = self._films(state, self._probed, PROBE_FILMS)
        metrics = metrics_of(pooled(measured.values()), self._shares, train)
        for source in self._sources:
            own = metrics_of(measured[source], self._shares, train)
            metrics |= {name.replace("eval/", f"eval/{source}/"): value for name, value in own.items()}
        return metrics

    def evaluate_best(self, step: int, state: Tree) -> dict[str, float]:
        """All metrics of `config.eval.split`, of the best checkpoint, and its answers to single examples as a file."""
        log.info("evaluating the best checkpoint, of step %d, on %s", step, self._config.eval.split)
        metrics = self.evaluate(state)
        held_out = self._records_of(self._config.eval.split)
        parts = self._parts(held_out)
        answers = {name: self._answers(state, part, most) for name, (part, most) in parts.items()}
        made_with = self._evaluation.made_with(step, state, held_out)
        if jax.process_index() == 0:
            answered = {
                name: (part, loader.evenly(len(part), most), answers[name]) for name, (part, most) in parts.items()
            }
            write(self._evaluation.workdir, answered, made_with)
            write_subgroups(self._evaluation.workdir, answered, made_with, self._config.seed)
        return metrics

    def _parts(self, held_out: PretrainRecords | MixedRecords) -> dict[str, tuple[PretrainRecords, int]]:
        """Source -> its records, and how many of them are evaluated; one without a name if there is no mixture."""
        most = self._config.eval.max_examples
        if isinstance(held_out, MixedRecords):
            return {name: (held_out.parts[name], of_it) for name, of_it in held_out.evenly(most).items()}
        return {"": (held_out, most)}

    def _measured(self, state: Tree, held_out: PretrainRecords, most: int) -> Measured:
        kinds = list(self._shares)
        totals = functools.partial(self._totals, state, held_out, most)
        return Measured(
            true={kind: totals(kind) for kind in kinds},
            shuffled={kind: totals(kind, own_image=False) for kind in kinds},
            mismatched=None if kinds[0] == "s2s" else totals(kinds[0], matched=False),
            films=self._films(state, held_out, most),
        )

    def _films(self, state: Tree, split: PretrainRecords | MixedRecords, most: int) -> Films:
        features = self._evaluation.outputs(self._encode, state, split, most)
        return Films(features, split.positive[loader.evenly(len(split), most)])

    def _answers(self, state: Tree, held_out: PretrainRecords, most: int) -> dict[str, np.ndarray]:
        """The sums of every example, float `[n]`; of its tokens the mean over the masks, with their shares."""
        answers: dict[str, np.ndarray] = {}
        for kind, share in self._shares.items():
            found = self._evaluation.outputs(self._rows[kind], state, held_out, most, matched=True)
            answers["words"] = found["words"]
            for name in ("mlm_loss", "mlm_correct"):
                answers[name] = answers.get(name, 0.0) + share * found[name]
            if "own" not in answers and kind != "s2s":
                other = self._evaluation.outputs(self._rows[kind], state, held_out, most, matched=False)
                answers |= {"own": found["itm_correct"], "other": other["itm_correct"]}
        return answers

    def _totals(
        self,
        state: Tree,
        held_out: PretrainRecords,
        most: int,
        attention: str,
        *,
        matched: bool = True,
        own_image: bool = True,
    ) -> dict[str, float]:
        unigram = self._unigram_log_probs

        def sums(params: Tree, stats: Tree, batch: Batch) -> dict[str, jax.Array]:
            return self._sums[attention](params, stats, batch, unigram)

        return self._evaluation.sums(sums, state, held_out, most, matched=matched, own_image=own_image)

    @functools.cached_property
    def _probed(self) -> PretrainRecords | MixedRecords:
        """The training records, without crops."""
        return self._records_of("train", train=True, whole=True)

    @functools.cached_property
    def _unigram_log_probs(self) -> jax.Array:
        """float32 `[V]`: add-one smoothed log-frequencies of the tokens of the training reports."""
        train = self._train_records
        if train is None:
            raise ValueError("random arrays have no tokens to count")
        total = len(train)
        counts = np.ones(self._vocab_size)
        for record in np.linspace(0, total, min(total, UNIGRAM_REPORTS), endpoint=False).astype(int):
            np.add.at(counts, train.text_ids(int(record)), 1)
        log_probs = np.log(counts / counts.sum()).astype(np.float32)
        return jax.device_put(log_probs, self._evaluation.trainer.replicated)


def _sums(
    network: Network, paired: bool, params: Tree, stats: Tree, batch: Batch, unigram: jax.Array, *, attention: str
) -> dict[str, jax.Array]:
    mlm, itm = _logits(network, paired, params, stats, batch, attention)
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


def _rows(
    network: Network, paired: bool, params: Tree, stats: Tree, batch: Batch, *, attention: str
) -> dict[str, jax.Array]:
    """The sums of each example by itself, float32 `[B]`."""
    mlm, itm = _logits(network, paired, params, stats, batch, attention)
    ids, words = batch["mlm_ids"], batch["mlm_weights"]
    losses = optax.softmax_cross_entropy_with_integer_labels(mlm, ids)
    return {
        "words": words.sum(axis=1),
        "mlm_loss": (losses * words).sum(axis=1),
        "mlm_correct": ((mlm.argmax(axis=-1) == ids) * words).sum(axis=1),
        "itm_correct": (itm.argmax(axis=-1) == batch["itm_labels"]).astype(jnp.float32),
    }


def _logits(
    network: Network, paired: bool, params: Tree, stats: Tree, batch: Batch, attention: str
) -> tuple[jax.Array, jax.Array]:
    """The logits of masked tokens `[B, P, V]`, and of whether image and text match `[B, 2]`."""
    module = network.model.bind(params, stats)
    features = module.image_features(network.films(batch))
    block = module.embed_image(features, None, None)
    ids, lens, places = (batch[name] for name in ("text_ids", "text_lens", "mlm_positions"))
    hidden = module.encode_block(block, ids, lens, attention=attention, words=places)
    mlm = module.mlm_logits(hidden.text)
    if paired:
        return mlm, module.match(block, batch["plain_ids"], lens, attention=attention)
    return mlm, module.itm_logits(hidden.summary)


def _encoded(network: Network, params: Tree, stats: Tree, batch: Batch) -> dict[str, jax.Array]:
    """The features of films alone: the pooled [CLS] and the mean of the cells, float32 `[B, H]` each."""
    module = network.model.bind(params, stats)
    features = module.image_features(batch["image"])
    summary = module.encode_image(module.embed_image(features, None, None))
    return {"summary": summary.astype(jnp.float32), "cells": features.mean(axis=1, dtype=jnp.float32)}
