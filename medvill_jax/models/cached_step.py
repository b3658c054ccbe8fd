"""One cached step of the network in a search over tokens, see `medvill_jax.decoding` (docs/spec.md#decoding).

The network learns to write under the s2s mask by filling in [MASK]: a [MASK] in text slot t sees the image, the tokens
before it and itself. Step t therefore runs two rows per beam, and token t is predicted by the MLM head over the second:

    row        content     position   sees                         its keys and values
    previous   token t-1   t-1        image, tokens up to itself   kept
    query      [MASK]      t          image, all tokens, itself    overwritten in the next step

The result equals running the whole sequence `image, w_0 .. w_(t-1), [MASK]`, because under s2s no image row sees text
and no token sees a later one: their keys and values do not change when the text grows.

All beams of an image share one memory per layer, so the image's keys and values are stored once and nothing is copied
when beams change places:

    slots      [ image: N+2 | block 0: K | block 1: K | ... | block T: K ]

At step t beam k writes its previous token into slot k of block t and its query into slot k of block t+1; block 0 is
never seen. The table `lineage` records the tokens that each beam continues: `lineage[b, k, t]` is the slot of block t
that holds token t-1 of beam k's text. The attention mask is made from this table, and only the table is rearranged with
the beams.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.models import views
from medvill_jax.models.attention_masks import MASKED, image_mask
from medvill_jax.models.bert import Memory
from medvill_jax.models.medvill import Medvill
from medvill_jax.models.views import AnyFilms

Cache = dict[str, Any]
# In `lineage`: no slot of this block is part of the beam's text.
NO_SLOT = -1


def begin(module: Medvill, images: AnyFilms, *, beams: int, max_len: int) -> Cache:
    """Runs the image block and returns the cache of the first step.

    Args:
        images: uint8 `[B, S, S]`, or normalised float `[B, S, S, 3]`; or several films of each example.
        beams: texts written per image, K.
        max_len: the largest number of steps, T.

    Returns:
        `shared`: a `Memory` per layer, `[B, heads, N+2 + (T+1) K, D]` each; `beams`: the entries that are rearranged
        with the beams, `lineage` int32 `[B, K, T+1]`; of several films also `mask`, the additive mask float32
        `[B, 1, 1, S]` that hides the absent ones.

    Raises:
        ValueError: the model has fewer than `max_len` positions.
    """
    positions = module.config.bert.max_positions
    if max_len > positions:
        raise ValueError(f"a report of {max_len} tokens does not fit the model's {positions} positions")
    x, shown = views.sequence(module.embed_image(module.image_features(images), None, None))  # [B, N+2, H]
    _, memories = module.encoder.remember(x, image_mask(shown))
    padding = ((0, 0), (0, 0), (0, (max_len + 1) * beams), (0, 0))
    shared = tuple(Memory(jnp.pad(memory.keys, padding), jnp.pad(memory.values, padding)) for memory in memories)
    lineage = jnp.full((x.shape[0], beams, max_len + 1), NO_SLOT, jnp.int32)
    hidden = {} if shown is None else {"mask": image_mask(shown, (max_len + 1) * beams)}
    return {"shared": shared, "beams": {"lineage": lineage}, **hidden}


def step(
    module: Medvill, tokens: jax.Array, index: jax.Array, cache: Cache, *, mask_id: int
) -> tuple[jax.Array, Cache]:
    """Logits for the token in text slot `index`.

    Args:
        tokens: int32 `[B, K]`, the tokens in slot `index - 1`; ignored at index 0.
        index: int32 scalar, 0 .. T-1; steps must run in order.
        cache: from `begin` or the previous step, with the entries of `beams` rearranged along K as the beams were.
        mask_id: id of [MASK].

    Returns:
        float32 `[B, K, V]`, and the cache for the next step.
    """
    batch, beams = tokens.shape
    lineage = cache["beams"]["lineage"]  # [B, K, T+1]
    blocks, slots = lineage.shape[2], jnp.arange(beams)
    # Block 0 holds no token.
    written = jnp.where(index > 0, slots, NO_SLOT)[:, None]  # [K, 1]
    lineage = jnp.where(jnp.arange(blocks) == index, written, lineage)  # [B, K, T+1]

    ids = jnp.concatenate([tokens, jnp.full_like(tokens, mask_id)], axis=1)  # [B, 2K]: previous tokens, queries
    positions = jnp.repeat(jnp.stack([jnp.maximum(index - 1, 0), index]), beams)[None]  # [1, 2K]
    content = module.embeddings.word_embeddings(ids)
    x = module.embeddings(content, positions, jnp.ones_like(positions), None)  # [B, 2K, H]

    text = lineage[..., None] == slots  # [B, K, T+1, K]: slots of a beam's tokens
    query = (jnp.arange(blocks)[:, None] == index + 1) & (slots[:, None, None] == slots)  # [K, T+1, K]: of its query
    seen = jnp.concatenate([text, text | query], axis=1).reshape(batch, 2 * beams, blocks * beams)
    image_len = cache["shared"][0].keys.shape[2] - blocks * beams
    mask = jnp.pad(jnp.where(seen, 0.0, MASKED), ((0, 0), (0, 0), (image_len, 0)))  # [B, 2K, S], 0 over the image
    mask = mask[:, None]
    if "mask" in cache:
        mask = mask + cache["mask"]
    hidden, shared = module.encoder.remember(x, mask, cache["shared"], image_len + index * beams)
    logits = module.mlm_logits(hidden[:, beams:])  # [B, K, V]
    return logits, {**cache, "shared": shared, "beams": {"lineage": lineage}}
