"""The objectives of pre-training: masked language modelling, image-text matching, image-report contrast."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medvill_jax.batch import Batch
from medvill_jax.models import views
from medvill_jax.tasks import setup
from medvill_jax.tasks.network import Network
from medvill_jax.training import contrast
from medvill_jax.training.losses import cross_entropy_sum
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree


def single_loss(network: Network, config: setup.Config) -> Objective:
    """`mlm_loss` and `itm_loss` where a film is paired with one report, its true one or another."""

    def weights(batch: Batch) -> dict[str, jax.Array]:
        return {"mlm_loss": jnp.sum(_mlm_weights(config, batch)), "itm_loss": jnp.sum(batch["weights"])}

    def sums(params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        rows = batch["text_ids"].shape[0]
        cells_key, mixed_key, dropout_key = jax.random.split(key, 3)
        cells = network.kept_cells(cells_key, rows)
        module = network.model.bind(params, stats)
        hidden = module.encode(
            network.films(batch),
            batch["text_ids"],
            batch["text_lens"],
            cells=cells,
            use_s2s=_use_s2s(network, mixed_key, rows),
            words=batch["mlm_positions"],
            key=dropout_key,
            train=True,
            frozen=network.frozen_parts,
        )
        mlm_logits = module.mlm_logits(hidden.text)
        losses = {
            "mlm_loss": cross_entropy_sum(mlm_logits, batch["mlm_ids"], _mlm_weights(config, batch)),
            "itm_loss": cross_entropy_sum(module.itm_logits(hidden.summary), batch["itm_labels"], batch["weights"]),
        }
        return losses, network.model.stats_of(module)

    return Objective(sums, weights, {"mlm_loss": 1.0, "itm_loss": 1.0})


def paired_loss(network: Network, config: setup.Config) -> Objective:
    """`mlm_loss`, `itm_loss` and, with a contrastive head, `contrast_loss`.

    Each film is encoded once, and paired with its true report, masked, and with whole reports to match.
    """
    contrasts = config.contrast.width > 0

    def weights(batch: Batch) -> dict[str, jax.Array]:
        examples = jnp.sum(batch["weights"])
        totals = {"mlm_loss": jnp.sum(_mlm_weights(config, batch)), "itm_loss": 2 * examples}
        return totals | ({"contrast_loss": examples} if contrasts else {})

    def sums(params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        rows, weights = batch["text_ids"].shape[0], batch["weights"]
        cells_key, mixed_key, words_key, pair_key, contrast_key, hard_key = jax.random.split(key, 6)
        module = network.model.bind(params, stats)
        features = module.image_features(network.films(batch), train=True, frozen=network.frozen_parts)
        block = module.embed_image(features, network.kept_cells(cells_key, rows), words_key)
        ids, lens = batch["plain_ids"], batch["text_lens"]
        use_s2s = _use_s2s(network, mixed_key, rows)
        places = batch["mlm_positions"]
        hidden = module.encode_block(block, batch["text_ids"], lens, use_s2s=use_s2s, words=places, key=words_key)
        mlm_logits = module.mlm_logits(hidden.text)
        losses = {"mlm_loss": cross_entropy_sum(mlm_logits, batch["mlm_ids"], batch["mlm_weights"])}
        other_ids, other_lens = batch["negative_ids"], batch["negative_lens"]
        if contrasts:
            image = module.project_image(block, contrast_key) * module.heads.contrast.temperature()
            text = module.project_text(ids, lens, contrast_key)
            cosines, negative = image @ text.T, contrast.negative_pairs(batch)
            losses["contrast_loss"] = contrast.info_nce_sum(cosines, negative, weights)
            if config.itm.negatives == "in_batch":
                text_of, _ = contrast.draw_confusing(hard_key, cosines, negative)
                has_negative = negative.any(axis=1)
                other_ids = jnp.where(has_negative[:, None], ids[text_of], other_ids)
                other_lens = jnp.where(has_negative, lens[text_of], other_lens)
        logits = module.match(
            views.joined(block, block),
            jnp.concatenate([ids, other_ids]),
            jnp.concatenate([lens, other_lens]),
            # Under `mixed`, not the s2s mask, under which the image does not see its text.
            attention="bidirectional" if network.config.attention == "mixed" else None,
            key=pair_key,
        )
        labels = jnp.repeat(jnp.array([1, 0]), rows)
        losses["itm_loss"] = cross_entropy_sum(logits, labels, jnp.concatenate([weights, weights]))
        return losses, network.model.stats_of(module)

    coefficients = {"mlm_loss": 1.0, "itm_loss": 1.0}
    if contrasts:
        coefficients["contrast_loss"] = config.contrast.weight
    return Objective(sums, weights, coefficients)


def _mlm_weights(config: setup.Config, batch: Batch) -> jax.Array:
    """float32 `[B, P]`: 1 for masked tokens that count, else 0."""
    weights = batch["mlm_weights"]
    return weights if config.mlm.on_mismatched else weights * batch["itm_labels"][:, None]


def _use_s2s(network: Network, key: jax.Array, rows: int) -> jax.Array | None:
    """bool `[rows]`, which examples of a batch use s2s under mixed attention; None for other attentions."""
    if network.config.attention != "mixed":
        return None
    return jax.random.bernoulli(key, network.config.s2s_prob, (rows,))
