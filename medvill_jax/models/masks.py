"""Who may attend to whom: the five attention masks of MedViLL (paper section III-C; docs/spec.md#masks).

The sequence is an image block `[CLS] v_1 .. v_N [SEP]` of `image_len` slots followed by `text_len` text slots, of which
the first `text_lens[b]` hold words and the final [SEP] and the rest are [PAD]. Rows are queries, columns are keys:

    kind            image rows see          text rows see
    bidirectional   image, real text        image, real text
    s2s             image                   image, text up to and including themselves
    bar             image, real text        image, text up to and including themselves
    non_cross       image                   real text
    mixed           per example, s2s where `use_s2s` says so, else bidirectional

No query ever sees a [PAD] key. A [PAD] query's result is never used; it sees what the last real row of its kind would
see, so that its softmax stays defined.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

KINDS = ("bidirectional", "s2s", "bar", "mixed", "non_cross")
# Those under which what is read of an image and its text, [CLS], has seen both in every example.
MEETING = ("bidirectional", "bar", "non_cross")
# Far below any logit, and finite in bfloat16 and float32: a row that sees nothing stays free of NaN.
MASKED = -1e30


def visible(
    kind: str,
    image_len: int,
    text_lens: jax.Array,
    text_len: int,
    *,
    use_s2s: jax.Array | None = None,
    pad_visible: bool = False,
) -> jax.Array:
    """The mask as booleans `[B, L, L]` with `L = image_len + text_len`; True where the row may attend to the column.

    Args:
        kind: one of `KINDS`.
        image_len: slots of the image block, [CLS] and [SEP] included.
        text_lens: int32 `[B]`, real text slots, the final [SEP] included.
        text_len: text slots, padding included.
        use_s2s: bool `[B]`, required by `mixed` and only by it.
        pad_visible: the released masks literally: `bar`'s image rows and `non_cross`'s text rows see [PAD] keys, and so
            do the [PAD] rows of the causal kinds. Only for reproducing published checkpoints; see
            docs/spec.md#visible-padding.

    Raises:
        ValueError: unknown kind, or `use_s2s` missing or superfluous.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown attention kind {kind!r}; the kinds are {', '.join(KINDS)}")
    if (kind == "mixed") != (use_s2s is not None):
        raise ValueError("use_s2s is given exactly when kind is 'mixed'")

    index = jnp.arange(image_len + text_len)
    row, column = index[:, None], index[None, :]  # [L, 1], [1, L]
    image_row, image_column = row < image_len, column < image_len
    causal = column <= row
    real = column < image_len + text_lens[:, None, None]  # [B, 1, L]
    allowed = real | pad_visible

    full = real
    s2s = image_column | (~image_row & causal & allowed)
    if kind == "bidirectional":
        mask = full
    elif kind == "s2s":
        mask = s2s
    elif kind == "bar":
        mask = s2s | (image_row & allowed)
    elif kind == "non_cross":
        mask = (image_row == image_column) & allowed
    else:
        assert use_s2s is not None
        mask = jnp.where(use_s2s[:, None, None], s2s, full)
    length = image_len + text_len
    return jnp.broadcast_to(mask, (text_lens.shape[0], length, length))


def attention_mask(
    kind: str,
    image_len: int,
    text_lens: jax.Array,
    text_len: int,
    *,
    use_s2s: jax.Array | None = None,
    pad_visible: bool = False,
    dtype: jnp.dtype | type = jnp.float32,
) -> jax.Array:
    """The additive mask `[B, 1, L, L]`: 0 where a query may attend, a very large negative number where not.

    Arguments as for `visible`. Added to attention logits before the softmax, in `dtype`.
    """
    mask = visible(kind, image_len, text_lens, text_len, use_s2s=use_s2s, pad_visible=pad_visible)
    return jnp.where(mask, 0.0, MASKED).astype(dtype)[:, None]


def causal_queries(image_len: int, text_len: int, dtype: jnp.dtype | type = jnp.float32) -> jax.Array:
    """The additive mask `[1, 1, L, L]` of reports read once and asked for at every position, L = image + 2 text blocks.

    After the image block and the words, `text_len` slots each, comes a third block of as many [MASK] queries. Query t
    sees the image, the words before t and itself, never another query; the rest is `s2s`. So its state is the one that
    a decoder computes that has written the words before t and asks for the next.
    """
    index = jnp.arange(image_len + 2 * text_len)
    row, column = index[:, None], index[None, :]  # [L, 1], [1, L]
    queries = image_len + text_len
    query_row, word_column = row >= queries, (column >= image_len) & (column < queries)
    words = word_column & (row >= image_len) & jnp.where(query_row, column < row - text_len, column <= row)
    mask = (column < image_len) | words | (query_row & (column == row))
    return jnp.where(mask, 0.0, MASKED).astype(dtype)[None, None]
