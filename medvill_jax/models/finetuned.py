"""The heads of fine-tuning: class, answer, contrast and late-fusion heads on top of the network.

Their parameters are named `heads/...`, which tells them from the network's. A head takes a summary of image and text as
input:

    fusion   input              summary                                                              width
    joint    image              pooled [CLS] of the image block alone                                H
    joint    image + text       pooled [CLS] of the joint sequence                                   H
    joint    image + question   h_[CLS] * h_[SEP], states of the image block, or h_[CLS]             H
    late     image + text       mean visual feature, then pooled [CLS] of the text                   C + H
    joint    image + phrase     the state of each visual cell                                        H a cell

`late` is the CNN + BERT baseline (docs/spec.md#late-fusion), without attention between image and text. With `cells` the
maximum of each visual channel over the cells is appended to a joint summary, H + C values in all: most findings are in
few cells, and their features then need not pass through [CLS]. Of several films (`views`), the mean and the maxima are
those of the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from medvill_jax.errors import ConfigError
from medvill_jax.models import views
from medvill_jax.models.bert import BertConfig, layer_norm, linear
from medvill_jax.models.dropout import fold
from medvill_jax.models.medvill import Medvill, MedvillConfig
from medvill_jax.models.views import AnyFilms

FUSIONS = ("joint", "late")
SUMMARIES = ("product", "cls")
# Logarithms of the cosines' factor: CLIP's initial 1 / 0.07 and its bound 100 (Radford et al., ICML 2021).
FIRST_SCALE, LARGEST_SCALE = 2.6593, 4.6052


@dataclass(frozen=True)
class HeadsConfig:
    """The heads of a fine-tuned network.

    Attributes:
        classes: outputs of the classifier; 0 for no classifier.
        answers: outputs of the answer head; 0 for no answer head.
        contrast: width of the space that images and texts are projected to; 0 for no projections.
        matches: whether late fusion has a matching head; joint fusion uses the network's.
        fusion: one of `FUSIONS`.
        cells: whether the maxima over the cells are appended to joint summaries.
        places: whether there is a head that says of each cell whether a phrase is seen in it.

    Raises:
        ConfigError: unknown fusion, or cells or places with late fusion.
    """

    classes: int = 0
    answers: int = 0
    contrast: int = 0
    matches: bool = False
    fusion: str = "joint"
    cells: bool = False
    places: bool = False

    def __post_init__(self) -> None:
        if self.fusion not in FUSIONS:
            raise ConfigError(f"unknown fusion {self.fusion!r}; there are {', '.join(FUSIONS)}")
        if self.cells and self.fusion == "late":
            raise ConfigError("cells are for fusion=joint, not for fusion=late: leave one of them out")
        if self.places and self.fusion == "late":
            raise ConfigError("places are for fusion=joint: under fusion=late no cell meets a text")


class AnswerHead(nnx.Module):
    """Linear to twice the width, ReLU, Linear to the answers (docs/spec.md#vqa)."""

    def __init__(self, in_size: int, answers: int, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.hidden = linear(in_size, 2 * config.hidden_size, config, dtype=dtype, rngs=rngs)
        self.output = linear(2 * config.hidden_size, answers, config, dtype=dtype, rngs=rngs)

    def __call__(self, summary: jax.Array) -> jax.Array:
        """`[B, S]` -> float32 logits `[B, answers]`."""
        return self.output(jax.nn.relu(self.hidden(summary))).astype(jnp.float32)


class PlaceHead(nnx.Module):
    """Linear, GELU, Linear to one logit, for the state of each cell (docs/tasks.md#grounding)."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.hidden = linear(config.hidden_size, config.hidden_size, config, dtype=dtype, rngs=rngs)
        self.output = linear(config.hidden_size, 1, config, dtype=dtype, rngs=rngs)

    def __call__(self, cells: jax.Array) -> jax.Array:
        """`[B, N, H]` -> float32 logits `[B, N]`."""
        return self.output(jax.nn.gelu(self.hidden(cells), approximate=False))[..., 0].astype(jnp.float32)


class ContrastHead(nnx.Module):
    """Linear projections of image and text to one space, and the scale of their cosines."""

    def __init__(self, width: int, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.image = linear(config.hidden_size, width, config, dtype=dtype, rngs=rngs)
        self.text = linear(config.hidden_size, width, config, dtype=dtype, rngs=rngs)
        self.scale = nnx.Param(jnp.full((), FIRST_SCALE, jnp.float32))

    def temperature(self) -> jax.Array:
        """The factor of the cosines, float32 scalar."""
        return jnp.exp(jnp.minimum(self.scale[...], LARGEST_SCALE))


class Heads(nnx.Module):
    """The heads that a `HeadsConfig` names."""

    def __init__(
        self, heads: HeadsConfig, config: MedvillConfig, image_width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        bert = config.transformer
        size = bert.hidden_size + (image_width if heads.fusion == "late" or heads.cells else 0)
        if heads.cells:
            self.cells = layer_norm(image_width, bert.layer_norm_eps, dtype=dtype, rngs=rngs)
        if heads.classes:
            self.classifier = linear(size, heads.classes, bert, dtype=dtype, rngs=rngs)
        if heads.answers:
            self.answer = AnswerHead(size, heads.answers, bert, dtype=dtype, rngs=rngs)
        if heads.places:
            self.place = PlaceHead(bert, dtype=dtype, rngs=rngs)
        if heads.contrast:
            self.contrast = ContrastHead(heads.contrast, bert, dtype=dtype, rngs=rngs)
        if heads.matches and heads.fusion == "late":
            self.match = linear(size, 2, bert, dtype=dtype, rngs=rngs)


class Finetuned(Medvill):
    """The network with heads on top."""

    def __init__(self, config: MedvillConfig, heads: HeadsConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs, remat: str = ""):
        super().__init__(config, dtype=dtype, rngs=rngs, remat=remat)
        self.fusion, self.takes_cells = heads.fusion, heads.cells
        self.heads = Heads(heads, config, self.image_encoder.width, dtype=dtype, rngs=rngs)

    def match_side(self, features: AnyFilms, cells: jax.Array | None = None, key: jax.Array | None = None) -> Any:
        if self.fusion == "joint":
            return super().match_side(features, cells, key)
        return views.first(features).mean(axis=1)  # [B, C]

    def match(
        self,
        side: Any,
        text_ids: jax.Array,
        text_lens: jax.Array,
        *,
        attention: str | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        if self.fusion == "joint":
            return super().match(side, text_ids, text_lens, attention=attention, key=key)
        return self.heads.match(self._fused(side, text_ids, text_lens, key)).astype(jnp.float32)

    def summary(
        self,
        features: AnyFilms,
        text_ids: jax.Array | None = None,
        text_lens: jax.Array | None = None,
        *,
        cells: jax.Array | None = None,
        product: bool | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """The input of a head, `[B, H]`, `[B, C + H]` or with cells `[B, H + C]`; see the module's table.

        Args:
            features: `[B, G, C]` from `image_features`, or those of several films.
            text_ids: int32 `[B, T+1]`, or None for the image alone.
            text_lens: int32 `[B]`, or None for the image alone.
            cells: int32 `[B, N]` raster indices of the kept cells, `[B, V, N]` of several films, or None for all.
            product: None takes the pooled [CLS], True the product h_[CLS] * h_[SEP], False h_[CLS].
            key: PRNG key for dropout, or None.

        Raises:
            ValueError: late fusion without a text.
        """
        if self.fusion == "late":
            if text_ids is None or text_lens is None:
                raise ValueError("late fusion needs a text: give text_ids and text_lens")
            return self._fused(views.first(features).mean(axis=1), text_ids, text_lens, key)
        summary = self._joint(features, text_ids, text_lens, cells, product, key)
        if not self.takes_cells:
            return summary
        return jnp.concatenate([summary, self.heads.cells(views.first(features).max(axis=1))], axis=-1)

    def _joint(
        self,
        features: AnyFilms,
        text_ids: jax.Array | None,
        text_lens: jax.Array | None,
        cells: jax.Array | None,
        product: bool | None,
        key: jax.Array | None,
    ) -> jax.Array:
        block = self.embed_image(features, cells, fold(key, 0))
        if text_ids is None or text_lens is None:
            return self.encode_image(block, key)
        hidden = self.encode_block(block, text_ids, text_lens, key=key)
        if product is None:
            return hidden.summary
        return hidden.image[:, 0] * hidden.image[:, -1] if product else hidden.image[:, 0]

    def class_logits(self, summary: jax.Array) -> jax.Array:
        """float32 `[B, classes]`."""
        return self.heads.classifier(summary).astype(jnp.float32)

    def answer_logits(self, summary: jax.Array) -> jax.Array:
        """float32 `[B, answers]`."""
        return self.heads.answer(summary)

    def place_logits(
        self,
        features: jax.Array,
        text_ids: jax.Array,
        text_lens: jax.Array,
        *,
        cells: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Whether a phrase is seen in each cell, float32 logits `[B, N]`; arguments as for `summary`."""
        block = self.embed_image(features, cells, fold(key, 0))
        hidden = self.encode_block(block, text_ids, text_lens, key=key)
        return self.heads.place(hidden.image[:, 1:-1])

    def project_image(self, block: AnyFilms, key: jax.Array | None = None) -> jax.Array:
        """Unit vectors float32 `[B, D]` of image blocks `[B, N+2, H]`."""
        return _unit(self.heads.contrast.image(self.encode_image(block, key)))

    def project_text(self, text_ids: jax.Array, text_lens: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Unit vectors float32 `[B, D]` of texts, as for `encode_text`."""
        return _unit(self.heads.contrast.text(self.encode_text(text_ids, text_lens, key)))

    def _fused(self, mean: jax.Array, text_ids: jax.Array, text_lens: jax.Array, key: jax.Array | None) -> jax.Array:
        return jnp.concatenate([mean, self.encode_text(text_ids, text_lens, key)], axis=-1)


def _unit(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
