"""The objective of phrase grounding: in which cells is the phrase seen?"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medvill_jax.batch import Batch
from medvill_jax.models.finetuned import Finetuned
from medvill_jax.tasks import setup
from medvill_jax.tasks.network import Network
from medvill_jax.training.losses import binary_cross_entropy, soft_dice
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree


def place_loss(network: Network, config: setup.Config) -> Objective:
    """`bce_loss`, the mean binary cross entropy of the cells, and `dice_loss`, both averaged over phrases."""

    def weights(batch: Batch) -> dict[str, jax.Array]:
        return dict.fromkeys(("bce_loss", "dice_loss"), jnp.sum(batch["weights"]))

    def sums(params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        module = network.model.bind(params, stats)
        features = module.image_features(batch["image"], train=True, frozen=network.frozen_parts)
        kept, targets = network.sample_cells(key, features.shape[0]), batch["cells"]
        if kept is not None:
            targets = jnp.take_along_axis(targets, kept, axis=1)
        logits = module.place_logits(features, batch["text_ids"], batch["text_lens"], cells=kept, key=key)
        bce = binary_cross_entropy(logits, targets, config.positive_weight).mean(axis=1)
        losses = {"bce_loss": bce, "dice_loss": soft_dice(logits, targets)}
        summed = {name: jnp.sum(loss * batch["weights"]) for name, loss in losses.items()}
        return summed, network.model.stats_of(module)

    return Objective(sums, weights, {"bce_loss": 1.0, "dice_loss": config.dice})


def place_logits(module: Finetuned, batch: Batch) -> jax.Array:
    """float32 `[B, G]`, of every cell, without dropout."""
    features = module.image_features(batch["image"])
    return module.place_logits(features, batch["text_ids"], batch["text_lens"])
