"""The examples of phrase grounding: a film, a phrase, and the cells of the network in which it is seen."""

from __future__ import annotations

from typing import Any

import numpy as np

from medvill_jax.batch import HostBatch
from medvill_jax.data import boxes, records
from medvill_jax.data.examples import Records
from medvill_jax.data.negatives import other_images
from medvill_jax.data.transforms import Window, read_image, seen_through, square_window
from medvill_jax.paths import Place


class PhraseRecords(Records):
    """Phrase grounding examples (see `batch.ground_spec`).

    Args:
        grid: rows and columns of the network's cells.
        others: arguments of `Records`.

    Raises:
        DataError: as `Records`, or the data set holds no phrases with boxes.
    """

    def __init__(self, data_dir: Place, split: str, *, grid: int, **others: Any):
        if records.kind(data_dir) != "phrase" or "boxes" not in records.further(data_dir):
            raise records.DataError(
                f"{data_dir} holds no phrases with boxes: prepare such data with python -m data_prep ms_cxr"
            )
        super().__init__(data_dir, split, **others)
        self._grid = grid
        self._films_of_others = other_images(self.subjects(), self._seed)

    def category(self, record: int) -> str:
        """The finding that the phrase is about."""
        return self[record]["category"].decode()

    def boxes(self, record: int) -> np.ndarray:
        """Where the phrase is seen, float32 `[n, 4]` in 0..1 of the film's sides."""
        return np.asarray(self[record]["boxes"], np.float32).reshape(-1, 4)

    def window(self, record: int) -> tuple[int, int, Window]:
        """Height and width of the record's film in pixels, and what of it an evaluation shows the network."""
        height, width = read_image(self[record]["image"]).shape
        return height, width, square_window(height, width, None, self.rng(0))

    def shown(self, record: int, *, own_film: bool) -> int:
        """The record whose film an example shows: its own, or one of another patient."""
        return record if own_film else int(self._films_of_others[record])

    def example(self, record: int, place: int, *, own_film: bool = True) -> HostBatch:
        """One example; `place` is its index in the global stream, which seeds the crop.

        With the film of another patient the cells are still those of the record's own boxes.
        """
        film = read_image(self[self.shown(record, own_film=own_film)]["image"])
        height, width = film.shape
        window = square_window(height, width, self._crop, self.rng(place))
        seen = boxes.in_window(self.boxes(record), height, width, window)
        return {
            "image": seen_through(film, window, self._image_size),
            "cells": boxes.shares(seen, self._grid, self._grid).reshape(-1),
            "weights": np.ones((), np.float32),
            **self.text_arrays(record),
        }
