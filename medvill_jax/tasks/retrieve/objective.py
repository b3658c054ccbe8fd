"""The objective of retrieval: matching of pairs, and a contrast of films alone with reports alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medvill_jax.batch import Batch
from medvill_jax.models.finetuned import Finetuned
from medvill_jax.tasks import setup
from medvill_jax.tasks.network import Network
from medvill_jax.training import contrast
from medvill_jax.training.losses import cross_entropy_sum
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree

NEGATIVES = ("in_batch", "drawn", "both")


def matching_loss(network: Network, config: setup.Config) -> Objective:
    """`itm_loss`, averaged over pairs, and with a contrastive head `contrast_loss`, averaged over examples."""
    contrasts = config.contrast.width > 0
    from_batch, from_split = config.negatives in ("in_batch", "both"), config.negatives in ("drawn", "both")

    def weights(batch: Batch) -> dict[str, jax.Array]:
        examples = jnp.sum(batch["weights"])
        totals = {"itm_loss": examples * (1 + 2 * from_batch + from_split)}
        return totals | ({"contrast_loss": examples} if contrasts else {})

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
        return losses, network.model.stats_of(module)

    coefficients = {"itm_loss": 1.0}
    if contrasts:
        coefficients["contrast_loss"] = config.contrast.weight
    return Objective(sums, weights, coefficients)
