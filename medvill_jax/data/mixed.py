"""The examples of a mixture: those of its data sets behind each other, and the order in which they are trained on."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from medvill_jax.batch import HostBatch
from medvill_jax.data import loader, mixture
from medvill_jax.data.examples import PretrainRecords
from medvill_jax.data.joined import JoinedRecords, Order


class MixedRecords(JoinedRecords):
    """A split of a mixture; its record numbers go on from one source to the next.

    A negative report is one of the film's own source, since another source's could be told by its style alone.

    Args:
        parts: the split of each source, by its name.
        weights: the share of each source in training, with the sum 1.
    """

    def __init__(self, parts: Mapping[str, PretrainRecords], weights: Mapping[str, Fraction]):
        super().__init__(parts)
        self._weights = [weights[name] for name in self.parts]

    def example(self, record: int, place: int, **pairing: Any) -> HostBatch:
        """One example, as its source makes it.

        Where it has the numbers of its groups, which count within its source, it also has `sources`, the number of the
        source; see `batch.pretrain_spec`.
        """
        number, part, own = self.own(record)
        example = part.example(own, place, **pairing)
        return example | ({"sources": np.asarray(number, np.int32)} if "label_groups" in example else {})

    def order(self, seed: int, batch_size: int) -> Order:
        """Which record stands at each place of the training stream, whatever the batch size."""
        del batch_size
        return Order(self.starts, self._weights, seed)

    def seen(self, examples: int) -> dict[str, int]:
        """Source -> how many of the first examples of the training stream are its."""
        return dict(zip(self.parts, mixture.counts(examples, self._weights), strict=True))

    def lines(self, examples: int) -> list[str]:
        """How often a run of so many examples goes through each source, as text."""
        return [
            f"  {name}: {float(weight):.4g} of the examples, {len(part):,} of its own, {seen / len(part):.4g} epochs"
            for (name, part), weight, seen in zip(
                self.parts.items(), self._weights, self.seen(examples).values(), strict=True
            )
        ]

    def evenly(self, most: int) -> dict[str, int]:
        """Source -> how many of its records an evaluation takes that is to take `most` in all; 0 for all of them."""
        chosen = loader.evenly(len(self), most)
        numbers = np.searchsorted(self.starts, chosen, "right") - 1
        found = np.bincount(numbers, minlength=len(self.parts))
        return {name: max(1, int(count)) if most else 0 for name, count in zip(self.parts, found, strict=True)}
