"""The heads of a fine-tuned export as compiled functions: class and answer logits, matching scores, projections."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax import programs
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import HEADS, Export
from medvill_jax.models import attention_masks
from medvill_jax.models.finetuned import Finetuned, HeadsConfig
from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.trees import Tree


def heads_of(export: Export) -> HeadsConfig:
    """The configuration of an export's heads.

    Raises:
        HubError: a head lacks arrays, or an unknown fusion.
    """
    heads, fusion = export.heads, export.extra.get("fusion", "joint")
    try:
        return HeadsConfig(
            classes=heads["classifier"]["kernel"].shape[1] if "classifier" in heads else 0,
            answers=heads["answer"]["output"]["kernel"].shape[1] if "answer" in heads else 0,
            contrast=heads["contrast"]["image"]["kernel"].shape[1] if "contrast" in heads else 0,
            matches="match" in heads,
            fusion=fusion,
            cells="cells" in heads,
            places="place" in heads,
        )
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        raise HubError(f"the export's heads cannot be used: {error}") from None


class HeadFunctions:
    """An export's heads as jitted functions over its arrays.

    Attributes:
        heads: which heads the export holds.

    Args:
        export: of any stage; one without heads can still match by the network's ITM head.
        config: the network's configuration, with the compat switches in force.
        dtype: of computation.
        params, stats: the network's arrays on the device.
    """

    def __init__(self, export: Export, config: MedvillConfig, dtype: str, params: Tree, stats: Tree):
        self.heads = heads_of(export)
        heads = self.heads
        if attention_masks.MASKS[config.attention].per_example:
            # As in training, where tasks that read image and text together take the bidirectional half of `mixed`.
            config = dataclasses.replace(config, attention="bidirectional")
        self._model = Functional(lambda rngs: Finetuned(config, heads, dtype=jnp.dtype(dtype), rngs=rngs))
        with_heads = {HEADS: jax.tree.map(jnp.asarray, export.heads)} if export.heads else {}
        self._arrays = (params | with_heads, stats)
        compiled = functools.partial(programs.jit, dtype=dtype)
        self._sides, self._match = compiled(self._side), compiled(self._matched, static_argnames="attention")
        self._scale = jax.jit(lambda params, stats: self._model.bind(params, stats).heads.contrast.temperature())
        self._pooled = compiled(self._pooled_image)
        self._project = compiled(self._projected, static_argnames="texts")
        self._logits = compiled(self._head_logits, static_argnames=("head", "product"))

    @property
    def arrays(self) -> tuple[Tree, Tree]:
        """Parameters, those of the heads among them, and batch statistics, on the device."""
        return self._arrays

    def bind(self, params: Tree, stats: Tree) -> Finetuned:
        """The network with its heads over `arrays`, for a program to trace."""
        return self._model.bind(params, stats)

    def sides(self, images: Any) -> jax.Array:
        """The image side of `match`, `[B, ...]`."""
        return self._sides(*self._arrays, images)

    def match(self, sides: Any, text_ids: Any, text_lens: Any, attention: str) -> jax.Array:
        """Log-odds that image and text of each row match, float32 `[B]`."""
        return self._match(*self._arrays, sides, text_ids, text_lens, attention=attention)

    def scale(self) -> float:
        """The factor of the projections' cosines in a matching score."""
        return float(self._scale(*self._arrays))

    def project(self, *inputs: Any) -> jax.Array:
        """Unit vectors float32 `[B, D]` of images `[B, ...]`, or of text ids and lengths."""
        return self._project(*self._arrays, *inputs, texts=len(inputs) == 2)

    def pooled(self, images: Any) -> jax.Array:
        """Pooled [CLS] float32 `[B, H]` of images without text."""
        return self._pooled(*self._arrays, images)

    def logits(self, head: str, images: Any, *text: Any, product: bool | None = None) -> jax.Array:
        """Logits float32 `[B, outputs]` of the head "classes" or "answers", of images, with or without text."""
        return self._logits(*self._arrays, images, *text, head=head, product=product)

    def _side(self, params: Tree, stats: Tree, images: jax.Array) -> jax.Array:
        module = self._model.bind(params, stats)
        return module.match_side(module.image_features(images))

    def _matched(self, params: Tree, stats: Tree, *arguments: jax.Array, attention: str) -> jax.Array:
        logits = self._model.bind(params, stats).match(*arguments, attention=attention)
        return logits[:, 1] - logits[:, 0]

    def _projected(self, params: Tree, stats: Tree, *inputs: jax.Array, texts: bool) -> jax.Array:
        module = self._model.bind(params, stats)
        if texts:
            return module.project_text(*inputs)
        return module.project_image(module.embed_image(module.image_features(*inputs), None, None))

    def _pooled_image(self, params: Tree, stats: Tree, images: jax.Array) -> jax.Array:
        module = self._model.bind(params, stats)
        return module.encode_image(module.embed_image(module.image_features(images), None, None)).astype(jnp.float32)

    def _head_logits(
        self, params: Tree, stats: Tree, images: jax.Array, *text: jax.Array, head: str, product: bool | None
    ) -> jax.Array:
        module = self._model.bind(params, stats)
        summary = module.summary(module.image_features(images), *text, product=product)
        return module.class_logits(summary) if head == "classes" else module.answer_logits(summary)


def in_batches(
    call: Any, batch_size: int, *arrays: Any, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Calls `call` on at most `batch_size` rows of the arrays at a time; returns `[n, ...]` on the host.

    The last batch is filled up with rows of the first, whose results are dropped. `progress` is called after every
    batch with how many are done, and of how many.

    Raises:
        ValueError: no rows.
        HubError: a result that is not finite.
    """
    count = len(arrays[0])
    if not count:
        raise ValueError("no images or no texts: give at least one row")
    size = min(batch_size, count)
    results = []
    for start in range(0, count, size):
        rows = np.arange(start, start + size) % count
        results.append(np.asarray(call(*(array[rows] for array in arrays))))
        if progress is not None:
            progress(len(results), -(-count // size))
    found = np.concatenate(results)[:count]
    if not np.isfinite(found).all():
        raise HubError("a result is not finite: the weights or the images are damaged")
    return found
