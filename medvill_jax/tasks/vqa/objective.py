"""The objective of question answering: binary or softmax cross entropy of the answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medvill_jax.batch import Batch
from medvill_jax.models.finetuned import Finetuned
from medvill_jax.tasks import setup
from medvill_jax.tasks.network import Network
from medvill_jax.training.losses import binary_cross_entropy, cross_entropy_sum
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree

TARGETS = ("soft", "hard")


def answer_loss(network: Network, config: setup.Config, answers: int) -> Objective:
    """`answer_loss`, averaged over questions; `answers` is the size of the vocabulary."""

    def weights(batch: Batch) -> dict[str, jax.Array]:
        return {"answer_loss": jnp.sum(batch["weights"])}

    def sums(params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        module = network.model.bind(params, stats)
        logits = answer_logits(network, config, module, batch, key=key, train=True)
        known = batch["answer_weights"] * batch["weights"]
        if config.targets == "hard":
            loss = cross_entropy_sum(logits, batch["answers"], known)
        else:
            targets = jax.nn.one_hot(batch["answers"], answers) * batch["answer_weights"][:, None]
            loss = jnp.sum(binary_cross_entropy(logits, targets) * batch["weights"][:, None])
        return {"answer_loss": loss}, network.model.stats_of(module)

    return Objective(sums, weights, {"answer_loss": 1.0})


def answer_logits(
    network: Network,
    config: setup.Config,
    module: Finetuned,
    batch: Batch,
    *,
    key: jax.Array | None = None,
    train: bool = False,
) -> jax.Array:
    """float32 `[B, answers]`."""
    features = module.image_features(batch["image"], train=train, frozen=network.frozen_parts)
    cells = network.sample_cells(key, features.shape[0]) if train else None
    product = config.summary == "product"
    summary = module.summary(features, batch["text_ids"], batch["text_lens"], cells=cells, product=product, key=key)
    return module.answer_logits(summary)
