"""Similar films by the image encoder's features, for the nearest-neighbour baseline."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from medvill_jax.data.examples import ReportRecords
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.trees import Tree


class Neighbours:
    """Finds the most similar films.

    Args:
        evaluation: of the run.
    """

    def __init__(self, evaluation: Evaluation):
        self._evaluation = evaluation

        def pooled(params: Tree, stats: Tree, images: jax.Array) -> jax.Array:
            features = evaluation.network.model.bind(params, stats).image_features(images)
            return jnp.mean(features, axis=1, dtype=jnp.float32)

        self._pooled = evaluation.jit(pooled)

    def nearest(self, state: Tree, films: ReportRecords, known: ReportRecords, most: int) -> list[int]:
        """For each film of `films`, the most similar one of `known`.

        Args:
            state: parameters and statistics.
            films: N records.
            known: a split.
            most: compare at most this many films of `known`, evenly spaced; 0 for all.

        Returns:
            N places among the films that are compared.
        """
        candidates = self._features(state, known, most)  # [M, C]
        queries = self._features(state, films, 0)  # [N, C]
        mean = candidates.mean(0)
        candidates, queries = (_unit_rows(features - mean) for features in (candidates, queries))
        # A block at a time, as N x M cosines may be many.
        blocks = np.array_split(queries, -(-len(queries) // 256))
        return [int(place) for block in blocks for place in (block @ candidates.T).argmax(1)]

    def _features(self, state: Tree, films: ReportRecords, most: int) -> np.ndarray:
        """Image features of the films of a split, at most `most` of them (0: all), float32 `[N, C]`."""
        parts, size = [], min(most or len(films), len(films))
        with tqdm(total=size, unit="film", disable=not sys.stderr.isatty()) as progress:
            for batch in self._evaluation.batches(films, most):
                rows = np.asarray(self._pooled(state["params"], state["stats"], batch["image"]))
                parts.append(rows)
                progress.update(len(rows))
        return np.concatenate(parts)[:size]


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """The rows scaled to length 1; a row of zeros stays as it is."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
