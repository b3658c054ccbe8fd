"""The fine-tuned heads of an export that name findings and answer questions."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from medvill_jax.hub.arrays.bound import Array
from medvill_jax.hub.arrays.matching import Matching
from medvill_jax.hub.head_functions import in_batches


class UnderstandingHeads(Matching):
    """Classification and visual question answering."""

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
