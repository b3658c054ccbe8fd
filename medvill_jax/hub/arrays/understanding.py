"""What fine-tuned heads say of images and texts: findings, answers, and how well the two match."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.hub.arrays.bound import Array, Bound
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export
from medvill_jax.hub.understanding import Understanding, in_batches
from medvill_jax.models import attention_masks
from medvill_jax.models.medvill import MedvillConfig


class UnderstandingHeads(Bound):
    """Findings, answers, matching scores and cosines."""

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        super().__init__(export, config, dtype)
        self._understanding: Understanding | None = None

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
        extra = self._export.extra
        reads_report = extra.get("inputs", "image+report") == "image+report"
        if reads_report != (text_ids is not None):
            raise ValueError(f"this classifier reads {'image and report' if reads_report else 'the image alone'}")
        rows = self._rows(images, text_ids, text_lens)
        with self._precise():
            logits = in_batches(functools.partial(asking.logits, "classes"), batch_size, *rows)
        names = self._export.label_names or tuple(f"class {number}" for number in range(logits.shape[1]))
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
        asking, extra = self._asking("answer"), self._export.extra
        product = extra.get("summary", "product") == "product"
        rows = self._rows(images, text_ids, text_lens)
        with self._precise():
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
            attention: one of `attention_masks.MEETING`; None takes the model's mask, or `bidirectional` where that is
                `mixed`.
            batch_size: pairs at a time.

        Raises:
            ValueError: arguments that do not fit the model; the message names them.
            HubError: the export has no matching head.
        """
        asking = self._asking(None)
        if not asking.heads.matches:
            self._require(("itm", "pooler"))
        own = self._config.attention
        kind = attention or ("bidirectional" if own == "mixed" else own)
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
                sides = asking.sides(jnp.asarray(images[start : start + batch_size]))
                pairs = np.divmod(np.arange(len(sides) * len(ids)), len(ids))

                def rows(image: np.ndarray, text: np.ndarray, sides: jax.Array = sides) -> jax.Array:
                    return asking.match(sides[image], ids[text], lens[text], kind)

                scores[start : start + batch_size] = in_batches(rows, batch_size, *pairs).reshape(len(sides), -1)
        if asking.heads.contrast and self._export.stage == "retrieval":
            scores += asking.scale() * self.similarity(images, ids, lens, batch_size=batch_size)
        return scores

    def similarity(self, images: Array, text_ids: Array, text_lens: Array, *, batch_size: int = 32) -> np.ndarray:
        """Cosines of every image and every text in the contrastive projection, float32 `[images, texts]`.

        Arguments and errors as for `match`.
        """
        asking = self._asking("contrast")
        images, _ = self._checked_images(images)
        ids, lens = self._checked_texts(text_ids, text_lens)
        with self._precise():
            return in_batches(asking.project, batch_size, images) @ in_batches(asking.project, batch_size, ids, lens).T

    def _asking(self, head: str | None) -> Understanding:
        if head is not None and head not in self._export.heads:
            there = ", ".join(self._export.heads) or "none"
            raise HubError(f"this export ({self._export.stage}) has no {head} head; its heads: {there}")
        if self._understanding is None:
            self._understanding = Understanding(self._export, self._config, self._dtype, *self._bound())
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
