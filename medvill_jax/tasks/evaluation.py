"""Computing over every example of a split, each exactly once, on the devices of a run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from medvill_jax.batch import Batch, BatchSpec
from medvill_jax.cluster import distributed
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data import loader
from medvill_jax.data.examples import Records
from medvill_jax.data.mixed import MixedRecords
from medvill_jax.tasks import setup
from medvill_jax.tasks.network import Network
from medvill_jax.training.trainer import Trainer
from medvill_jax.trees import Tree

# (params, stats, batch) -> tree of arrays; from `Evaluation.jit`.
Compute = Callable[[Tree, Tree, Batch], Any]


class Evaluation:
    """Batches, sums and outputs of a split, for the evaluators of all tasks.

    Args:
        config, workdir, network, trainer: of the run.
        spec: of its batches.

    Attributes:
        config, workdir, network, trainer: of the run.
    """

    def __init__(self, config: setup.Config, workdir: Workdir, network: Network, trainer: Trainer, spec: BatchSpec):
        self.config, self.workdir, self.network, self.trainer = config, workdir, network, trainer
        self._spec = spec

    @property
    def batch_size(self) -> int:
        """Examples in a global batch."""
        return self.config.eval.batch_size or self.config.batch_size

    def jit(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """As `Trainer.jit`."""
        return self.trainer.jit(compute)

    def batches(self, examples: loader.Examples, most: int = 0, **pairing: Any) -> Iterator[Batch]:
        """Global batches of the examples in order, each once, the last one padded.

        Args:
            examples: a split.
            most: evaluate at most this many, evenly spaced; 0 for all.
            pairing: options of `examples.example`, such as which image is paired with which text.
        """
        batches = loader.eval_batches(
            examples,
            self._spec,
            batch_size=self.batch_size,
            max_examples=most,
            workers=setup.workers(self.config.data),
            **pairing,
        )
        return loader.to_device(batches, self.trainer.batch_sharding)

    def sums(
        self, compute: Compute, state: Tree, examples: loader.Examples, most: int = 0, **pairing: Any
    ) -> dict[str, float]:
        """Totals over the examples of the sums that `compute` returns for a batch; other arguments as for `batches`."""
        totals: dict[str, float] = {}
        for batch in self.batches(examples, most, **pairing):
            sums = jax.device_get(compute(state["params"], state["stats"], batch))
            totals = {name: totals.get(name, 0.0) + float(value) for name, value in sums.items()}
        return totals

    def outputs(self, compute: Compute, state: Tree, examples: loader.Examples, most: int = 0, **pairing: Any) -> Any:
        """The outputs of a function for each example, as numpy arrays `[n, ...]` in the order of the records.

        Args:
            compute: returns a tree of arrays `[B, ...]`.
            state: parameters and statistics.
            examples, most, pairing: as for `batches`.
        """
        count, whole = len(loader.evenly(len(examples), most)), None
        starts = itertools.count(0, self.batch_size)
        for start, batch in zip(starts, self.batches(examples, most, **pairing), strict=False):
            arrays = compute(state["params"], state["stats"], batch)
            arrays = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), arrays)
            if whole is None:
                whole = jax.tree.map(lambda leaf: np.empty((count, *leaf.shape[1:]), leaf.dtype), arrays)
            # Copied at once, so that no outputs stay on the devices.
            for rows, new in zip(jax.tree.leaves(whole), jax.tree.leaves(arrays), strict=True):
                rows[start : start + self.batch_size] = new[: count - start]
        return whole

    def made_with(self, step: int, state: Tree, held_out: Records | MixedRecords) -> dict[str, Any]:
        """What an evaluation of a checkpoint on records depends on, JSON-like; all processes must call it together."""
        return {
            "step": step,
            "checkpoint": self.trainer.checksum(state),
            "split": self.config.eval.split,
            "records": distributed.on_first("fingerprint of the records", held_out.fingerprint),
            "dtype": setup.dtype(self.config).name,
            "seed": self.config.seed,
        }
