"""The objective of classification: binary cross entropy over the labels that count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.batch import Batch
from medvill_jax.models.finetuned import Finetuned
from medvill_jax.tasks.network import Network
from medvill_jax.training.losses import binary_cross_entropy
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree


def label_loss(network: Network, *, reads_report: bool, positive_weights: np.ndarray) -> Objective:
    """`label_loss`, averaged over labels.

    Args:
        network: with a head of C classes.
        reads_report: whether the report is an input next to the image.
        positive_weights: float32 `[C]`, the weight of the positive term of each class.
    """

    def weights(batch: Batch) -> dict[str, jax.Array]:
        return {"label_loss": jnp.sum(batch["target_weights"] * batch["weights"][:, None])}

    def sums(params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        module = network.model.bind(params, stats)
        logits = class_logits(network, module, batch, reads_report=reads_report, key=key, train=True)
        losses = binary_cross_entropy(logits, batch["targets"], positive_weights)  # [B, C]
        weights = batch["target_weights"] * batch["weights"][:, None]
        return {"label_loss": jnp.sum(losses * weights)}, network.model.stats_of(module)

    return Objective(sums, weights, {"label_loss": 1.0})


def class_logits(
    network: Network,
    module: Finetuned,
    batch: Batch,
    *,
    reads_report: bool,
    key: jax.Array | None = None,
    train: bool = False,
) -> jax.Array:
    """float32 `[B, C]`."""
    features = module.image_features(network.films(batch), train=train, frozen=network.frozen_parts)
    cells = network.sample_cells(key, batch["image"].shape[0]) if train else None
    text = (batch["text_ids"], batch["text_lens"]) if reads_report else ()
    return module.class_logits(module.summary(features, *text, cells=cells, key=key))
