"""A model from an export, ready to be asked: `medvill_jax.load(FOLDER).logits(...)`, `.generate(...)`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from medvill_jax.decoding.rules import Decoded
from medvill_jax.hub import generation
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export, read_export
from medvill_jax.hub.files import here
from medvill_jax.hub.generation import Words, Writing
from medvill_jax.hub.names import UPSTREAM
from medvill_jax.hub.network import expected, functional
from medvill_jax.hub.understanding import Understanding, in_batches
from medvill_jax.models import masks
from medvill_jax.models.bert import BertConfig, Embeddings, Encoder
from medvill_jax.models.compat import Compat
from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import Hidden, MedvillConfig
from medvill_jax.trees import flatten, nest, part_of

NEEDED = ("embeddings", "encoder", "image_encoder", "image_projection")
Array = jax.Array | np.ndarray


class Loaded:
    """A trained network and what belongs to it. Evaluation only: no dropout, running BatchNorm statistics.

    Attributes:
        export: the folder's content: configuration, arrays, heads, label names, vocabulary.
        config: of the network, with the compat switches in force.
    """

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        self.export = export
        self.config = config
        self._dtype = dtype
        self._arrays: tuple[Any, Any] | None = None
        self._understanding: Understanding | None = None
        # float32 results are promised; accelerators would multiply float32 matrices in less.
        self._precision = "highest" if dtype == "float32" else None
        self._run = jax.jit(self._forward, static_argnames=("attention", "heads"))
        self._run_text = jax.jit(self._forward_text)
        self._run_writing = jax.jit(self._write, static_argnames="writing")

    def logits(
        self,
        images: Array,
        text_ids: Array,
        text_lens: Array,
        attention: str | None = None,
        cells: Array | None = None,
        use_s2s: Array | None = None,
    ) -> dict[str, jax.Array]:
        """Both pre-training heads at every text slot; layout and positions as in docs/spec.md#layout.

        Args:
            images: uint8 `[B, H, W]`, normalised here, or float32 `[B, H, W, 3]`, taken as already normalised.
            text_ids: int32 `[B, T+1]`: words, [SEP], [PAD]...
            text_lens: int32 `[B]`: words + the final [SEP].
            attention: one of `masks.KINDS`; None takes the model's own, what it was trained with.
            cells: int `[B, N]` or `[N]`, raster indices of the kept cells; None keeps all.
            use_s2s: bool `[B]`, under `mixed` only: which examples take the s2s mask. None reads all of them with the
                bidirectional one, as tasks that understand rather than write do.

        Returns:
            `mlm` float32 `[B, T+1, V]` and `itm` float32 `[B, 2]` (class 1: matched); a head that the export lacks is
            left out. Rows from `text_lens` on mean nothing.

        Raises:
            ValueError: shapes, types or values that do not fit; the message names them.
            HubError: the export lacks a part that this needs.
        """
        attention = attention or self.config.attention
        arguments = self._checked(images, text_ids, text_lens, attention, cells, use_s2s)
        heads = ["mlm"] if "mlm" in self.export.parts else []
        if "itm" in self.export.parts and (attention == "non_cross" or "pooler" in self.export.parts):
            heads.append("itm")
        with jax.default_matmul_precision(self._precision):
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

        `summary` is the pooled [CLS], or under `non_cross` the product of both; without a pooler in the export it means
        nothing.
        """
        attention = attention or self.config.attention
        arguments = self._checked(images, text_ids, text_lens, attention, cells, use_s2s)
        with jax.default_matmul_precision(self._precision):
            return self._run(*self._bound(), *arguments, attention=attention, heads=())["hidden"]

    def generate(
        self,
        images: Array,
        beam_size: int = 1,
        max_len: int = 128,
        length_penalty: float = 0.0,
        *,
        min_len: int = 0,
        no_repeat_ngram: int = 0,
        top_p: float | None = None,
        temperature: float = 1.0,
        seed: int | Sequence[int] | np.ndarray = 0,
        banned: Sequence[int] | None = None,
        batch_size: int = 8,
    ) -> list[dict[str, Any]]:
        """Reports, written word by word under the s2s mask; the network reads nothing but the images and its own words.

        What is written about an image depends neither on the other images nor on `batch_size`, up to rounding.

        Args:
            images: as for `logits`.
            beam_size: 1 takes the likeliest word each time, more is beam search (see `decoding.beam`).
            max_len: the most word pieces, the final [SEP] included; a longer report is cut there.
            length_penalty: added to a report's score per word piece; above 0 favours long reports.
            min_len: the fewest word pieces before [SEP].
            no_repeat_ngram: no run of that many word pieces occurs twice in a report; 0 allows it.
            top_p: draws from the nucleus of that probability instead; 1 draws from all words. For `beam_size` 1.
            temperature: of the drawing.
            seed: of the drawing: one for all images, or one per image. The same image with the same seed gives the same
                report.
            banned: word ids that are never written; None bans [PAD], [UNK], [CLS] and [MASK].
            batch_size: images written about at a time. Memory grows with it: at BERT-base, 258 image slots, 128 word
                pieces and a beam of 4 an image takes 57 MiB of keys and values.

        Returns:
            For every image `token_ids` (a list of int, without [SEP]; empty if the network ends at once), `text` (None
            if the export has no vocabulary) and `log_prob`, the sum of the network's log-probabilities of these words
            and of [SEP], if it came.

        Raises:
            ValueError: arguments that do not fit the model or each other; the message names them.
            HubError: the export lacks a part that this needs, or its numbers are not finite.
        """
        self._require((*NEEDED, "mlm"))
        images, _ = self._checked_images(images)
        words = Words.of(self.export, self.config)
        writing = words.writing(
            self.config,
            beams=beam_size,
            max_len=max_len,
            length_penalty=length_penalty,
            min_len=min_len,
            no_repeat_ngram=no_repeat_ngram,
            top_p=top_p,
            temperature=temperature,
            banned=banned,
        )
        with jax.default_matmul_precision(self._precision):
            run = functools.partial(self._run_writing, *self._bound(), writing=writing)
            return words.reports(generation.in_batches(run, images, seed, batch_size))

    def classify(
        self, images: Array, text_ids: Array | None = None, text_lens: Array | None = None, *, batch_size: int = 32
    ) -> dict[str, Any]:
        """Findings of images, by a model fine-tuned for classification.

        Args:
            images: as for `logits`.
            text_ids, text_lens: the reports, as for `logits`, exactly if the model was trained on image and report.
            batch_size: images at a time.

        Returns:
            `names`, a tuple of the C findings; `probabilities` float32 `[B, C]`; and `positive` bool `[B, C]`, by the
            thresholds that the export records, or 0.5.

        Raises:
            ValueError: arguments that do not fit the model; the message names them.
            HubError: the export has no classifier.
        """
        asking = self._asking("classifier")
        extra = self.export.extra
        reads_report = extra.get("inputs", "image+report") == "image+report"
        if reads_report != (text_ids is not None):
            raise ValueError(f"this classifier reads {'image and report' if reads_report else 'the image alone'}")
        rows = self._rows(images, text_ids, text_lens)
        with jax.default_matmul_precision(self._precision):
            logits = in_batches(functools.partial(asking.logits, "classes"), batch_size, *rows)
        names = self.export.label_names or tuple(f"class {number}" for number in range(logits.shape[1]))
        probabilities = np.asarray(jax.nn.sigmoid(logits))
        return {
            "names": names,
            "probabilities": probabilities,
            "positive": probabilities >= np.asarray(extra.get("thresholds", 0.5), np.float32),
        }

    def answer(self, images: Array, text_ids: Array, text_lens: Array, *, batch_size: int = 32) -> list[dict[str, Any]]:
        """Answers to questions, one about each image, by a model fine-tuned for visual question answering.

        Args:
            images: as for `logits`.
            text_ids, text_lens: the questions, cleaned by `data.questions.clean_question`, as for `logits`.
            batch_size: questions at a time.

        Returns:
            For every question `answer_id`, `answer` (None if the export has no vocabulary of answers) and `logit`.

        Raises:
            ValueError: arguments that do not fit the model; the message names them.
            HubError: the export has no answer head.
        """
        asking, extra = self._asking("answer"), self.export.extra
        product = extra.get("summary", "product") == "product"
        rows = self._rows(images, text_ids, text_lens)
        with jax.default_matmul_precision(self._precision):
            logits = in_batches(functools.partial(asking.logits, "answers", product=product), batch_size, *rows)
        names = extra.get("answers")
        return [
            {"answer_id": int(best), "answer": names[best] if names else None, "logit": float(logits[row, best])}
            for row, best in enumerate(logits.argmax(1))
        ]

    def match(
        self, images: Array, text_ids: Array, text_lens: Array, *, attention: str | None = None, batch_size: int = 32
    ) -> np.ndarray:
        """How well every image matches every text, float32 `[images, texts]`.

        The log-odds of the matching head; after fine-tuning for retrieval with a contrastive projection, on top of its
        scaled cosines, as they were trained. Pre-training trains the two apart.

        Args:
            images: as for `logits`; each is encoded once.
            text_ids: int32 `[texts, T+1]`: words, [SEP], [PAD]...
            text_lens: int32 `[texts]`: words + the final [SEP].
            attention: one of `masks.MEETING`; None takes the model's own, or the bidirectional one of `mixed`.
            batch_size: pairs at a time.

        Raises:
            ValueError: arguments that do not fit the model; the message names them.
            HubError: the export has no matching head.
        """
        asking = self._asking(None)
        if not asking.heads.matches:
            self._require(("itm", "pooler"))
        own = self.config.attention
        kind = attention or ("bidirectional" if own == "mixed" else own)
        if kind not in masks.MEETING:
            raise ValueError(
                f"attention {kind!r} for matching: under {', '.join(masks.MEETING)} an image sees the text, so one of "
                "them can tell how they match"
            )
        images, _ = self._checked_images(images)
        ids, lens = self._checked_texts(text_ids, text_lens)
        scores = np.empty((len(images), len(ids)), np.float32)
        with jax.default_matmul_precision(self._precision):
            for start in range(0, len(images), batch_size):
                sides = asking.sides(jnp.asarray(images[start : start + batch_size]))
                pairs = np.divmod(np.arange(len(sides) * len(ids)), len(ids))

                def rows(image: np.ndarray, text: np.ndarray, sides: jax.Array = sides) -> jax.Array:
                    return asking.match(sides[image], ids[text], lens[text], kind)

                scores[start : start + batch_size] = in_batches(rows, batch_size, *pairs).reshape(len(sides), -1)
        if asking.heads.contrast and self.export.stage == "retrieval":
            scores += asking.scale() * self.similarity(images, ids, lens, batch_size=batch_size)
        return scores

    def similarity(self, images: Array, text_ids: Array, text_lens: Array, *, batch_size: int = 32) -> np.ndarray:
        """Cosines of every image and every text in the contrastive projection, float32 `[images, texts]`.

        Arguments and errors as for `match`.
        """
        asking = self._asking("contrast")
        images, _ = self._checked_images(images)
        ids, lens = self._checked_texts(text_ids, text_lens)
        with jax.default_matmul_precision(self._precision):
            return in_batches(asking.project, batch_size, images) @ in_batches(asking.project, batch_size, ids, lens).T

    def text_hidden(self, ids: Array, lens: Array, token_types: Array | None = None) -> jax.Array:
        """BERT over text alone, float `[B, L, H]`: needs no image encoder, so it serves an imported BERT as well.

        Args:
            ids: int32 `[B, L]`, special tokens included.
            lens: int32 `[B]`, slots that are not [PAD].
            token_types: int32 `[B, L]`; None is 0 throughout, as in BERT's first sentence.

        Raises:
            ValueError: shapes or values that do not fit.
            HubError: the export has no BERT.
        """
        self._require(("embeddings", "encoder"))
        ids, lens = _integers("ids", ids, 2), _integers("lens", lens, 1)
        bert = self.config.transformer
        _within("ids", ids, 0, bert.vocab_size - 1)
        _within("lens", lens, 1, ids.shape[1])
        if ids.shape[1] > bert.max_positions:
            raise ValueError(f"{ids.shape[1]} slots do not fit {bert.max_positions} positions")
        types = np.zeros_like(ids) if token_types is None else _integers("token_types", token_types, 2)
        _within("token_types", types, 0, bert.token_types - 1)
        parts = {name: self.export.params[name] for name in ("embeddings", "encoder")}
        with jax.default_matmul_precision(self._precision):
            return self._run_text(parts, ids, lens, types)

    def _forward(
        self, params: Any, stats: Any, *arguments: Any, attention: str, heads: tuple[str, ...]
    ) -> dict[str, Any]:
        images, text_ids, text_lens, cells, use_s2s = arguments
        module = functional(self.config, self._dtype).bind(params, stats)
        hidden = module.encode(images, text_ids, text_lens, attention=attention, cells=cells, use_s2s=use_s2s)
        logits = {}
        if "mlm" in heads:
            logits["mlm"] = module.mlm_logits(hidden.text)
        if "itm" in heads:
            logits["itm"] = module.itm_logits(hidden.summary)
        return {"hidden": hidden, "logits": logits}

    def _forward_text(self, params: Any, ids: jax.Array, lens: jax.Array, types: jax.Array) -> jax.Array:
        config, dtype = self.config.transformer, jnp.dtype(self._dtype)
        module = Functional(lambda rngs: _TextEncoder(config, dtype=dtype, rngs=rngs)).bind(params, {})
        return module(ids, lens, types)

    def _write(
        self, params: Any, stats: Any, images: jax.Array, live: jax.Array, seeds: jax.Array, *, writing: Writing
    ) -> Decoded:
        module = functional(self.config, self._dtype).bind(params, stats)
        return generation.write(module, images, live, seeds, writing)

    def _bound(self) -> tuple[Any, Any]:
        """Parameters and statistics on the device; heads that the export lacks are zeros and never asked."""
        self._require(NEEDED)
        if self._arrays is None:
            params, stats = expected(self.config)
            found = {**flatten(self.export.params), **flatten(self.export.stats)}
            lacking = [n for n in (*params, *stats) if n not in found and part_of(n) in self.export.parts]
            if lacking:
                raise HubError(f"the export lacks arrays that were allowed to be missing: {', '.join(lacking)}")
            full = [
                nest({name: jnp.asarray(found.get(name, np.zeros(shape, np.float32))) for name, shape in part.items()})
                for part in (params, stats)
            ]
            self._arrays = (full[0], full[1])
        return self._arrays

    def _asking(self, head: str | None) -> Understanding:
        if head is not None and head not in self.export.heads:
            there = ", ".join(self.export.heads) or "none"
            raise HubError(f"this export ({self.export.stage}) has no {head} head; its heads: {there}")
        if self._understanding is None:
            self._understanding = Understanding(self.export, self.config, self._dtype, *self._bound())
        return self._understanding

    def _rows(self, images: Array, text_ids: Array | None, text_lens: Array | None) -> tuple[Array, ...]:
        """Images, and texts if there are any, checked, as many of one as of the other."""
        images, _ = self._checked_images(images)
        if text_ids is None or text_lens is None:
            return (images,)
        ids, lens = self._checked_texts(text_ids, text_lens)
        if len(ids) != len(images):
            raise ValueError(f"{len(images)} images, {len(ids)} texts")
        return images, ids, lens

    def _require(self, parts: tuple[str, ...]) -> None:
        if absent := [part for part in parts if part not in self.export.parts]:
            raise HubError(
                f"this export ({self.export.stage}) lacks {', '.join(absent)}; it holds {', '.join(self.export.parts)}"
            )

    def _checked(
        self, images: Array, text_ids: Array, text_lens: Array, attention: str, cells: Array | None, use_s2s: Any
    ) -> tuple[Any, ...]:
        self._require(NEEDED)
        if attention not in masks.KINDS:
            raise ValueError(f"unknown attention {attention!r}; the kinds are {', '.join(masks.KINDS)}")
        images, grid = self._checked_images(images)
        batch = images.shape[0]
        ids, lens = self._checked_texts(text_ids, text_lens)
        if ids.shape[0] != batch:
            raise ValueError(f"{batch} images, {ids.shape[0]} rows of text_ids, {lens.shape[0]} text_lens")
        if cells is not None:
            cells = np.asarray(cells)
            cells = _integers("cells", np.broadcast_to(cells, (batch, *cells.shape)) if cells.ndim == 1 else cells, 2)
            if cells.shape[0] != batch or not cells.shape[1]:
                raise ValueError(f"cells are [B, N] or [N] with N > 0, not {cells.shape}")
            _within("cells", cells, 0, grid - 1)
        if attention == "mixed":
            use_s2s = np.zeros(batch, bool) if use_s2s is None else np.asarray(use_s2s, bool)
            if use_s2s.shape != (batch,):
                raise ValueError(f"use_s2s is [B], not {use_s2s.shape}")
        elif use_s2s is not None:
            raise ValueError("use_s2s is for attention='mixed' only")
        return jnp.asarray(images), jnp.asarray(ids), jnp.asarray(lens), cells, use_s2s

    def _checked_texts(self, text_ids: Any, text_lens: Any) -> tuple[np.ndarray, np.ndarray]:
        ids, lens = _integers("text_ids", text_ids, 2), _integers("text_lens", text_lens, 1)
        if len(ids) != len(lens) or not len(ids):
            raise ValueError(f"{len(ids)} rows of text_ids, {len(lens)} text_lens")
        if ids.shape[1] > self.config.bert.max_positions:
            raise ValueError(f"{ids.shape[1]} text slots do not fit {self.config.bert.max_positions} positions")
        _within("text_ids", ids, 0, self.config.bert.vocab_size - 1)
        _within("text_lens", lens, 1, ids.shape[1])
        return ids, lens

    def _checked_images(self, images: Any) -> tuple[Array, int]:
        """The images as an array, and the cells that each has."""
        if not hasattr(images, "dtype"):
            images = np.asarray(images)
        gray = images.dtype == np.uint8 and images.ndim == 3
        if not gray and not (images.dtype == np.float32 and images.ndim == 4 and images.shape[3] == 3):
            raise ValueError(
                f"images are uint8 [B, H, W] or normalised float32 [B, H, W, 3], not {images.dtype} {images.shape}"
            )
        grid, positions = self.config.encoder.cells(*images.shape[1:3]), self.config.bert.max_positions
        if grid > positions:
            raise ValueError(f"{grid} image cells do not fit {positions} positions")
        return images, grid


