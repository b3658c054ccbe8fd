"""Why an export gives an output: maps of what in an image speaks for it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.errors import ConfigError
from medvill_jax.hub.arrays.bound import Array, integers, within
from medvill_jax.hub.arrays.understanding import UnderstandingHeads
from medvill_jax.hub.export import Export
from medvill_jax.hub.head_functions import HeadFunctions, in_batches
from medvill_jax.hub.report_writer import Words
from medvill_jax.models import causal, relevance
from medvill_jax.models.finetuned import Finetuned
from medvill_jax.models.medvill import MedvillConfig

OCCLUSION = "occlusion"
METHODS = (*relevance.METHODS, OCCLUSION)
# Output -> the export's head that gives it; words come from the network's own.
HEADS_OF = {"classes": "classifier", "answers": "answer", "words": None}
# Parts of an image's side by which occlusion moves; what it covers is twice as wide.
OCCLUSION_STEPS = 16
_WINDOW = 2
# Called with how many batches of predictions are done, and of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Output:
    """Which outputs are explained; a program is compiled for each.

    Attributes:
        head: one of `HEADS_OF`.
        product: as for `Finetuned.summary`.
        mask_id: id of [MASK], for words.
    """

    head: str
    product: bool | None = None
    mask_id: int = 0

    def score(self, module: Finetuned, features: jax.Array, given: Mapping[str, jax.Array]) -> jax.Array:
        """The output `[B]`: a logit, or the log-probability of words."""
        if self.head == "words":
            states = causal.next_word_states_of(module, features, given["text_ids"], mask_id=self.mask_id)
            log_probs = jax.nn.log_softmax(module.mlm_logits(states))
            of_words = jnp.take_along_axis(log_probs, given["text_ids"][..., None], axis=-1)[..., 0]  # [B, T]
            return (of_words * given["words"]).sum(axis=1)
        text = [given[name] for name in ("text_ids", "text_lens") if name in given]
        summary = module.summary(features, *text, product=self.product)
        logits = module.class_logits(summary) if self.head == "classes" else module.answer_logits(summary)
        return jnp.take_along_axis(logits, given["outputs"][:, None], axis=1)[:, 0]

    def rows(self, features: jax.Array, given: Mapping[str, jax.Array]) -> jax.Array:
        """Weights `[B, Q]` of the last layer's states from which the output is computed."""
        if self.head == "words":
            return given["words"] / given["words"].sum(axis=1, keepdims=True)
        batch, cells, _ = features.shape
        # [CLS] and [SEP] around the cells; the other slots of the sequence are behind them.
        length = cells + 2 + (given["text_ids"].shape[1] if "text_ids" in given else 0)
        row = jnp.zeros(length).at[0].set(1.0)
        if self.product:
            row = row.at[0].set(0.5).at[cells + 1].set(0.5)
        return jnp.broadcast_to(row, (batch, length))


