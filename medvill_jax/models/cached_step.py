"""One step of writing a report: the network's side of `medvill_jax.decoding` (docs/spec.md#decoding).

The network learnt to write under the s2s mask by filling in [MASK]: a [MASK] in text slot t sees the image, the words
before it and itself. Hence, to find word t:

    row        content     position   sees                       its keys and values
    previous   word t-1    t-1        image, words up to itself  kept for good
    query      [MASK]      t          image, all words, itself   overwritten in the next step

and the logits are the MLM head's over the query row. This computes what running the whole sequence
`image, w_0 .. w_(t-1), [MASK]` anew would, because under s2s no image row sees text and no word sees what follows it:
neither's keys and values change when the text grows.

All beams of an image share one memory per layer, so the image's keys and values are stored once and nothing is copied
when beams change places:

    slots      [ image: N+2 | block 0: K | block 1: K | ... | block T: K ]

At step t every beam k writes its previous word into slot k of block t and its query into slot k of block t+1; block 0
is never seen. Whose words a beam continues is a table, `lineage`: `lineage[b, k, t]` is the slot of block t that holds
word t-1 of the text that beam k now stands for. It is made into the attention mask, and it alone moves with the beams.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.models.attention_masks import MASKED
from medvill_jax.models.bert import Memory
from medvill_jax.models.medvill import Medvill

Cache = dict[str, Any]
NOBODY = -1


def begin(module: Medvill, images: jax.Array, *, beams: int, max_len: int) -> Cache:
    """Runs the image block, once per image.

    Args:
        images: uint8 `[B, S, S]`, or normalised float `[B, S, S, 3]`.
        beams: texts written per image, K.
        max_len: the most steps that will follow, T.

    Returns:
        `shared`: a `Memory` per layer, `[B, heads, N+2 + (T+1) K, D]` each; `beams`: the `lineage`, int32
        `[B, K, T+1]`, which follows its beams.

    Raises:
        ValueError: the model has fewer than `max_len` positions.
    """
    positions = module.config.bert.max_positions
    if max_len > positions:
        raise ValueError(f"a report of {max_len} word pieces does not fit the model's {positions} positions")
    x = module.embed_image(module.image_features(images), None, None)  # [B, N+2, H]
    _, memories = module.encoder.remember(x, jnp.zeros((1, 1, 1, 1)))
    room = ((0, 0), (0, 0), (0, (max_len + 1) * beams), (0, 0))
    shared = tuple(Memory(jnp.pad(memory.keys, room), jnp.pad(memory.values, room)) for memory in memories)
    lineage = jnp.full((images.shape[0], beams, max_len + 1), NOBODY, jnp.int32)
    return {"shared": shared, "beams": {"lineage": lineage}}


def step(
    module: Medvill, tokens: jax.Array, index: jax.Array, cache: Cache, *, mask_id: int
) -> tuple[jax.Array, Cache]:
    """Logits for the word in text slot `index`.

    Args:
        tokens: int32 `[B, K]`, the words in slot `index - 1`; without effect at index 0.
        index: int32 scalar, 0 .. T-1; steps come in order.
        cache: from `begin` or the step before, the entries of `beams` rearranged along K as the beams were.
        mask_id: of [MASK].

    Returns:
        float32 `[B, K, V]`, and the cache for the next step.
    """
    batch, beams = tokens.shape
    lineage = cache["beams"]["lineage"]  # [B, K, T+1]
    blocks, own = lineage.shape[2], jnp.arange(beams)
    # In block 0 there is no word: its slots stay nobody's.
    writer = jnp.where(index > 0, own, NOBODY)[:, None]  # [K, 1]
    lineage = jnp.where(jnp.arange(blocks) == index, writer, lineage)  # [B, K, T+1]

    ids = jnp.concatenate([tokens, jnp.full_like(tokens, mask_id)], axis=1)  # [B, 2K]: previous words, queries
    positions = jnp.repeat(jnp.stack([jnp.maximum(index - 1, 0), index]), beams)[None]  # [1, 2K]
    content = module.embeddings.word_embeddings(ids)
    x = module.embeddings(content, positions, jnp.ones_like(positions), None)  # [B, 2K, H]

    words = lineage[..., None] == own  # [B, K, T+1, K]: the slots that hold a beam's words
    query = (jnp.arange(blocks)[:, None] == index + 1) & (own[:, None, None] == own)  # [K, T+1, K]: its own query's
    seen = jnp.concatenate([words, words | query], axis=1).reshape(batch, 2 * beams, blocks * beams)
    image_len = cache["shared"][0].keys.shape[2] - blocks * beams
    mask = jnp.pad(jnp.where(seen, 0.0, MASKED), ((0, 0), (0, 0), (image_len, 0)))  # [B, 2K, S], 0 over the image
    hidden, shared = module.encoder.remember(x, mask[:, None], cache["shared"], image_len + index * beams)
    logits = module.mlm_logits(hidden[:, beams:])  # [B, K, V]
    return logits, {"shared": shared, "beams": {"lineage": lineage}}
