"""Where on a film a phrase is seen: a heat map and a box, by an export of configs/ground.py or from matching alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medvill_jax.app import queries
from medvill_jax.app.film import Film
from medvill_jax.app.queries import Asked, Query
from medvill_jax.app.results import Place
from medvill_jax.data import boxes
from medvill_jax.data.transforms import square_window
from medvill_jax.errors import ConfigError
from medvill_jax.hub.arrays.grounding import GROUNDING, HEAD, UNTRAINED

TASK = "ground"
# Of a map that no validation split has chosen one for.
THRESHOLD = 0.5
_NO_CROP = np.random.default_rng(0)


def query(asked: Asked, options: Mapping[str, Any]) -> Query:
    """The query of `Model.ground`, whose arguments are the options.

    Raises:
        ConfigError: options that do not fit, no method, or one that this model cannot use.
        HubError: the export lacks a part.
    """
    queries.check_options(TASK, options, ("phrase", "method", "threshold"))
    trained = "place" in asked.export.heads
    method, threshold = options.get("method"), options.get("threshold")
    if "phrase" not in options:
        raise ConfigError("there is no phrase: give phrase=TEXT")
    if method is None and not trained:
        raise ConfigError(
            "this export was not trained to ground phrases: take one of configs/ground.py, or in Python give method=, "
            f"one of {', '.join(UNTRAINED)}, which docs/results.md compares with a fixed box"
        )
    method = HEAD if method is None else method
    if method not in GROUNDING:
        raise ConfigError(f"there is no method {method!r} of grounding; there are {', '.join(GROUNDING)}")
    if threshold is None:
        threshold = asked.export.extra.get("threshold", THRESHOLD) if method == HEAD else THRESHOLD
    if not isinstance(threshold, int | float | np.floating) or not 0 <= threshold <= 1:
        raise ConfigError(f"threshold={threshold!r} is not a share of the map's height, from 0 to 1")
    threshold = float(threshold)
    text = asked.reports([options["phrase"]], "phrase")

    def run(images: np.ndarray) -> list[dict[str, Any]]:
        given = np.repeat(text.ids, len(images), 0), np.repeat(text.lens, len(images), 0)
        maps = asked.arrays.ground(images, *given, method, batch_size=len(images))
        return [{"phrase": options["phrase"], "method": method, "map": cells} for cells in maps]

    def on_film(film: Film, fields: dict[str, Any]) -> dict[str, Any]:
        height, width = film.shape
        heat = boxes.on_film(fields["map"], height, width, square_window(height, width, None, _NO_CROP))
        box = tuple(boxes.box_of(heat, threshold).tolist())
        # Probabilities stay what they are; other maps have no scale.
        by_head = method == HEAD
        return {
            **fields,
            "map": heat if by_head else boxes.scaled(heat),
            "probability": float(heat.max()) if by_head else None,
            "box": box,
            "shape": film.shape,
        }

    stated = {"phrase": options["phrase"], "method": method, "threshold": threshold}
    return Query(Place, stated, run, text.warnings, on_film)
