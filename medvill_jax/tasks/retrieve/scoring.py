"""Scores of all pairs of a pool on the devices: encodings once, then the matching head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from medvill_jax.batch import Batch
from medvill_jax.cluster import distributed
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data.examples import PairRecords
from medvill_jax.tasks import matching, setup
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.network import Network
from medvill_jax.tasks.retrieve.pool import best_of, default_proposals
from medvill_jax.training.trainer import Trainer
from medvill_jax.trees import Tree

METHODS = ("both", "exhaustive", "two_stage")


@dataclass(frozen=True)
class Proposals:
    """What the projections propose.

    Attributes:
        similar: float32 `[n, n]`, scaled cosines of films and reports.
        for_films, for_reports: bool `[n, n]`, the pairs proposed to each film, and to each report.
    """

    similar: np.ndarray
    for_films: np.ndarray
    for_reports: np.ndarray

    @property
    def either(self) -> np.ndarray:
        """bool `[n, n]`, proposed in one direction or in both."""
        return self.for_films | self.for_reports


class PairScorer:
    """Scores pairs.

    Args:
        trainer: of the run.
        config: of the run.
        network: with a matching head.
    """

    def __init__(self, trainer: Trainer, config: setup.Config, network: Network):
        self._trainer, self._config, self._network = trainer, config, network
        self.encode = trainer.jit(self._encoded)
        self.match = trainer.jit(self._pair_scores)

    @property
    def batch_size(self) -> int:
        """Pairs at a time."""
        return self._trainer.filled(self._config.rank.batch_size)

    def matrix(
        self,
        evaluation: Evaluation,
        state: Tree,
        pool: PairRecords,
        store: tuple[Workdir, dict[str, Any]] | None,
    ) -> tuple[np.ndarray, Proposals | None]:
        """Pair scores `[n, n]`, NaN where the ranker asks for none, and the proposals of two-stage ranking.

        Args:
            evaluation: of the run.
            state: parameters and statistics.
            pool: the n records.
            store: the folder that keeps scores, and what they depend on; None keeps them in memory, and ranks
                exhaustively.
        """
        config, count = self._config, len(pool)
        found = evaluation.outputs(self.encode, state, pool)
        folder, made_with = store or (None, {})
        proposed = None
        wanted = np.ones((count, count), bool)
        similar = np.zeros((count, count), np.float32)
        if self._contrasts:
            similar = found["image"] @ found["text"].T  # [images, texts], scaled cosines
        if self._contrasts and config.rank.method != "exhaustive" and store is not None:
            most = min(config.rank.proposals or default_proposals(count), count)
            proposed = Proposals(similar, best_of(similar, most), best_of(similar.T, most).T)
            if config.rank.method == "two_stage":
                # The last digits of a similarity are each processor's own.
                wanted = distributed.from_first(proposed.either)
        scores = matching.Scores(folder, (count, count), made_with)
        matching.fill(
            scores,
            wanted,
            self.match,
            state,
            found["side"],
            found["text_ids"],
            found["text_lens"],
            batch_size=self.batch_size,
            batch_sharding=self._trainer.batch_sharding,
            replicated=self._trainer.replicated,
        )
        return np.array(scores.array) + similar, proposed

    @property
    def _contrasts(self) -> bool:
        return self._config.contrast.width > 0

    def _encoded(self, params: Tree, stats: Tree, batch: Batch) -> dict[str, jax.Array]:
        module = self._network.model.bind(params, stats)
        features = module.image_features(batch["image"])
        found = {name: batch[name] for name in ("text_ids", "text_lens")}
        found["side"] = module.match_side(features)
        if self._contrasts:
            image = module.project_image(module.embed_image(features, None, None))
            found["image"] = image * module.heads.contrast.temperature()
            found["text"] = module.project_text(batch["text_ids"], batch["text_lens"])
        return found

    def _pair_scores(self, params: Tree, stats: Tree, *arguments: Any) -> jax.Array:
        return matching.pair_scores(self._network.model.bind(params, stats), *arguments)