class Explanations(UnderstandingHeads):
    """Maps of images for findings, answers and words."""

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        super().__init__(export, config, dtype)
        self._run_score = self._jit(self._score, static_argnames="output")
        self._run_cells = self._jit(self._cells, static_argnames=("output", "method"))

    def explain(
        self,
        images: Array,
        method: str,
        head: str,
        *,
        outputs: Array | None = None,
        text_ids: Array | None = None,
        text_lens: Array | None = None,
        words: Array | None = None,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Maps of what in images speaks for a class, an answer or words of a report.

        By `occlusion`, a value is how much the output falls when its place is covered with the image's mean gray: a
        window is moved over the image in `OCCLUSION_STEPS` steps a side, and every place is the mean over the windows
        that cover it. Outputs are logits, and for words log-probabilities.

        Args:
            images: uint8 `[B, S, S]`.
            method: one of `METHODS`, see also `models.relevance`.
            head: whose output is explained: "classes", "answers" or "words".
            outputs: int `[B]`, the number of a class or an answer for every image; None for words.
            text_ids, text_lens: reports or questions, as for `classify` and `answer`; for words, `text_ids` int32
                `[B, T]` are the tokens of reports, filled up with [PAD], and `text_lens` is left out.
            words: float `[B, T]`, 1 at the tokens that are explained together, else 0.
            batch_size: covered images that are computed at a time.
            progress: called after every batch of `occlusion`; what it raises ends the computation.

        Returns:
            Maps float32 `[B, rows, columns]` of the image encoder's cells, or of `OCCLUSION_STEPS` a side, on any
            scale; and the outputs float32 `[B]`: logits, or log-probabilities of words.

        Raises:
            ValueError: arguments that do not fit the model; the message names them.
            ConfigError: the method cannot explain this model.
            HubError: the export lacks a part.
        """
        if method not in METHODS:
            raise ConfigError(f"there is no method {method!r} of explanation; there are {', '.join(METHODS)}")
        images, cells = self._checked_images(images)
        if images.dtype != np.uint8:
            raise ValueError(f"explained images are uint8 [B, S, S], not {images.dtype}")
        if head not in HEADS_OF or (words is None) == (head == "words") or (outputs is None) != (head == "words"):
            raise ValueError(f"head is one of {', '.join(HEADS_OF)}, the last with words=, the others with outputs=")
        if words is not None:
            self._require(("mlm",))
            functions = self._functions_with(None)
            special = Words.of(self._export, self._config).special
            output = Output("words", mask_id=special["[MASK]"])
            ids = integers("text_ids", text_ids, 2)
            within("text_ids", ids, 0, self._config.bert.vocab_size - 1)
            if np.shape(words) != ids.shape or ids.shape[1] > self._config.bert.max_positions:
                raise ValueError(
                    f"text_ids {ids.shape} and words {np.shape(words)} must have one shape, and at most "
                    f"{self._config.bert.max_positions} tokens"
                )
            given: dict[str, Any] = {"text_ids": ids, "words": np.asarray(words, np.float32)}
        else:
            functions = self._functions_with(HEADS_OF[head])
            product = self._export.extra.get("summary", "product") == "product" if head == "answers" else None
            output = Output(head, product)
            _, *text = self._rows(images, text_ids, text_lens)
            texts: dict[str, Any] = dict(zip(("text_ids", "text_lens"), text, strict=False))
            given = texts | {"outputs": integers("outputs", outputs, 1)}
        if functions.heads.fusion == "late" and method in relevance.ATTENTION:
            raise ConfigError(
                f"method {method!r} follows attention from the image, which this model (fusion=late) has not: "
                f"choose gradcam or {OCCLUSION}"
            )
        with self._precise():
            if method == OCCLUSION:
                return self._occluded(functions, np.asarray(images), output, given, batch_size, progress)
            maps, scores = self._run_cells(*functions.arrays, images, given, output=output, method=method)
        side = math.isqrt(cells)
        return np.asarray(maps).reshape(-1, side, side), np.asarray(scores)

    def _occluded(
        self,
        functions: HeadFunctions,
        images: np.ndarray,
        output: Output,
        given: dict[str, Any],
        batch_size: int,
        progress: Progress | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        score = functools.partial(self._run_score, output=output)
        maps, outputs = [], []
        for row, image in enumerate(images):
            windows = occlusion_windows(len(image))
            covered = np.stack([image, *(cover(image, window) for window in windows)])
            rows = [np.repeat(np.asarray(array[row : row + 1]), len(covered), axis=0) for array in given.values()]

            def call(images: Any, *arrays: Any) -> Any:
                return score(*functions.arrays, images, dict(zip(given, arrays, strict=True)))

            def tell(done: int, of: int, row: int = row) -> None:
                if progress is not None:
                    progress(row * of + done, len(images) * of)

            scores = in_batches(call, batch_size, covered, *rows, progress=tell)
            maps.append(mean_of_windows(scores[0] - scores[1:]))
            outputs.append(scores[0])
        return np.stack(maps), np.array(outputs, np.float32)

    def _score(self, params: Any, stats: Any, images: jax.Array, given: Any, *, output: Output) -> jax.Array:
        functions = self._functions
        assert functions is not None
        module = functions.bind(params, stats)
        return output.score(module, module.image_features(images), given)

    def _cells(
        self, params: Any, stats: Any, images: jax.Array, given: Any, *, output: Output, method: str
    ) -> tuple[jax.Array, jax.Array]:
        functions = self._functions
        assert functions is not None
        features = functions.bind(params, stats).image_features(images)

        def score(features: jax.Array) -> jax.Array:
            return output.score(functions.bind(params, stats), features, given)

        return relevance.of_cells(method, score, features, output.rows(features, given)), score(features)


def occlusion_windows(side: int) -> list[tuple[slice, slice]]:
    """The places that occlusion covers in an image of `side` pixels, in raster order; those at the edge are cut."""
    edges = np.linspace(0, side, OCCLUSION_STEPS + 1).round().astype(int)
    last = OCCLUSION_STEPS
    spans = [slice(edges[max(n, 0)], edges[min(n + _WINDOW, last)]) for n in range(1 - _WINDOW, last)]
    return [(rows, columns) for rows in spans for columns in spans]


def cover(image: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """A copy of an image uint8 `[S, S]` with its mean gray in the window."""
    covered = image.copy()
    covered[window] = round(float(image.mean()))
    return covered


def mean_of_windows(drops: np.ndarray) -> np.ndarray:
    """Values of all `occlusion_windows` -> float32 `[steps, steps]`, the mean over the windows that cover each step."""
    side = OCCLUSION_STEPS + _WINDOW - 1
    grid = np.asarray(drops, np.float32).reshape(side, side)
    shifts = [
        grid[down : down + OCCLUSION_STEPS, right : right + OCCLUSION_STEPS]
        for down in range(_WINDOW)
        for right in range(_WINDOW)
    ]
    return np.mean(shifts, axis=0)
