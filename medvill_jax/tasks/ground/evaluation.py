"""Evaluation of phrase grounding by the trained head: maps of all phrases of a split, beside baselines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import jax

from medvill_jax.batch import Batch
from medvill_jax.data import loader
from medvill_jax.data.phrases import PhraseRecords
from medvill_jax.metrics import grounding
from medvill_jax.tasks import grounded
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.ground.objective import place_logits
from medvill_jax.tasks.grounded import Maps, Phrases
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

# Of an evaluation while training.
METRICS = ("phrases", "pointing", "miou", "cnr")


class Grounding:
    """Measures where the head sees phrases.

    Args:
        evaluation: of the run.
        records_of: the records of a split.

    Attributes:
        names: of the metrics of `evaluate`.
    """

    names = tuple(f"eval/{name}" for name in METRICS)

    def __init__(self, evaluation: Evaluation, *, records_of: Callable[..., PhraseRecords]):
        self._evaluation, self._config, self._records_of = evaluation, evaluation.config, records_of
        network = evaluation.network

        def probabilities(params: Tree, stats: Tree, batch: Batch) -> jax.Array:
            return jax.nn.sigmoid(place_logits(network.model.bind(params, stats), batch))

        self._probabilities = evaluation.jit(probabilities)

    def evaluate(self, state: Tree) -> dict[str, float]:
        """Means over some phrases of the split."""
        held_out, most = self._records_of(self._config.eval.split), self._config.eval.max_examples
        phrases = Phrases.read(held_out, loader.evenly(len(held_out), most))
        maps = phrases.on_films(self._evaluation.outputs(self._probabilities, state, held_out, most))
        rows = grounded.measures(maps, phrases.inside, grounded.DEFAULT_THRESHOLD)
        metrics: dict[str, Any] = grounding.score(rows, phrases.categories, resamples=0)
        return {f"eval/{name}": metrics[name] for name in METRICS}

    def evaluate_best(self, step: int, state: Tree) -> dict[str, Any]:
        """Means over every phrase of the split, with intervals and baselines."""
        split = self._config.eval.split
        log.info("grounding the phrases of %s with the best checkpoint, of step %d", split, step)
        held_out = self._records_of(split)
        threshold, phrases = self.threshold(state), Phrases.read(held_out)
        maps = self._maps(state, phrases)
        own = grounded.measures(maps, phrases.inside, threshold)
        others = grounded.baselines(Phrases.read(self._records_of("train")), phrases)
        elsewhere = self._maps(state, phrases, own_film=False)
        others[grounded.OTHER_FILM] = grounded.measures(elsewhere, phrases.inside, threshold)
        metrics = grounded.metrics_of(own, others, phrases, split, self._config.seed)
        metrics[f"{split}/threshold"] = threshold
        made_with = self._evaluation.made_with(step, state, held_out)
        if jax.process_index() == 0:
            workdir, seed = self._evaluation.workdir, self._config.seed
            grounded.write(workdir, metrics, phrases, maps, threshold, own, made_with, seed)
        return metrics

    def threshold(self, state: Tree) -> float:
        """The threshold of boxes that is best on the validation split."""
        phrases = Phrases.read(self._records_of("validation"))
        return grounded.threshold_of(self._maps(state, phrases).heat, phrases.inside)

    def _maps(self, state: Tree, phrases: Phrases, *, own_film: bool = True) -> Maps:
        cells = self._evaluation.outputs(self._probabilities, state, phrases.records, own_film=own_film)
        return phrases.on_films(cells, own_film=own_film)
