"""Films that look alike, by the image encoder's features: what the nearest-neighbour baseline reports."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from medvill_jax.data.examples import ReportRecords
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.network import Network
from medvill_jax.trees import Tree


class Neighbours:
    """Finds the films that look most alike.

    Args:
        evaluation: what it computes with.
        network: whose image encoder looks.
    """

    def __init__(self, evaluation: Evaluation, network: Network):
        self._evaluation = evaluation

        def pooled(params: Tree, stats: Tree, images: jax.Array) -> jax.Array:
            features = network.model.bind(params, stats).image_features(images)
            return jnp.mean(features, axis=1, dtype=jnp.float32)

        self._pooled = evaluation.jit(pooled)

    def nearest(self, state: Tree, asked: ReportRecords, known: ReportRecords, most: int) -> list[int]:
        """For every film of `asked` the one of `known` that looks most alike.

        Args:
            state: parameters and statistics.
            asked: N films.
            known: a split, of which at most `most` films are compared, evenly spaced.
            most: as said.

        Returns:
            N places among those evenly spaced.
        """
        there = self._features(state, known, most)  # [M, C]
        new = self._features(state, asked, 0)  # [N, C]
        middle = there.mean(0)
        there, new = (_unit_rows(features - middle) for features in (there, new))
        # A block at a time, as N x M cosines may be many.
        blocks = np.array_split(new, -(-len(new) // 256))
        return [int(place) for block in blocks for place in (block @ there.T).argmax(1)]

    def _features(self, state: Tree, films: ReportRecords, most: int) -> np.ndarray:
        """Image features of the films of a split, at most `most` of them (0: all), float32 `[N, C]`."""
        found, size = [], min(most or len(films), len(films))
        with tqdm(total=size, unit="film", disable=not sys.stderr.isatty()) as progress:
            for batch in self._evaluation.batches(films, most):
                rows = np.asarray(self._pooled(state["params"], state["stats"], batch["image"]))
                found.append(rows)
                progress.update(len(rows))
        return np.concatenate(found)[:size]


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
