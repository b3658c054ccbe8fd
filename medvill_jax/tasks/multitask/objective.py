"""The sum of the objectives of several tasks, each over its own part of the batch."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from medvill_jax.batch import Batch, part_of_batch
from medvill_jax.training.step import Objective
from medvill_jax.trees import Tree


def sum_of(objectives: Mapping[str, Objective], coefficients: Mapping[str, float]) -> Objective:
    """The weighted sum of objectives.

    Args:
        objectives: by task; their sums are named `TASK/SUM`.
        coefficients: by task, the factor of its loss.
    """

    def weights(batch: Batch) -> dict[str, jax.Array]:
        return {
            f"{task}/{name}": weight
            for task, objective in objectives.items()
            for name, weight in objective.weights(part_of_batch(batch, task)).items()
        }

    def sums(params: Tree, stats: Tree, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], Tree]:
        found = {}
        for number, (task, objective) in enumerate(objectives.items()):
            # BatchNorm's running statistics go from one task to the next.
            part, stats = objective.sums(params, stats, part_of_batch(batch, task), jax.random.fold_in(key, number))
            found |= {f"{task}/{name}": value for name, value in part.items()}
        return found, stats

    factors = {
        f"{task}/{name}": coefficients[task] * factor
        for task, objective in objectives.items()
        for name, factor in objective.coefficients.items()
    }
    return Objective(sums, weights, factors)
