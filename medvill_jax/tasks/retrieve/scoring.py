"""Scores of all pairs of a pool: images and texts are encoded once, then the matching head scores the pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from medvill_jax.batch import Batch
from medvill_jax.cluster import distributed
from medvill_jax.data.examples import PairRecords
from medvill_jax.tasks import pair_scores
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.retrieve.pool import best_of, default_proposals
from medvill_jax.trees import Tree

METHODS = ("both", "exhaustive", "two_stage")


@dataclass(frozen=True)
class Proposals:
    """The pairs that the projections propose.

    Attributes:
        similar: float32 `[n, n]`, scaled cosines of films and reports.
        for_films, for_reports: bool `[n, n]`, the pairs proposed to each film, and to each report.
    """

    similar: np.ndarray
    for_films: np.ndarray
    for_reports: np.ndarray

    @property
    def either(self) -> np.ndarray:
        """bool `[n, n]`, the pairs proposed in at least one direction."""
        return self.for_films | self.for_reports


class PairScorer:
    """Scores pairs of images and texts.

    Args:
        evaluation: of the run, whose network has a matching head.
    """

    def __init__(self, evaluation: Evaluation):
        self._evaluation, self._config, self._trainer = evaluation, evaluation.config, evaluation.trainer
        self.encode = evaluation.jit(self._encoded)
        self.match = evaluation.jit(self._pair_scores)

    @property
    def batch_size(self) -> int:
        """Pairs in a batch, a multiple of the devices."""
        return self._trainer.filled(self._config.rank.batch_size)

    def matrix(
        self, state: Tree, pool: PairRecords, made_with: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Proposals | None]:
        """Pair scores `[n, n]`, NaN where the ranker needs none, and the proposals of two-stage ranking.

        Args:
            state: parameters and statistics.
            pool: the n records.
            made_with: what the scores depend on, to keep them in the workdir; None keeps them in memory, and ranks
                exhaustively.
        """
        config, count = self._config, len(pool)
        encoded = self._evaluation.outputs(self.encode, state, pool)
        proposed = None
        wanted = np.ones((count, count), bool)
        similar = np.zeros((count, count), np.float32)
        if self._contrasts:
            similar = encoded["image"] @ encoded["text"].T  # [images, texts], scaled cosines
        if self._contrasts and config.rank.method != "exhaustive" and made_with is not None:
            most = min(config.rank.proposals or default_proposals(count), count)
            proposed = Proposals(similar, best_of(similar, most), best_of(similar.T, most).T)
            if config.rank.method == "two_stage":
                # The last digits of a similarity differ between processors.
                wanted = distributed.from_first(proposed.either)
        workdir = None if made_with is None else self._evaluation.workdir
        scores = pair_scores.Scores(workdir, (count, count), made_with)
        pair_scores.fill(
            scores,
            wanted,
            self.match,
            state,
            encoded["side"],
            encoded["text_ids"],
            encoded["text_lens"],
            batch_size=self.batch_size,
            batch_sharding=self._trainer.batch_sharding,
            replicated=self._trainer.replicated,
        )
        return np.array(scores.array) + similar, proposed

    @property
    def _contrasts(self) -> bool:
        return self._config.contrast.width > 0

    def _encoded(self, params: Tree, stats: Tree, batch: Batch) -> dict[str, jax.Array]:
        module = self._evaluation.network.model.bind(params, stats)
        features = module.image_features(batch["image"])
        encoded = {name: batch[name] for name in ("text_ids", "text_lens")}
        encoded["side"] = module.match_side(features)
        if self._contrasts:
            image = module.project_image(module.embed_image(features, None, None))
            encoded["image"] = image * module.heads.contrast.temperature()
            encoded["text"] = module.project_text(batch["text_ids"], batch["text_lens"])
        return encoded

    def _pair_scores(self, params: Tree, stats: Tree, *arguments: Any) -> jax.Array:
        return pair_scores.score_pairs(self._evaluation.network.model.bind(params, stats), *arguments)
