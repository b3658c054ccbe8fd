"""Who may attend to whom: the attention masks of MedViLL (paper section III-C; docs/spec.md#masks).

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

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

# Far below any logit, and finite in bfloat16 and float32: a row that sees nothing stays free of NaN.
MASKED = -1e30


@dataclass(frozen=True)
class Slots:
    """What rules are made of: booleans that broadcast to `[B, L, L]`, rows (queries) by columns (keys).

    Attributes:
        image_row, image_column: in the image block.
        causal: the column is the row's own or before it.
        real: the column is not [PAD]. `allowed`: the same, unless the released masks' visible padding is asked for.
        use_s2s: of the example, under a mask that differs between examples.
    """

    image_row: jax.Array
    image_column: jax.Array
    causal: jax.Array
    real: jax.Array
    allowed: jax.Array
    use_s2s: jax.Array | None


@dataclass(frozen=True)
class Mask:
    """A kind of mask.

    Attributes:
        rule: where the row may attend to the column, broadcastable to `[B, L, L]`.
        meets: whether what is read of an image and its text, [CLS], has seen both in every example.
        own_cls: the text block begins with a [CLS] of its own, and the two [CLS] are compared.
        per_example: examples differ, by `use_s2s`.
    """

    rule: Callable[[Slots], jax.Array]
    meets: bool = True
    own_cls: bool = False
    per_example: bool = False


def _bidirectional(at: Slots) -> jax.Array:
    return at.real


def _s2s(at: Slots) -> jax.Array:
    return at.image_column | (~at.image_row & at.causal & at.allowed)


def _bar(at: Slots) -> jax.Array:
    return _s2s(at) | (at.image_row & at.allowed)


def _mixed(at: Slots) -> jax.Array:
    assert at.use_s2s is not None
    return jnp.where(at.use_s2s[:, None, None], _s2s(at), _bidirectional(at))


def _non_cross(at: Slots) -> jax.Array:
    return (at.image_row == at.image_column) & at.allowed


MASKS = {
    "bidirectional": Mask(_bidirectional),
    "s2s": Mask(_s2s, meets=False),
    "bar": Mask(_bar),
    "mixed": Mask(_mixed, meets=False, per_example=True),
    "non_cross": Mask(_non_cross, own_cls=True),
}
KINDS = tuple(MASKS)
MEETING = tuple(kind for kind, mask in MASKS.items() if mask.meets)


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
        kind: one of `MASKS`.
        image_len: slots of the image block, [CLS] and [SEP] included.
        text_lens: int32 `[B]`, real text slots, the final [SEP] included.
        text_len: text slots, padding included.
        use_s2s: bool `[B]`, required by a mask that is `per_example` and only by it.
        pad_visible: the released masks literally: `bar`'s image rows and `non_cross`'s text rows see [PAD] keys, and so
            do the [PAD] rows of the causal kinds. Only for reproducing published checkpoints; see
            docs/spec.md#visible-padding.

    Raises:
        ValueError: unknown kind, or `use_s2s` missing or superfluous.
    """
    if kind not in MASKS:
        raise ValueError(f"unknown attention kind {kind!r}; the kinds are {', '.join(MASKS)}")
    if MASKS[kind].per_example != (use_s2s is not None):
        raise ValueError("use_s2s is given exactly when kind is 'mixed'")

    index = jnp.arange(image_len + text_len)
    row, column = index[:, None], index[None, :]  # [L, 1], [1, L]
    real = column < image_len + text_lens[:, None, None]  # [B, 1, L]
    at = Slots(
        image_row=row < image_len,
        image_column=column < image_len,
        causal=column <= row,
        real=real,
        allowed=real | pad_visible,
        use_s2s=use_s2s,
    )
    length = image_len + text_len
    return jnp.broadcast_to(MASKS[kind].rule(at), (text_lens.shape[0], length, length))


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
