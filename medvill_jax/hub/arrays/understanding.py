"""The fine-tuned heads of an export: findings, answers, matching scores and cosines."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.hub.arrays.bound import Array, Bound
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export
from medvill_jax.hub.head_functions import HeadFunctions, in_batches
from medvill_jax.models import attention_masks
from medvill_jax.models.medvill import MedvillConfig

# The trainings in which the score of a pair has the scaled cosine in it.
ADDED_COSINES = ("retrieval", "multitask")


class UnderstandingHeads(Bound):
    """Classification, visual question answering, and matching of images and texts."""

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        super().__init__(export, config, dtype)
        self._functions: HeadFunctions | None = None

    def classify(
        self, images: Array, text_ids: Array | None = None, text_lens: Array | None = None, *, batch_size: int = 32
    ) -> dict[str, Any]:
        """Findings of images, by a model fine-tuned for classification.

        Args:
            images: as for `logits`.
            text_ids, text_lens: the reports, as for `logits`; required if the model was trained on image and report,
                refused if it was trained on images alone.
            batch_size: images at a time.

        Returns:
            `names`, a tuple of the C findings; `probabilities` float64 `[B, C]`; and `positive` bool `[B, C]`, whether
            a probability reaches the threshold that the export records, or else 0.5.

        Raises:
            ValueError: arguments that do not fit the model; the message names them.
            HubError: the export has no classifier.
        """
        functions = self._functions_with("classifier")
        extra = self._export.extra
        takes_report = extra.get("inputs", "image+report") == "image+report"
        if takes_report != (text_ids is not None):
            raise ValueError(
                f"this classifier takes {'images and reports' if takes_report else 'images alone'} as input; "
                f"{'give' if takes_report else 'leave out'} text_ids and text_lens"
            )
        rows = self._rows(images, text_ids, text_lens)
        with self._precise():
            logits = in_batches(functools.partial(functions.logits, "classes"), batch_size, *rows)
        names = self._export.label_names or tuple(f"class {number}" for number in range(logits.shape[1]))
        probabilities = sigmoid(logits)
        return {
            "names": names,
            "probabilities": probabilities,
            "positive": probabilities >= np.asarray(extra.get("thresholds", 0.5)),
        }

    def answer(self, images: Array, text_ids: Array, text_lens: Array, *, batch_size: int = 32) -> list[dict[str, Any]]:
        """Answers to questions, one about each image, by a model fine-tuned for visual question answering.

        Args:
            images: as for `logits`.
            text_ids, text_lens: the questions, cleaned by `data.questions.clean_question`, as for `logits`.
            batch_size: questions at a time.

        Returns:
            For every question `answer_id`, `answer` (None if the export has no list of answers), `logit`, and
            `probability`: of that answer alone, or among all if it was trained with hard targets.

        Raises:
            ValueError: arguments that do not fit the model; the message names them.
            HubError: the export has no answer head.
        """
        functions, extra = self._functions_with("answer"), self._export.extra
        product = extra.get("summary", "product") == "product"
        rows = self._rows(images, text_ids, text_lens)
        with self._precise():
            logits = in_batches(functools.partial(functions.logits, "answers", product=product), batch_size, *rows)
        names, chosen = extra.get("answers"), logits.argmax(1)
        hard = extra.get("targets") == "hard"
        probabilities = np.asarray(jax.nn.softmax(logits, axis=1)) if hard else sigmoid(logits)
        return [
            {
                "answer_id": int(best),
                "answer": names[best] if names else None,
                "logit": float(logits[row, best]),
                "probability": float(probabilities[row, best]),
            }
            for row, best in enumerate(chosen)
        ]

    def match(
        self, images: Array, text_ids: Array, text_lens: Array, *, attention: str | None = None, batch_size: int = 32
    ) -> np.ndarray:
        """How well every image matches every text, float32 `[images, texts]`.

        A score is the log-odds of the matching head. If the model was fine-tuned for retrieval with a contrastive
        projection, the scaled cosine is added, as in that training. Pre-training trains the two separately.

        Args:
            images: as for `logits`; each is encoded once.
            text_ids: int32 `[texts, T+1]`: tokens, [SEP], [PAD]...
            text_lens: int32 `[texts]`: tokens with the final [SEP].
            attention: one of `attention_masks.MEETING`; None takes the model's mask, or `bidirectional` where that is
                `mixed`.
            batch_size: pairs at a time.

        Raises:
            ValueError: arguments that do not fit the model; the message names them.
            HubError: the export has no matching head or no pooler.
        """
        functions = self._functions_with(None)
        if not functions.heads.matches:
            self._require(("itm", "pooler"))
        configured = self._config.attention
        late = functions.heads.fusion == "late"  # no layer reads image and text together
        kind = attention or ("bidirectional" if late or configured == "mixed" else configured)
        if kind not in attention_masks.MEETING:
            raise ValueError(
                f"attention {kind!r} cannot be used for matching, since an image does not see the text; use one of "
                f"{', '.join(attention_masks.MEETING)}"
            )
        images, _ = self._checked_images(images)
        ids, lens = self._checked_texts(text_ids, text_lens)
        scores = np.empty((len(images), len(ids)), np.float32)
        with self._precise():
            for start in range(0, len(images), batch_size):
                sides = functions.sides(jnp.asarray(images[start : start + batch_size]))
                pairs = np.divmod(np.arange(len(sides) * len(ids)), len(ids))

                def rows(image: np.ndarray, text: np.ndarray, sides: jax.Array = sides) -> jax.Array:
                    return functions.match(sides[image], ids[text], lens[text], kind)

                scores[start : start + batch_size] = in_batches(rows, batch_size, *pairs).reshape(len(sides), -1)
        if functions.heads.contrast and self._export.stage in ADDED_COSINES:
            scores += functions.scale() * self.similarity(images, ids, lens, batch_size=batch_size)
        return scores

    def similarity(self, images: Array, text_ids: Array, text_lens: Array, *, batch_size: int = 32) -> np.ndarray:
        """Cosines of every image and every text in the contrastive projection, float32 `[images, texts]`.

        Arguments as for `match`.

        Raises:
            ValueError: arguments that do not fit the model; the message names them.
            HubError: the export has no contrastive projection.
        """
        functions = self._functions_with("contrast")
        images, _ = self._checked_images(images)
        ids, lens = self._checked_texts(text_ids, text_lens)
        with self._precise():
            image_vectors = in_batches(functions.project, batch_size, images)
            return image_vectors @ in_batches(functions.project, batch_size, ids, lens).T

    def embed(self, images: Array, *, batch_size: int = 32) -> tuple[np.ndarray, str]:
        """Vectors of images alone, float32 `[B, D]`, and their kind.

        The kind is "projection", unit vectors in the space where the contrastive loss compares images with texts, or
        "pooled", the pooled [CLS] of a model without projection.

        Args:
            images: as for `logits`.
            batch_size: images at a time.

        Raises:
            ValueError: arguments that do not fit the model; the message names them.
            HubError: the export has neither a contrastive projection nor a pooler.
        """
        functions = self._functions_with(None)
        projects = functions.heads.contrast > 0
        self._require(("pooler",))
        images, _ = self._checked_images(images)
        with self._precise():
            vectors = in_batches(functions.project if projects else functions.pooled, batch_size, images)
        return vectors, "projection" if projects else "pooled"

    def _functions_with(self, head: str | None) -> HeadFunctions:
        if head is not None and head not in self._export.heads:
            names = ", ".join(self._export.heads) or "none"
            raise HubError(f"this export ({self._export.stage}) has no {head} head; its heads: {names}")
        if self._functions is None:
            self._functions = HeadFunctions(self._export, self._config, self._dtype, *self._bound())
        return self._functions

    def _rows(self, images: Array, text_ids: Array | None, text_lens: Array | None) -> tuple[Array, ...]:
        """Checks images and, if given, texts, one per image."""
        images, _ = self._checked_images(images)
        if text_ids is None or text_lens is None:
            return (images,)
        ids, lens = self._checked_texts(text_ids, text_lens)
        if len(ids) != len(images):
            raise ValueError(f"{len(images)} images and {len(ids)} texts: give one text per image")
        return images, ids, lens


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The probabilities float64 of logits of any shape, without overflow; the same numbers as in evaluation."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64)))