class _TextEncoder(nnx.Module):
    """The text path alone, under the same parameter names."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.embeddings = Embeddings(config, dtype=dtype, rngs=rngs)
        self.encoder = Encoder(config, dtype=dtype, rngs=rngs)

    def __call__(self, ids: jax.Array, lens: jax.Array, types: jax.Array) -> jax.Array:
        x = self.embeddings(self.embeddings.word_embeddings(ids), jnp.arange(ids.shape[1])[None], types, None)
        return self.encoder(x, masks.attention_mask("bidirectional", 0, lens, ids.shape[1]), None)


def load(path: str | Path, *, compat: str | Compat | None = None, dtype: str = "float32") -> Loaded:
    """The model of an export.

    Args:
        path: the folder, or `gs://BUCKET/FOLDER`.
        compat: "upstream" for the released code's behaviour at the stage the checkpoint comes from, "clean" for ours,
            or the switches themselves; None keeps what the export says.
        dtype: of computation.

    Raises:
        HubError: no export there, or a damaged one.
        ValueError: unknown compat.
    """
    export = read_export(here(path))
    config = export.config
    if isinstance(compat, str):
        compat = Compat.named(compat, export.stage if export.stage in UPSTREAM else "pretraining")
    if compat is not None:
        config = dataclasses.replace(config, compat=compat)
    return Loaded(export, config, dtype)


def _integers(name: str, value: Any, rank: int) -> np.ndarray:
    value = np.asarray(value)
    if value.ndim != rank or not np.issubdtype(value.dtype, np.integer):
        raise ValueError(f"{name} has {rank} axes of integers, not {value.dtype} {value.shape}")
    return value.astype(np.int32)


def _within(name: str, value: np.ndarray, low: int, high: int) -> None:
    if value.size and (value.min() < low or value.max() > high):
        raise ValueError(f"{name} lies outside {low}..{high}: {value.min()}..{value.max()}")
