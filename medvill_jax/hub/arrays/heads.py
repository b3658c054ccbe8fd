"""The pre-training heads and the last hidden states of an export."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from medvill_jax.hub.arrays.bound import NEEDED, Array, Bound, integers, within
from medvill_jax.hub.export import Export
from medvill_jax.hub.network import functional
from medvill_jax.models import attention_masks
from medvill_jax.models.bert import BertConfig, Embeddings, Encoder
from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import Hidden, MedvillConfig


class PretrainingHeads(Bound):
    """MLM and ITM logits, and the hidden states that they are computed from."""

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        super().__init__(export, config, dtype)
        self._run = self._jit(self._forward, static_argnames=("attention", "heads"))
        self._run_text = self._jit(self._forward_text)

    def logits(
        self,
        images: Array,
        text_ids: Array,
        text_lens: Array,
        attention: str | None = None,
        cells: Array | None = None,
        use_s2s: Array | None = None,
    ) -> dict[str, jax.Array]:
        """Logits of both pre-training heads; layout and positions as in docs/spec.md#layout.

        Args:
            images: uint8 `[B, H, W]`, which the network normalises, or normalised float32 `[B, H, W, 3]`.
            text_ids: int32 `[B, T+1]`: tokens, [SEP], [PAD]...
            text_lens: int32 `[B]`: tokens with the final [SEP].
            attention: one of `attention_masks.MASKS`; None takes the mask that the model was trained with.
            cells: int `[B, N]` or `[N]`, raster indices of the kept cells; None keeps all.
            use_s2s: bool `[B]`, under `mixed` only: which examples take the s2s mask. None takes the bidirectional mask
                for all, as tasks other than writing do.

        Returns:
            `mlm` float32 `[B, T+1, V]` and `itm` float32 `[B, 2]` (class 1: matched); a head that the export lacks is
            left out. MLM logits at [PAD] slots mean nothing.

        Raises:
            ValueError: shapes, types or values that do not fit; the message names them.
            HubError: the export lacks a part that this needs.
        """
        attention = attention or self._config.attention
        arguments = self._checked(images, text_ids, text_lens, attention, cells, use_s2s)
        heads = ["mlm"] if "mlm" in self._export.parts else []
        if "itm" in self._export.parts and (attention_masks.MASKS[attention].own_cls or "pooler" in self._export.parts):
            heads.append("itm")
        with self._precise():
            return self._run(*self._bound(), *arguments, attention=attention, heads=tuple(heads))["logits"]

    def hidden(
        self,
        images: Array,
        text_ids: Array,
        text_lens: Array,
        attention: str | None = None,
        cells: Array | None = None,
        use_s2s: Array | None = None,
    ) -> Hidden:
        """Last hidden states, for the heads of other tasks; arguments and errors as for `logits`.

        `summary` is the pooled [CLS], or under `non_cross` the product of both [CLS] states. The pooled [CLS] of an
        export without pooler means nothing.
        """
        attention = attention or self._config.attention
        arguments = self._checked(images, text_ids, text_lens, attention, cells, use_s2s)
        with self._precise():
            return self._run(*self._bound(), *arguments, attention=attention, heads=())["hidden"]

    def text_hidden(self, ids: Array, lens: Array, token_types: Array | None = None) -> jax.Array:
        """Last hidden states of BERT over text alone, float `[B, L, H]`; works without image encoder.

        Args:
            ids: int32 `[B, L]`, special tokens included.
            lens: int32 `[B]`, slots that are not [PAD].
            token_types: int32 `[B, L]`; None is type 0 everywhere, as in BERT's first sentence.

        Raises:
            ValueError: shapes or values that do not fit.
            HubError: the export has no BERT.
        """
        self._require(("embeddings", "encoder"))
        ids, lens = integers("ids", ids, 2), integers("lens", lens, 1)
        bert = self._config.transformer
        within("ids", ids, 0, bert.vocab_size - 1)
        within("lens", lens, 1, ids.shape[1])
        if ids.shape[1] > bert.max_positions:
            raise ValueError(f"{ids.shape[1]} slots do not fit {bert.max_positions} positions")
        types = np.zeros_like(ids) if token_types is None else integers("token_types", token_types, 2)
        within("token_types", types, 0, bert.token_types - 1)
        parts = {name: self._export.params[name] for name in ("embeddings", "encoder")}
        with self._precise():
            return self._run_text(parts, ids, lens, types)

    def _forward(
        self, params: Any, stats: Any, *arguments: Any, attention: str, heads: tuple[str, ...]
    ) -> dict[str, Any]:
        images, text_ids, text_lens, cells, use_s2s = arguments
        module = functional(self._config, self._dtype).bind(params, stats)
        hidden = module.encode(images, text_ids, text_lens, attention=attention, cells=cells, use_s2s=use_s2s)
        logits = {}
        if "mlm" in heads:
            logits["mlm"] = module.mlm_logits(hidden.text)
        if "itm" in heads:
            logits["itm"] = module.itm_logits(hidden.summary)
        return {"hidden": hidden, "logits": logits}

    def _forward_text(self, params: Any, ids: jax.Array, lens: jax.Array, types: jax.Array) -> jax.Array:
        config, dtype = self._config.transformer, jnp.dtype(self._dtype)
        module = Functional(lambda rngs: _TextEncoder(config, dtype=dtype, rngs=rngs)).bind(params, {})
        return module(ids, lens, types)

    def _checked(
        self, images: Array, text_ids: Array, text_lens: Array, attention: str, cells: Array | None, use_s2s: Any
    ) -> tuple[Any, ...]:
        self._require(NEEDED)
        if attention not in attention_masks.MASKS:
            raise ValueError(f"unknown attention {attention!r}; the kinds are {', '.join(attention_masks.MASKS)}")
        images, grid = self._checked_images(images)
        batch = images.shape[0]
        ids, lens = self._checked_texts(text_ids, text_lens)
        if ids.shape[0] != batch:
            raise ValueError(f"{batch} images and {ids.shape[0]} rows of text_ids: give one text per image")
        if cells is not None:
            cells = np.asarray(cells)
            cells = integers("cells", np.broadcast_to(cells, (batch, *cells.shape)) if cells.ndim == 1 else cells, 2)
            if cells.shape[0] != batch or not cells.shape[1]:
                raise ValueError(f"cells must be [B, N] or [N] with N > 0, not {cells.shape}")
            within("cells", cells, 0, grid - 1)
        if attention_masks.MASKS[attention].per_example:
            use_s2s = np.zeros(batch, bool) if use_s2s is None else np.asarray(use_s2s, bool)
            if use_s2s.shape != (batch,):
                raise ValueError(f"use_s2s must be [B], not {use_s2s.shape}")
        elif use_s2s is not None:
            raise ValueError("use_s2s is for attention='mixed' only")
        return jnp.asarray(images), jnp.asarray(ids), jnp.asarray(lens), cells, use_s2s


class _TextEncoder(nnx.Module):
    """The text path alone, under the same parameter names."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.embeddings = Embeddings(config, dtype=dtype, rngs=rngs)
        self.encoder = Encoder(config, dtype=dtype, rngs=rngs)

    def __call__(self, ids: jax.Array, lens: jax.Array, types: jax.Array) -> jax.Array:
        x = self.embeddings(self.embeddings.word_embeddings(ids), jnp.arange(ids.shape[1])[None], types, None)
        return self.encoder(x, attention_masks.attention_mask("bidirectional", 0, lens, ids.shape[1]), None)
