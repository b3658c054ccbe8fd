"""Every next word of a report in one pass: what a decoder that is fed the report computes (docs/spec.md#causal).

While writing, the network reads the words so far and a [MASK] at the next position; the state of that [MASK] gives the
next word. Under `s2s` no word sees a later one, so the words' states do not depend on how far the report has got, and
all [MASK] queries may stand side by side behind one copy of the words as long as none sees another or a word from its
own position on. That is exact, layer by layer: each query's keys are the image, the words before it and itself.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medvill_jax.models import attention_masks
from medvill_jax.models.dropout import fold
from medvill_jax.models.medvill import Medvill


def next_word_states(
    module: Medvill,
    images: jax.Array,
    text_ids: jax.Array,
    *,
    mask_id: int,
    cells: jax.Array | None = None,
    key: jax.Array | None = None,
    train: bool = False,
    frozen: frozenset[str] = frozenset(),
) -> jax.Array:
    """Last hidden states `[B, T+1, H]` of the query at each text position, for `Medvill.mlm_logits`.

    Args:
        module: the network.
        images: uint8 `[B, S, S]`, or normalised float `[B, S, S, 3]`.
        text_ids: int32 `[B, T+1]`: the report, [SEP], [PAD]...; query t never sees `text_ids[:, t:]`.
        mask_id: of [MASK].
        cells: int32 `[B, N]` raster indices of the kept cells, or None for all.
        key: PRNG key for dropout; None switches dropout off.
        train, frozen: as for `Medvill.encode`.
    """
    features = module.image_features(images, train=train, frozen=frozen)
    image = module.embed_image(features, cells, fold(key, 0))  # [B, N+2, H]
    words = module.embed_text(text_ids, fold(key, 1), attention="s2s")  # [B, T+1, H]
    queries = module.embed_text(jnp.full_like(text_ids, mask_id), fold(key, 3), attention="s2s")  # [B, T+1, H]
    slots = text_ids.shape[1]
    mask = attention_masks.causal_queries(image.shape[1], slots)
    return module.encoder(jnp.concatenate([image, words, queries], axis=1), mask, fold(key, 2), last=slots)
