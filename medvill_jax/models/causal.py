"""Predicts every next token of a report in one pass, as a decoder with teacher forcing (docs/spec.md#causal).

In a search over tokens the input is the tokens so far and a [MASK] at the next position, whose state predicts the next
token. Under `s2s` no token sees a later one, so the tokens' states do not depend on the length of the report. Therefore
all [MASK] queries can follow one copy of the tokens, if no query sees another or a token at or after its position. The
result is exact in every layer, since the keys of a query are the image, the tokens before it and itself.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medvill_jax.models import attention_masks, views
from medvill_jax.models.dropout import fold
from medvill_jax.models.medvill import Medvill
from medvill_jax.models.views import AnyFilms


def next_word_states(
    module: Medvill,
    images: AnyFilms,
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
        images: uint8 `[B, S, S]`, or normalised float `[B, S, S, 3]`; or several films of each example.
        text_ids: int32 `[B, T+1]`: the report, [SEP], [PAD]...; query t does not see `text_ids[:, t:]`.
        mask_id: id of [MASK].
        cells: int32 `[B, N]` raster indices of the kept cells, `[B, V, N]` of several films, or None for all.
        key: PRNG key for dropout; None switches dropout off.
        train, frozen: as for `Medvill.encode`.
    """
    features = module.image_features(images, train=train, frozen=frozen)
    return next_word_states_of(module, features, text_ids, mask_id=mask_id, cells=cells, key=key)


def next_word_states_of(
    module: Medvill,
    features: AnyFilms,
    text_ids: jax.Array,
    *,
    mask_id: int,
    cells: jax.Array | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """`next_word_states` of features `[B, G, C]` from `Medvill.image_features`."""
    image, shown = views.sequence(module.embed_image(features, cells, fold(key, 0)))  # [B, N+2, H]
    tokens = module.embed_text(text_ids, fold(key, 1), attention="s2s")  # [B, T+1, H]
    queries = module.embed_text(jnp.full_like(text_ids, mask_id), fold(key, 3), attention="s2s")  # [B, T+1, H]
    slots = text_ids.shape[1]
    mask = attention_masks.causal_queries(image.shape[1], slots, shown=shown)
    return module.encoder(jnp.concatenate([image, tokens, queries], axis=1), mask, fold(key, 2), slots=slots)
