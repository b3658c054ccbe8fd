"""The contrastive loss between images and texts, and hard negatives that are sampled from its cosines."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medvill_jax.batch import Batch
from medvill_jax.training.losses import cross_entropy_sum


def negative_pairs(batch: Batch) -> jax.Array:
    """bool `[B, B]`: image (row) and text (column) differ in label set and in report, and neither is padding.

    `batch` holds `label_groups`, `text_groups` and `weights` of `batch.retrieve_spec`. Where it also holds `sources`,
    the two are of one source: a report of another source could be told by its style, without a look at the film.
    """
    labels, texts, real = batch["label_groups"], batch["text_groups"], batch["weights"] > 0
    differ = (labels[:, None] != labels) & (texts[:, None] != texts)
    if "sources" in batch:
        differ &= batch["sources"][:, None] == batch["sources"]
    return differ & real[:, None] & real


def info_nce_sum(cosines: jax.Array, negative: jax.Array, weights: jax.Array) -> jax.Array:
    """Symmetric InfoNCE (Radford et al., ICML 2021), summed over examples.

    Args:
        cosines: float32 `[B, B]`, scaled; images are rows, texts columns, true pairs on the diagonal.
        negative: bool `[B, B]` from `negative_pairs`; pairs that are neither true nor negative are left out.
        weights: float32 `[B]`.

    Returns:
        float32 scalar.
    """
    logits = jnp.where(negative | jnp.eye(len(cosines), dtype=bool), cosines, -1e30)
    partners = jnp.arange(len(cosines))
    return 0.5 * (cross_entropy_sum(logits, partners, weights) + cross_entropy_sum(logits.T, partners, weights))


def draw_confusing(key: jax.Array, cosines: jax.Array, negative: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Samples a hard negative text of the batch for each image, and an image for each text: two int32 `[B]`.

    The probability of a negative pair is proportional to exp(cosine) (Li et al., NeurIPS 2021). An example without a
    negative pair gets any example of the batch. `cosines` and `negative` are those of `info_nce_sum`.
    """
    confusing = jnp.where(negative, jax.lax.stop_gradient(cosines), -jnp.inf)
    text_key, image_key = jax.random.split(key)
    text_of = jax.random.categorical(text_key, _safe(confusing), axis=1)
    return text_of, jax.random.categorical(image_key, _safe(confusing.T), axis=1)


def _safe(logits: jax.Array) -> jax.Array:
    return jnp.where(jnp.isneginf(logits).all(axis=1, keepdims=True), 0.0, logits)
