"""Films and texts together: matching scores, cosines, and vectors of films."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.hub.arrays.bound import Array, Bound, integers, within
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export
from medvill_jax.hub.head_functions import HeadFunctions, in_batches
from medvill_jax.models import attention_masks
from medvill_jax.models.medvill import MedvillConfig

# The trainings in which the score of a pair has the scaled cosine in it.
ADDED_COSINES = ("retrieval", "multitask")


class Matching(Bound):
    """Matching of images and texts."""

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        super().__init__(export, config, dtype)
        self._functions: HeadFunctions | None = None

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
        functions, kind = self._matcher(attention)
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
        if self._adds_cosines(functions):
            scores += functions.scale() * self.similarity(images, ids, lens, batch_size=batch_size)
        return scores

    def match_pairs(
        self, images: Array, image_of: np.ndarray, text_ids: Array, text_lens: Array, *, batch_size: int = 32
    ) -> np.ndarray:
        """The scores of `match` of some pairs alone, float32 `[pairs]`.

        All batches have one size, so the number of pairs compiles nothing anew.

        Args:
            images: as for `logits`; each is encoded once.
            image_of: int `[pairs]`, the image of each text.
            text_ids: int32 `[pairs, T+1]`, as for `match`.
            text_lens: int32 `[pairs]`.
            batch_size: pairs at a time.

        Raises:
            ValueError: arguments that do not fit the model or each other; the message names them.
            HubError: as `match`.
        """
        functions, kind = self._matcher(None)
        images, _ = self._checked_images(images)
        ids, lens = self._checked_texts(text_ids, text_lens)
        chosen = integers("image_of", image_of, 1)
        if len(chosen) != len(ids):
            raise ValueError(f"{len(chosen)} images and {len(ids)} texts: give one text per image")
        within("image_of", chosen, 0, len(images) - 1)
        filled = np.arange(-(-len(ids) // batch_size) * batch_size) % len(ids)
        ids, lens, image = ids[filled], lens[filled], chosen[filled]
        with self._precise():
            sides = functions.sides(jnp.asarray(images))
            scores = in_batches(
                lambda image, ids, lens: functions.match(sides[image], ids, lens, kind), batch_size, image, ids, lens
            )
            if self._adds_cosines(functions):
                vectors = in_batches(functions.project, len(images), images)[image]
                texts = in_batches(functions.project, batch_size, ids, lens)
                scores += functions.scale() * np.sum(vectors * texts, axis=1)
        return scores[: len(chosen)]

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

    def _matcher(self, attention: str | None) -> tuple[HeadFunctions, str]:
        """The functions and the mask of `match`, whose errors this raises."""
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
        return functions, kind

    def _adds_cosines(self, functions: HeadFunctions) -> bool:
        return functions.heads.contrast > 0 and self._export.stage in ADDED_COSINES

    def _functions_with(self, head: str | None) -> HeadFunctions:
        if head is not None and head not in self._export.heads:
            names = ", ".join(self._export.heads) or "none"
            raise HubError(f"this export ({self._export.stage}) has no {head} head; its heads: {names}")
        if self._functions is None:
            self._functions = HeadFunctions(self._export, self._config, self._dtype, *self._bound())
        return self._functions
