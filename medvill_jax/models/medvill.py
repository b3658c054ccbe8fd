"""MedViLL (Moon et al., IEEE JBHI 2022): one BERT over `[CLS] v_1 .. v_N [SEP] w_1 .. w_t [SEP] [PAD]..`.

docs/spec.md#layout defines token types and positions: type 0 in the image block and 1 in the text block; a visual
token's position is the raster index of its cell, [CLS] and the first [SEP] have position 0, and text positions count
from 0. Under the `non_cross` mask the text block begins with a second [CLS], and matching uses the product of both
[CLS] states.

With `views` above 1 the image block consists of one block for each film, `[CLS] v_1 .. v_N [SEP]` each, which differ in
their token type (docs/spec.md#views).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from medvill_jax.errors import ConfigError
from medvill_jax.models import attention_masks, encoders, views
from medvill_jax.models.bert import BertConfig, Embeddings, Encoder, Pooler, linear
from medvill_jax.models.compat import Compat
from medvill_jax.models.dropout import fold
from medvill_jax.models.encoders import ImageEncoder
from medvill_jax.models.heads import ItmHead, MlmHead
from medvill_jax.models.views import AnyFilms, Films

# ImageNet statistics, for the encoders' pre-trained weights; float32, RGB.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)

CLEAN = Compat()


@dataclass(frozen=True)
class MedvillConfig:
    """Sizes and settings of the network.

    Attributes:
        bert: sizes of the Transformer.
        image_encoder: one of `encoders.ENCODERS`, or the sizes of an encoder without a name.
        image_size: side of the square input, pixels.
        attention: one of `attention_masks.MASKS`.
        num_cells: visual tokens kept in training (random, per example, in raster order); None keeps all.
        s2s_prob: share of examples that take the s2s mask under `mixed`.
        cls_id, sep_id: ids of [CLS] and [SEP].
        compat: switches to the released code's behaviour; by default all are off.
        views: films of an example at most: 1, 2 with a second view, 3 with the film of the study before too.

    Raises:
        ConfigError: sizes that do not fit together; the message names the fields.
    """

    bert: BertConfig
    image_encoder: str | ImageEncoder = "resnet50"
    image_size: int = 512
    attention: str = "bar"
    num_cells: int | None = None
    s2s_prob: float = 0.75
    cls_id: int = 101
    sep_id: int = 102
    compat: Compat = CLEAN
    views: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.image_encoder, str) and self.image_encoder not in encoders.ENCODERS:
            raise ConfigError(f"unknown image encoder {self.image_encoder!r}; there are {', '.join(encoders.ENCODERS)}")
        if self.attention not in attention_masks.MASKS:
            raise ConfigError(f"unknown attention {self.attention!r}; the kinds are {', '.join(attention_masks.MASKS)}")
        if self.image_size % self.stride or self.image_size < self.stride:
            raise ConfigError(f"image size {self.image_size} is not a multiple of {self.image_encoder}'s {self.stride}")
        if self.num_cells is not None and not 0 < self.num_cells <= self.grid_cells:
            raise ConfigError(f"num_cells {self.num_cells} is not in 1..{self.grid_cells}, the cells of the image grid")
        if self.grid_cells > self.bert.max_positions:
            raise ConfigError(f"{self.grid_cells} image cells do not fit {self.bert.max_positions} positions")
        if not 1 <= self.views <= len(views.TOKEN_TYPES):
            raise ConfigError(f"views={self.views} is not in 1..{len(views.TOKEN_TYPES)}")
        if self.views > 1 and self.compat != CLEAN:
            raise ConfigError(f"views={self.views}: the released code takes one film; leave compat out, or set views=1")
        if self.views > 1 and self.bert.token_types <= max(views.TOKEN_TYPES[: self.views]):
            raise ConfigError(f"{self.bert.token_types} token types are too few for views={self.views} and a text")
        for name in ("cls_id", "sep_id"):
            if not 0 <= getattr(self, name) < self.bert.vocab_size:
                raise ConfigError(f"{name}={getattr(self, name)} is outside the vocabulary of {self.bert.vocab_size}")

    @property
    def stride(self) -> int:
        """Pixels per cell side."""
        return self.encoder.stride

    @property
    def encoder(self) -> ImageEncoder:
        """Sizes of the image encoder."""
        return encoders.find(self.image_encoder)

    @property
    def transformer(self) -> BertConfig:
        """`bert` with the values that `compat` replaces."""
        eps = self.compat.layer_norm_eps
        return self.bert if eps is None else dataclasses.replace(self.bert, layer_norm_eps=eps)

    @property
    def grid_cells(self) -> int:
        """Cells of the whole grid, G."""
        return (self.image_size // self.stride) ** 2

    def as_dict(self) -> dict[str, Any]:
        """The fields as nested dicts. Without `views` if there is one, as before networks could have several."""
        fields = dataclasses.asdict(self)
        return fields if self.views > 1 else {name: value for name, value in fields.items() if name != "views"}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> MedvillConfig:
        """The inverse of `as_dict` and `dataclasses.asdict`, also of their JSON.

        Raises:
            ConfigError: unknown or missing fields, or values that do not fit.
        """
        try:
            values = dict(fields)
            values["bert"] = BertConfig(**values["bert"])
            values["compat"] = Compat(**values.get("compat", {}))
            if isinstance(encoder := values.get("image_encoder"), Mapping):
                values["image_encoder"] = encoders.from_fields(encoder)
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ConfigError(f"this is not the configuration of a model: {error}") from error


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hidden:
    """Last hidden states `image` `[B, N+2, H]` and `text` `[B, T+1, H]`; the ITM head's input `summary` `[B, H]`.

    Of several films, `image` is the first. Where `words` were asked for, `text` is theirs, `[B, P, H]`, and `image` is
    [CLS] alone, `[B, 1, H]`.
    """

    image: jax.Array
    text: jax.Array
    summary: jax.Array


def normalize(images: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """uint8 `[B, S, S]` -> `[B, S, S, 3]`, scaled to 0..1 and standardised; floats `[B, S, S, 3]` are only cast."""
    if images.dtype != jnp.uint8:
        return images.astype(dtype)
    # Pixel values are exact, and XLA divides by multiplying with a rounded reciprocal: this rounds one factor only.
    mean, std = 255.0 * np.array(PIXEL_MEAN), 255.0 * np.array(PIXEL_STD)
    x = images[..., None].astype(jnp.float32) - mean.astype(np.float32)
    return (x * (1.0 / std).astype(np.float32)).astype(dtype)


def sample_cells(key: jax.Array, batch: int, grid_cells: int, num_cells: int, *, shared: bool = False) -> jax.Array:
    """Samples cells: int32 `[B, num_cells]`, ascending, without repeats (docs/spec.md#cells).

    Args:
        key: PRNG key.
        batch: number of examples, B.
        grid_cells: number of cells to sample from.
        num_cells: number of cells per example.
        shared: all examples have the same cells (`Compat.shared_cells`).
    """
    noise = jax.random.uniform(key, (1 if shared else batch, grid_cells))
    return jnp.broadcast_to(jnp.sort(jax.lax.top_k(noise, num_cells)[1], axis=-1), (batch, num_cells))


def _asked(words: jax.Array, image_len: int, own_cls: int) -> jax.Array:
    """Slots of [CLS], of the `own_cls` [CLS] of the text, and of its words `[B, P]`: int32 `[B, 1 + own_cls + P]`."""
    text = jnp.pad(words + own_cls, ((0, 0), (own_cls, 0))) + image_len
    return jnp.pad(text, ((0, 0), (1, 0)))


def _cls(x: jax.Array) -> jax.Array:
    """The slot of [CLS] in sequences `[B, L, H]`, int32 `[B, 1]`."""
    return jnp.zeros((len(x), 1), jnp.int32)


class Medvill(nnx.Module):
    """The pre-training network: image encoder, shared embeddings, encoder, pooler, MLM and ITM heads.

    The policy `remat` decides what the layers of both encoders recompute for their gradient; see `models.remat`.
    """

    def __init__(self, config: MedvillConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs, remat: str = ""):
        self.config = config
        self.dtype = dtype
        self.image_encoder = config.encoder.build(dtype=dtype, rngs=rngs, remat=remat)
        bert = config.transformer
        self.image_projection = linear(self.image_encoder.width, bert.hidden_size, config.bert, dtype=dtype, rngs=rngs)
        self.embeddings = Embeddings(bert, dtype=dtype, rngs=rngs)
        self.encoder = Encoder(bert, dtype=dtype, rngs=rngs, remat=remat)
        self.pooler = Pooler(bert, dtype=dtype, rngs=rngs)
        self.mlm = MlmHead(bert, dtype=dtype, rngs=rngs)
        self.itm = ItmHead(bert, dtype=dtype, rngs=rngs)

    def image_features(self, images: AnyFilms, *, train: bool = False, frozen: frozenset[str] = frozenset()) -> Any:
        """Images, uint8 `[B, S, S]` or normalised float `[B, S, S, 3]` -> features `[B, G, C]` in raster order."""
        if isinstance(images, Films):
            return images.filled().map(lambda pixels: self.image_features(pixels, train=train, frozen=frozen))
        if self.config.compat.frozen_batch_norm == "batch":
            frozen = frozenset()
        return self.image_encoder(normalize(images, self.dtype), train=train, frozen=frozen)

    def embed_image(self, features: AnyFilms, cells: jax.Array | None, key: jax.Array | None) -> Any:
        """The image block's embeddings `[B, N+2, H]` of features `[B, G, C]` at the cells `[B, N]` (None: all).

        Of several films `[B, V, G, C]` at the cells `[B, V, N]`, a block of each, `[B, V, N+2, H]`.
        """
        if not isinstance(features, Films):
            return self._embed_image(features, cells, key)
        rows, count, *_ = features.values.shape
        kinds = jnp.tile(jnp.array(views.TOKEN_TYPES[:count]), rows)
        cells = None if cells is None else cells.reshape(rows * count, -1)
        return features.map(lambda values: self._embed_image(values, cells, key, kinds))

    def _embed_image(self, features: jax.Array, cells: Any, key: jax.Array | None, kinds: Any = None) -> jax.Array:
        """`embed_image` of one film each; `kinds` are their token types int32 `[B]`, None: 0."""
        batch, grid, _ = features.shape
        if cells is None:
            positions = jnp.broadcast_to(jnp.arange(grid), (batch, grid))
        else:
            positions = cells
            features = jnp.take_along_axis(features, cells[..., None], axis=1)
        first, last = (self.embeddings.word(token, batch) for token in (self.config.cls_id, self.config.sep_id))
        content = jnp.concatenate([first, self.image_projection(features), last], axis=1)
        kept, compat = positions.shape[1], self.config.compat
        if compat.cell_positions == "contiguous":
            positions = jnp.broadcast_to(jnp.arange(1, kept + 1), (batch, kept))
        # [CLS] and [SEP] have position 0, as in the published pre-training (docs/spec.md#layout).
        positions = jnp.pad(positions, ((0, 0), (1, 1)))
        if compat.first_sep_position == "after_cells":
            positions = positions.at[:, -1].set(kept + 1)
        token_types = jnp.zeros_like(positions) if kinds is None else jnp.broadcast_to(kinds[:, None], positions.shape)
        return self.embeddings(content, positions, token_types, key)

    def embed_text(
        self,
        text_ids: jax.Array,
        key: jax.Array | None,
        *,
        text_lens: jax.Array | None = None,
        attention: str | None = None,
    ) -> jax.Array:
        """The text block's embeddings: `[B, T+1, H]`, or `[B, T+2, H]` with a [CLS] first under `non_cross`.

        Args:
            text_ids: int32 `[B, T+1]`.
            key: PRNG key for dropout, or None.
            text_lens: int32 `[B]`, for `compat.pad_segment`; None means that no slot is [PAD].
            attention: one of `attention_masks.MASKS`; None is the configured one.
        """
        batch, slots = text_ids.shape
        content = self.embeddings.word_embeddings(text_ids)
        positions = jnp.arange(slots)
        token_types = jnp.ones((1, slots), jnp.int32)
        if text_lens is not None and self.config.compat.pad_segment == 0:
            token_types = (positions < text_lens[:, None]).astype(jnp.int32)  # [B, T+1]
        if attention_masks.MASKS[attention or self.config.attention].own_cls:
            content = jnp.concatenate([self.embeddings.word(self.config.cls_id, batch), content], axis=1)
            positions = jnp.pad(positions, (1, 0))
            token_types = jnp.pad(token_types, ((0, 0), (1, 0)), constant_values=1)
        return self.embeddings(content, positions[None], token_types, key)

    def encode(
        self,
        images: AnyFilms,
        text_ids: jax.Array,
        text_lens: jax.Array,
        *,
        attention: str | None = None,
        cells: jax.Array | None = None,
        use_s2s: jax.Array | None = None,
        words: jax.Array | None = None,
        key: jax.Array | None = None,
        train: bool = False,
        frozen: frozenset[str] = frozenset(),
    ) -> Hidden:
        """Runs the network.

        Args:
            images: uint8 `[B, S, S]`, or normalised float `[B, S, S, 3]`; or several films of each example.
            text_ids: int32 `[B, T+1]`: tokens, [SEP], [PAD]...
            text_lens: int32 `[B]`: tokens with the final [SEP].
            attention: one of `attention_masks.MASKS`; None is the configured one.
            cells: int32 `[B, N]` raster indices of the kept cells, `[B, V, N]` of several films, or None for all.
            use_s2s: bool `[B]`, for `mixed` only: which examples take the s2s mask.
            words: int32 `[B, P]`, the text slots whose states are wanted, and with them [CLS]: the last layer computes
                no others. None wants all.
            key: PRNG key for dropout; None switches dropout off.
            train: BatchNorm on batch statistics in the parts of the image encoder that are not `frozen`.
            frozen: parts of the image encoder that do not train, e.g. `{"embedder", "stages/0"}`.
        """
        features = self.image_features(images, train=train, frozen=frozen)
        image = self.embed_image(features, cells, fold(key, 0))
        return self.encode_block(image, text_ids, text_lens, attention=attention, use_s2s=use_s2s, words=words, key=key)

    def encode_block(
        self,
        block: AnyFilms,
        text_ids: jax.Array,
        text_lens: jax.Array,
        *,
        attention: str | None = None,
        use_s2s: jax.Array | None = None,
        words: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Hidden:
        """`encode` with an image block `[B, N+2, H]` from `embed_image`, which can be used with many texts."""
        image, shown = views.sequence(block)
        kind = attention or self.config.attention
        text = self.embed_text(text_ids, fold(key, 1), text_lens=text_lens, attention=kind)
        image_len, own_cls = image.shape[1], text.shape[1] - text_ids.shape[1]
        mask = attention_masks.attention_mask(
            kind,
            image_len,
            text_lens + own_cls,
            text.shape[1],
            use_s2s=use_s2s,
            pad_visible=self.config.compat.pad_visible,
            shown=shown,
        )
        slots = None if words is None else _asked(words, image_len, own_cls)
        hidden = self.encoder(jnp.concatenate([image, text], axis=1), mask, fold(key, 2), slots)
        first, begin = (views.first(block).shape[1], image_len) if words is None else (1, 1)
        image, text = hidden[:, :first], hidden[:, begin:]
        if own_cls:
            return Hidden(image, text[:, 1:], image[:, 0] * text[:, 0])
        return Hidden(image, text, self.pooler(image))

    def encode_image(self, block: AnyFilms, key: jax.Array | None = None) -> jax.Array:
        """Pooled [CLS] `[B, H]` of an image block `[B, N+2, H]` without text."""
        image, shown = views.sequence(block)
        return self.pooler(self.encoder(image, attention_masks.image_mask(shown), fold(key, 2), _cls(image)))

    def encode_text(self, text_ids: jax.Array, text_lens: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Pooled [CLS] `[B, H]` of a text without image; [CLS] comes first, as under `non_cross`.

        Args:
            text_ids: int32 `[B, T+1]`: tokens, [SEP], [PAD]...
            text_lens: int32 `[B]`: tokens with the final [SEP].
            key: PRNG key for dropout, or None.
        """
        text = self.embed_text(text_ids, fold(key, 1), text_lens=text_lens, attention="non_cross")
        mask = attention_masks.attention_mask("bidirectional", 0, text_lens + 1, text.shape[1])
        return self.pooler(self.encoder(text, mask, fold(key, 3), _cls(text)))

    def match_side(self, features: AnyFilms, cells: jax.Array | None = None, key: jax.Array | None = None) -> Any:
        """The image side of `match`, `[B, ...]`, of features `[B, G, C]`; each can be used with many texts."""
        return self.embed_image(features, cells, fold(key, 0))

    def match(
        self,
        side: AnyFilms,
        text_ids: jax.Array,
        text_lens: jax.Array,
        *,
        attention: str | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """ITM logits float32 `[B, 2]` of the image and the text of each row; class 1 means matched.

        Args:
            side: `[B, ...]` from `match_side`.
            text_ids, text_lens, attention, key: as for `encode`.
        """
        hidden = self.encode_block(side, text_ids, text_lens, attention=attention, words=text_ids[:, :0], key=key)
        return self.itm_logits(hidden.summary)

    def mlm_logits(self, text_hidden: jax.Array, positions: jax.Array | None = None) -> jax.Array:
        """MLM logits float32 `[B, P, V]` at `positions` `[B, P]`, or `[B, T+1, V]` at all positions."""
        if positions is not None:
            text_hidden = jnp.take_along_axis(text_hidden, positions[..., None], axis=1)
        return self.mlm(text_hidden, self.embeddings.word_embeddings)

    def itm_logits(self, summary: jax.Array) -> jax.Array:
        """ITM logits float32 `[B, 2]` of summaries `[B, H]`; class 1 means matched."""
        return self.itm(summary)
