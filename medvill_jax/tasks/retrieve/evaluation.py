"""Evaluation of retrieval: from scores of pairs to ranking metrics of both directions."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from medvill_jax.data.examples import PairRecords
from medvill_jax.metrics import ranking
from medvill_jax.tasks import subgroups
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.retrieve.pool import open_pool
from medvill_jax.tasks.retrieve.report import DIRECTIONS, write
from medvill_jax.tasks.retrieve.scoring import PairScorer, Proposals
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)


# The metrics of each direction while training.
TRAINING_ROWS = ("mrr", "hit_at_1", "recall_at_10")
# Those of subgroups.
MAIN = tuple(f"{direction}/{row}" for direction in DIRECTIONS for row in ("mrr", "recall_at_10"))


class Ranking:
    """Measures how high the right reports and films are ranked.

    Args:
        evaluation: of the run.
        records_of: the records of a split, or some of them.

    Attributes:
        names: of the metrics of `evaluate`.
        scorer: of pairs.
    """

    names = (
        "eval/candidates",
        *(f"eval/{direction}/{row}" for direction in DIRECTIONS for row in TRAINING_ROWS),
        *(f"eval/chance/{direction}/mrr" for direction in DIRECTIONS),
        "eval/mrr",
    )

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        records_of: Callable[..., PairRecords],
    ):
        self._evaluation, self._config, self._records_of = evaluation, evaluation.config, records_of
        self.scorer = PairScorer(evaluation)

    def evaluate(self, state: Tree) -> dict[str, float]:
        """The metrics of an exhaustive ranking of some records of the split, in both directions."""
        pool = self._pool(self._config.eval.rank_examples)
        with jax.transfer_guard("allow"):
            scores, _ = self.scorer.matrix(state, pool)
        metrics: dict[str, Any] = {"eval/candidates": float(len(pool))}
        for name, per_query, relevant in _directions(pool, scores):
            values = ranking.ranking(per_query, relevant, resamples=0)
            chance = ranking.chance(relevant, np.arange(len(pool)))
            metrics |= {f"eval/{name}/{row}": values[row] for row in TRAINING_ROWS}
            metrics[f"eval/chance/{name}/mrr"] = chance["mrr"]
        metrics["eval/mrr"] = float(np.mean([metrics[f"eval/{name}/mrr"] for name in DIRECTIONS]))
        return metrics

    def evaluate_best(self, step: int, state: Tree) -> dict[str, Any]:
        """The metrics of the requested rankers over the whole pool, with intervals and chance; ranks as a file."""
        config, split = self._config, self._config.eval.split
        log.info("ranking %s with the best checkpoint, of step %d", split, step)
        pool = self._pool(config.eval.candidates)
        made_with = self._evaluation.made_with(step, state, pool)
        scores, proposed = self.scorer.matrix(state, pool, made_with)
        metrics: dict[str, Any] = {f"{split}/candidates": float(len(pool))}
        resampling: dict[str, Any] = {"seed": config.seed, "clusters": pool.subjects()}
        ranks: dict[str, np.ndarray] = {}
        ranker = _directions(pool, scores)
        if config.rank.method != "two_stage":
            metrics[f"{split}/pair_evaluations"] = float(scores.size)
            values = _measured("", _directions(pool, scores), ranks, resampling)
            metrics |= {f"{split}/{name}": value for name, value in values.items()}
        if proposed is not None:
            metrics[f"{split}/two_stage/pair_evaluations"] = float(proposed.either.sum())
            metrics[f"{split}/two_stage/proposals"] = float(proposed.for_films.sum(1).max())
            values = _measured("two_stage/", _two_stage(pool, scores, proposed), ranks, resampling)
            ranker = _two_stage(pool, scores, proposed) if config.rank.method == "two_stage" else ranker
            metrics |= {f"{split}/{name}": value for name, value in values.items()}
        for name, _, relevant in _directions(pool, scores):
            chance = ranking.chance(relevant, np.arange(len(pool)))
            metrics |= {f"baseline/chance/{name}/{row}": value for row, value in chance.items()}
        if jax.process_index() == 0:
            write(self._evaluation.workdir, metrics, pool, ranks, made_with)
            score = functools.partial(_of_queries, list(ranker), resampling)
            characteristics = pool.characteristics()
            subgroups.write(self._evaluation.workdir, characteristics, resampling["clusters"], score, MAIN, made_with)
        return metrics

    def _pool(self, count: int) -> PairRecords:
        return open_pool(self._records_of, self._config.eval.split, count, self._config.eval.pool)


def _measured(
    ranker: str,
    directions: Iterable[tuple[str, np.ndarray, np.ndarray]],
    ranks: dict[str, np.ndarray],
    resampling: dict[str, Any],
) -> dict[str, Any]:
    """The metrics of a ranker in both directions; the ranks of all queries go to `ranks`."""
    metrics: dict[str, Any] = {}
    for name, per_query, relevant in directions:
        values = ranking.ranking(per_query, relevant, **resampling)
        values |= ranking.exact_pair(per_query, np.arange(len(per_query)), **resampling)
        metrics |= {f"{ranker}{name}/{row}": value for row, value in values.items()}
        ranks[f"{ranker}{name}"], ranks[f"{ranker}{name}/exact"] = ranking.own_ranks(per_query, relevant)
    return metrics


def _of_queries(
    directions: Iterable[tuple[str, np.ndarray, np.ndarray]], resampling: dict[str, Any], rows: np.ndarray
) -> dict[str, Any]:
    """The metrics of some of the queries, whose candidates are those of all."""
    own = resampling | {"clusters": resampling["clusters"][rows]}
    return {
        f"{name}/{metric}": value
        for name, per_query, relevant in directions
        for metric, value in ranking.ranking(per_query[rows], relevant[rows], **own).items()
    }


def _two_stage(
    pool: PairRecords, scores: np.ndarray, proposed: Proposals
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """As `_directions`, with the scores of a search in two stages."""
    computed = np.where(np.isnan(scores), -np.inf, scores)
    proposals = ((proposed.similar, proposed.for_films), (proposed.similar.T, proposed.for_reports.T))
    for (name, per_query, relevant), (similar, chosen) in zip(_directions(pool, computed), proposals, strict=True):
        yield name, ranking.two_stage(similar, chosen, np.where(chosen, per_query, 0.0)), relevant


def _directions(pool: PairRecords, scores: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The name, the scores `[queries, candidates]` and the right candidates, bool, of each direction."""
    right = pool.label_groups[:, None] == pool.label_groups[None, :]
    yield "i2r", scores, right
    yield "r2i", scores.T, right.T
