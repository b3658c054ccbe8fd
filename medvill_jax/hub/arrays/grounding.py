"""Where in images phrases are seen: maps from the head for it, or, without any training for it, from matching.

Methods without training; the network reads image and phrase together, under the mask under which it matches them:

attention        the attention of the phrase's words on each cell, mean over words, all heads and all layers
attention_last   the same of the last layer alone
rollout, chefer, gradcam   relevance of each cell for the matching log-odds of image and phrase, see `models.relevance`
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.errors import ConfigError
from medvill_jax.hub.arrays.bound import Array
from medvill_jax.hub.arrays.explanations import Explanations
from medvill_jax.hub.export import Export
from medvill_jax.hub.head_functions import in_batches
from medvill_jax.models import relevance
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.trees import Tree

HEAD = "head"
# Method -> the layers whose attention is averaged.
_LAYERS = {"attention": slice(None), "attention_last": slice(-1, None)}
UNTRAINED = (*_LAYERS, *relevance.METHODS)
GROUNDING = (HEAD, *UNTRAINED)
# The masks under which words see cells and matching is learnt; `mixed` matches as its bidirectional half.
MASKS = ("bidirectional", "bar", "mixed")


class Grounding(Explanations):
    """Maps of images for phrases."""

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        super().__init__(export, config, dtype)
        self._run_places = self._jit(self._places, static_argnames="method")

    def ground(
        self, images: Array, text_ids: Array, text_lens: Array, method: str = HEAD, *, batch_size: int = 32
    ) -> np.ndarray:
        """Maps of where in each image its phrase is seen.

        Args:
            images: as for `logits`.
            text_ids, text_lens: the phrases, one an image, as for `answer`.
            method: one of `GROUNDING`.
            batch_size: phrases at a time.

        Returns:
            float32 `[B, rows, columns]` of the image encoder's cells: probabilities of the head, or on any scale.

        Raises:
            ValueError: arguments that do not fit the model; the message names them.
            ConfigError: no such method, or one that cannot be used with this model.
            HubError: the export lacks a part.
        """
        if method not in GROUNDING:
            raise ConfigError(f"there is no method {method!r} of grounding; there are {', '.join(GROUNDING)}")
        functions = self._functions_with("place" if method == HEAD else None)
        if method != HEAD:
            self._require(("itm", "pooler"))
            if self._config.attention not in MASKS or functions.heads.fusion == "late":
                raise ConfigError(
                    f"method={method} follows a phrase to the cells that it is matched with, and this model (attention "
                    f"{self._config.attention}, fusion {functions.heads.fusion}) does not match them so"
                )
        rows = self._rows(images, text_ids, text_lens)
        call = functools.partial(self._run_places, *functions.arrays, method=method)
        with self._precise():
            maps = in_batches(call, batch_size, *rows)
        side = math.isqrt(maps.shape[1])
        return maps.reshape(-1, side, side)

    def _places(
        self, params: Tree, stats: Tree, images: jax.Array, ids: jax.Array, lens: jax.Array, *, method: str
    ) -> jax.Array:
        functions = self._functions
        assert functions is not None
        features = functions.bind(params, stats).image_features(images)
        if method == HEAD:
            return jax.nn.sigmoid(functions.bind(params, stats).place_logits(features, ids, lens))

        def score(features: jax.Array) -> jax.Array:
            module = functions.bind(params, stats)
            logits = module.match(module.match_side(features), ids, lens)
            return logits[:, 1] - logits[:, 0]

        cells = features.shape[1]
        if method in _LAYERS:
            layers, _ = relevance.attentions(lambda: score(features))
            return relevance.of_words(layers[_LAYERS[method]], lens - 1, cells)
        # Matching is computed from the state of [CLS].
        row = jnp.zeros((len(features), cells + 2 + ids.shape[1])).at[:, 0].set(1.0)
        return relevance.of_cells(method, score, features, row)
