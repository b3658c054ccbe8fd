"""The attention masks of MedViLL (paper section III-C; docs/spec.md#masks).

The sequence is an image block `[CLS] v_1 .. v_N [SEP]` of `image_len` slots followed by `text_len` text slots, of which
the first `text_lens[b]` hold tokens and the final [SEP], and the rest are [PAD]. Rows are queries, columns are keys:

    kind            image rows see          text rows see
    bidirectional   image, real text        image, real text
    s2s             image                   image, text up to and including themselves
    bar             image, real text        image, text up to and including themselves
    non_cross       image                   real text
    mixed           per example, s2s where `use_s2s` says so, else bidirectional

With several films (docs/spec.md#views) the image block consists of their blocks, one after the other, and the rules
are the same: images see images. No query sees a slot of a film that is absent.

No query sees a [PAD] key. The result of a [PAD] query is never used; it sees at least one real key, so that its softmax
is defined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

# Far below any logit, but finite in bfloat16 and float32, so that a row that sees nothing has no NaN.
MASKED = -1e30


@dataclass(frozen=True)
class Slots:
    """The input of a mask's rule: booleans that broadcast to `[B, L, L]`, rows (queries) by columns (keys).

    Attributes:
        image_row, image_column: the row, the column is in the image block.
        causal: the column is not after the row.
        real: the column is not [PAD].
        allowed: as `real`, but true everywhere if `pad_visible` is set.
        use_s2s: bool `[B]`, whether the example takes the s2s mask; None unless the mask is `per_example`.
    """

    image_row: jax.Array
    image_column: jax.Array
    causal: jax.Array
    real: jax.Array
    allowed: jax.Array
    use_s2s: jax.Array | None


@dataclass(frozen=True)
class Mask:
    """An attention mask.

    Attributes:
        rule: returns where the row may attend to the column, broadcastable to `[B, L, L]`.
        meets: the input of the ITM head depends on image and text in every example.
        own_cls: the text block begins with a second [CLS], whose state is multiplied with the first for matching.
        per_example: examples have different masks, chosen by `use_s2s`.
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
# The masks under which image and text can be matched.
MEETING = tuple(kind for kind, mask in MASKS.items() if mask.meets)


def visible(
    kind: str,
    image_len: int,
    text_lens: jax.Array,
    text_len: int,
    *,
    use_s2s: jax.Array | None = None,
    pad_visible: bool = False,
    shown: jax.Array | None = None,
) -> jax.Array:
    """The mask as booleans `[B, L, L]`, L = image_len + text_len; True where the row may attend to the column.

    Args:
        kind: one of `MASKS`.
        image_len: slots of the image block, [CLS] and [SEP] included.
        text_lens: int32 `[B]`, real text slots, the final [SEP] included.
        text_len: text slots, padding included.
        use_s2s: bool `[B]`; required if the mask is `per_example`, and refused otherwise.
        pad_visible: reproduces the released masks: `bar`'s image rows, `non_cross`'s text rows and the [PAD] rows of
            causal masks see [PAD] keys (docs/spec.md#visible-padding).
        shown: bool `[B, image_len]`, the image slots whose film is there, the first among them; None: all.

    Raises:
        ValueError: unknown kind, or `use_s2s` missing or superfluous.
    """
    if kind not in MASKS:
        raise ValueError(f"unknown attention kind {kind!r}; the kinds are {', '.join(MASKS)}")
    if MASKS[kind].per_example != (use_s2s is not None):
        raise ValueError("use_s2s must be given for attention kind 'mixed' and no other")

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
    may_attend = jnp.broadcast_to(MASKS[kind].rule(at), (text_lens.shape[0], length, length))
    return may_attend if shown is None else may_attend & _columns(shown, length)


def attention_mask(
    kind: str,
    image_len: int,
    text_lens: jax.Array,
    text_len: int,
    *,
    use_s2s: jax.Array | None = None,
    pad_visible: bool = False,
    shown: jax.Array | None = None,
    dtype: jnp.dtype | type = jnp.float32,
) -> jax.Array:
    """The mask as a term `[B, 1, L, L]` of the attention logits: 0 where a query may attend, `MASKED` elsewhere.

    Arguments and errors as for `visible`; `dtype` is the result's.
    """
    may_attend = visible(kind, image_len, text_lens, text_len, use_s2s=use_s2s, pad_visible=pad_visible, shown=shown)
    return jnp.where(may_attend, 0.0, MASKED).astype(dtype)[:, None]


def image_mask(shown: jax.Array | None, text_len: int = 0) -> jax.Array:
    """The additive mask `[B, 1, 1, L]` of queries that see all films and the `text_len` slots after them.

    Without `shown`, bool `[B, image_len]` as for `visible`, `[1, 1, 1, 1]`.
    """
    if shown is None:
        return jnp.zeros((1, 1, 1, 1))
    return jnp.where(_columns(shown, shown.shape[1] + text_len), 0.0, MASKED)[:, None]


def causal_queries(
    image_len: int, text_len: int, dtype: jnp.dtype | type = jnp.float32, *, shown: jax.Array | None = None
) -> jax.Array:
    """The additive mask `[1, 1, L, L]` for predicting every token of a report in one pass, L = image_len + 2 text_len.

    The sequence is the image block, the report's `text_len` tokens, and one [MASK] query for each of them. Query t sees
    the image, the tokens before t and itself, and no other query; the other rows follow `s2s`. Its state is therefore
    that of the [MASK] in step t of a search that has written the tokens before t. With `shown`, as for `visible`, the
    mask is `[B, 1, L, L]`.
    """
    index = jnp.arange(image_len + 2 * text_len)
    row, column = index[:, None], index[None, :]  # [L, 1], [1, L]
    queries = image_len + text_len
    query_row, token_column = row >= queries, (column >= image_len) & (column < queries)
    tokens = token_column & (row >= image_len) & jnp.where(query_row, column < row - text_len, column <= row)
    may_attend = ((column < image_len) | tokens | (query_row & (column == row)))[None]
    if shown is not None:
        may_attend = may_attend & _columns(shown, len(index))
    return jnp.where(may_attend, 0.0, MASKED).astype(dtype)[:, None]


def _columns(shown: jax.Array, length: int) -> jax.Array:
    """bool `[B, 1, length]`: the columns that may be seen, given those of the image block."""
    return jnp.pad(shown, ((0, 0), (0, length - shown.shape[1])), constant_values=True)[:, None]
