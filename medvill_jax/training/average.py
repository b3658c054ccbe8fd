"""Averages of the weights over the steps of a training, with which it is evaluated and exported.

Polyak and Juditsky, SIAM J. Control Optim. 1992; with the exponential weights and the warm-up of TensorFlow's
`tf.train.ExponentialMovingAverage(decay, num_updates)`: after step t (from 0) an average moves by
1 - min(decay, (1 + t) / (10 + t)) of its distance to the weight, so the first steps, and the weights that a run starts
from, are soon forgotten. BatchNorm's statistics are averaged alike, as they belong to the weights of their time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.errors import ConfigError
from medvill_jax.training.step import trainable
from medvill_jax.trees import Tree, merge, select

Step = Callable[[Tree, Any], tuple[Tree, dict[str, jax.Array]]]


@dataclass(frozen=True)
class Average:
    """Attributes:
    decay: of the exponential weights, below 1; 0 averages nothing, and adds nothing to the state.
    frozen: names of the parameters that do not train: they are their own average, and not stored twice.

    Raises:
        ConfigError: a decay that is not in [0, 1).
    """

    decay: float = 0.0
    frozen: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ConfigError(f"ema.decay={self.decay} is not in [0, 1)")

    @property
    def parts(self) -> tuple[str, ...]:
        """The entries of a state that `of` needs."""
        return ("params", "stats", "ema") if self.decay else ("params", "stats")

    def begun(self, state: Tree) -> Tree:
        """A state whose averages are the weights that it has; can be jitted."""
        # Copies, since the step donates every array of its state.
        return state | {"ema": jax.tree.map(jnp.copy, self._averaged(state))} if self.decay else state

    def of(self, state: Tree) -> Tree:
        """The state's averages as `params` and `stats`; the state itself if nothing is averaged."""
        if not self.decay:
            return state
        params = merge(state["ema"]["params"], select(state["params"], self.frozen))
        return {"params": params, "stats": state["ema"]["stats"]}

    def follow(self, step: Step) -> Step:
        """A step function whose new state has the averages after `step`."""
        if not self.decay:
            return step

        def averaging(state: Tree, batch: Any) -> tuple[Tree, dict[str, jax.Array]]:
            new, metrics = step(state, batch)
            done = state["step"].astype(jnp.float32)
            moves = 1.0 - jnp.minimum(self.decay, (1.0 + done) / (10.0 + done))
            averages = jax.tree.map(lambda old, now: _moved(old, now, moves), state["ema"], self._averaged(new))
            return new | {"ema": averages}, metrics

        return averaging

    def _averaged(self, state: Tree) -> Tree:
        return {"params": trainable(state["params"], self.frozen), "stats": state["stats"]}


def _moved(average: jax.Array, now: jax.Array, by: jax.Array) -> jax.Array:
    """Counts, which are integers, have no average."""
    return average + by * (now - average) if jnp.issubdtype(now.dtype, jnp.floating) else now
