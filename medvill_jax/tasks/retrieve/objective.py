"""The objective of retrieval: matching of pairs, and a contrast of films alone with reports alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medvill_jax.batch import Batch
from medvill_jax.models.dropout import fold
from medvill_jax.models.finetuned import Finetuned
from medvill_jax.tasks import setup
from medvill_jax.tasks.network import Network
from medvill_jax.training import contrast
from medvill_jax.training.losses import binary_cross_entropy, cross_entropy_sum
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree

NEGATIVES = ("in_batch", "drawn", "both")


def matching_loss(network: Network, config: setup.Config) -> Objective:
    """`itm_loss`, averaged over pairs, and with a contrastive head `contrast_loss`, averaged over examples.

    With `config.sentences`, also `sentence_loss`, averaged over sentences: the binary cross entropy of whether one
    agrees with the film, with the score of the sentence less that of the same sentence denied as log-odds.
    """
    contrasts, judges = config.contrast.width > 0, config.sentences > 0
    from_batch, from_split = config.negatives in ("in_batch", "both"), config.negatives in ("drawn", "both")

    def weights(batch: Batch) -> dict[str, jax.Array]:
        examples = jnp.sum(batch["weights"])
        totals = {"itm_loss": examples * (1 + 2 * from_batch + from_split)}
        judged = {"sentence_loss": jnp.sum(batch["sentence_weights"])} if judges else {}
        return totals | ({"contrast_loss": examples} if contrasts else {}) | judged

    def sums(params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        module: Finetuned = network.model.bind(params, stats)
        features = module.image_features(batch["image"], train=True, frozen=network.frozen_parts)
        weights, rows = batch["weights"], features.shape[0]
        cells = network.sample_cells(key, rows)
        side_key, pair_key, project_key, hard_key = jax.random.split(key, 4)
        side = module.match_side(features, cells, side_key)
        ids, lens = batch["text_ids"], batch["text_lens"]
        ones, zeros = jnp.ones(rows, jnp.int32), jnp.zeros(rows, jnp.int32)
        negative_text = (batch["negative_ids"], batch["negative_lens"])
        losses, drawn_cosines, true_cosines = {}, jnp.zeros(rows), jnp.zeros(rows)
        image = None
        pairs = []
        if contrasts:
            block = side if config.fusion == "joint" else module.embed_image(features, cells, side_key)
            image, text = module.project_image(block, project_key), module.project_text(ids, lens, project_key)
            image = image * module.heads.contrast.temperature()
            cosines = image @ text.T  # [images, texts], scaled
            true_cosines = jnp.diagonal(cosines)
            negative = contrast.negative_pairs(batch)
            losses["contrast_loss"] = contrast.info_nce_sum(cosines, negative, weights)
            if from_split:
                drawn_cosines = jnp.sum(image * module.project_text(*negative_text, project_key), axis=1)
            if from_batch:
                text_of, image_of = contrast.draw_confusing(hard_key, cosines, negative)
                row = jnp.arange(rows)
                pairs += [
                    (side, ids[text_of], lens[text_of], cosines[row, text_of], zeros, weights * negative.any(axis=1)),
                    (side[image_of], ids, lens, cosines[image_of, row], zeros, weights * negative.any(axis=0)),
                ]
        pairs.append((side, ids, lens, true_cosines, ones, weights))
        if from_split:
            pairs.append((side, *negative_text, drawn_cosines, zeros, weights))
        sides, all_ids, all_lens, all_cosines, labels, all_weights = map(jnp.concatenate, zip(*pairs, strict=True))
        logits = module.match(sides, all_ids, all_lens, key=pair_key)
        logits = logits.at[:, 1].add(all_cosines)
        losses["itm_loss"] = cross_entropy_sum(logits, labels, all_weights)
        if judges:
            losses["sentence_loss"] = _sentence_sum(module, side, image, batch, pair_key, project_key)
        return losses, network.model.stats_of(module)

    coefficients = {"itm_loss": 1.0}
    if contrasts:
        coefficients["contrast_loss"] = config.contrast.weight
    if judges:
        coefficients["sentence_loss"] = config.sentences
    return Objective(sums, weights, coefficients)


def _sentence_sum(
    module: Finetuned,
    side: jax.Array,
    image: jax.Array | None,
    batch: Batch,
    pair_key: jax.Array,
    project_key: jax.Array,
) -> jax.Array:
    """The summed loss of sentences; `image` is the scaled projection `[B, D]`, None without one."""
    # Sentences, then the same denied.
    ids, lens = (jnp.concatenate([batch[f"sentence_{key}"], batch[f"denied_{key}"]]) for key in ("ids", "lens"))
    logits = module.match(jnp.concatenate([side, side]), ids, lens, key=fold(pair_key, 1))
    scores = logits[:, 1] - logits[:, 0]
    if image is not None:
        texts = module.project_text(ids, lens, fold(project_key, 1))
        scores += jnp.sum(jnp.concatenate([image, image]) * texts, axis=1)
    stated, denied = jnp.split(scores, 2)
    return jnp.sum(binary_cross_entropy(stated - denied, batch["sentence_right"]) * batch["sentence_weights"])
