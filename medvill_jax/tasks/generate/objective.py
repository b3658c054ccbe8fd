"""The objectives of report generation: cross entropy of all word pieces, or of the masked ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.batch import Batch
from medvill_jax.models.causal import next_word_states
from medvill_jax.tasks.network import Network
from medvill_jax.training.losses import correct_sum, cross_entropy_sum
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree

OBJECTIVES = ("causal", "masked")


def causal_loss(network: Network, mask_id: int) -> Objective:
    """`word_loss`, averaged over all word pieces and ends of reports."""

    def logits(module: Any, batch: Batch, **options: Any) -> jax.Array:
        states = next_word_states(module, network.films(batch), batch["text_ids"], mask_id=mask_id, **options)
        return module.mlm_logits(states)

    return _word_loss(network, logits, "text_ids", word_weights)


def masked_loss(network: Network) -> Objective:
    """`word_loss`, averaged over the masked word pieces."""

    def logits(module: Any, batch: Batch, **options: Any) -> jax.Array:
        hidden = module.encode(network.films(batch), batch["text_ids"], batch["text_lens"], attention="s2s", **options)
        return module.mlm_logits(hidden.text, batch["mlm_positions"])

    return _word_loss(network, logits, "mlm_ids", lambda batch: batch["mlm_weights"])


def _word_loss(
    network: Network, logits: Callable[..., jax.Array], ids: str, weights: Callable[[Batch], jax.Array]
) -> Objective:
    """The cross entropy of the word pieces of the batch key `ids`, weighted by `weights`."""

    def word_weight(batch: Batch) -> dict[str, jax.Array]:
        return {"word_loss": jnp.sum(weights(batch))}

    def sums(params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        cells_key, dropout_key = jax.random.split(key)
        cells = network.kept_cells(cells_key, batch["text_ids"].shape[0])
        module = network.model.bind(params, stats)
        predicted = logits(module, batch, cells=cells, key=dropout_key, train=True, frozen=network.frozen_parts)
        loss = cross_entropy_sum(predicted, batch[ids], weights(batch))
        return {"word_loss": loss}, network.model.stats_of(module)

    return Objective(sums, word_weight, {"word_loss": 1.0})


def next_word_sums(network: Network, mask_id: int) -> Callable[[Tree, Tree, Batch], dict[str, jax.Array]]:
    """Sums over a batch of unmasked reports, for an evaluation: `examples`, `words`, `loss`, `correct`."""

    def sums(params: Tree, stats: Tree, batch: Batch) -> dict[str, jax.Array]:
        module = network.model.bind(params, stats)
        states = next_word_states(module, network.films(batch), batch["text_ids"], mask_id=mask_id)
        logits, weights = module.mlm_logits(states), word_weights(batch)
        return {
            "examples": jnp.sum(batch["weights"]),
            "words": jnp.sum(weights),
            "loss": cross_entropy_sum(logits, batch["text_ids"], weights),
            "correct": correct_sum(logits, batch["text_ids"], weights),
        }

    return sums


def word_weights(batch: Batch) -> jax.Array:
    """float32 `[B, T+1]`: 1 for word pieces of real examples, and for the final [SEP] of a report that is not cut."""
    slots, ends = jnp.arange(batch["text_ids"].shape[1]), batch["text_lens"] - batch["text_cut"]
    return (slots < ends[:, None]) * batch["weights"][:, None]
