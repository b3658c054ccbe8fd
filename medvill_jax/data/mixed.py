"""The examples of a mixture: those of its data sets behind each other, and the order in which they are trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from medvill_jax.batch import HostBatch
from medvill_jax.data import loader, mixture
from medvill_jax.data.examples import PretrainRecords


class Order:
    """The records of a mixture in training, by their places in the stream; every source is in epochs of its own.

    Args:
        starts: int `[K + 1]`, the number of the first record of each of K sources, and the number of all.
        weights: the share of each source, with the sum 1.
        seed: of the orders of the sources.
    """

    def __init__(self, starts: np.ndarray, weights: Sequence[Fraction], seed: int):
        self._starts, self._weights = starts, weights
        # Not `seed + number`: sources of equal length would then have each other's orders in runs of other seeds.
        seeds = np.random.SeedSequence(seed).generate_state(len(weights)) >> 1  # grain takes 31 bits
        self._orders = [
            loader.shuffled(int(starts[source + 1] - starts[source]), int(own)) for source, own in enumerate(seeds)
        ]

    def __getitem__(self, place: int) -> int:
        source, own = mixture.place_in_source(place, self._weights)
        return int(self._starts[source]) + int(self._orders[source][own])  # pyright: ignore[reportArgumentType]


class MixedRecords:
    """A split of a mixture; its record numbers go on from one source to the next.

    A negative report is one of the film's own source, since another source's could be told by its style alone.

    Args:
        parts: the split of each source, by its name.
        weights: the share of each source in training, with the sum 1.

    Attributes:
        parts: as given.
        positive: bool `[n, C]`, the findings that are certainly present.
    """

    def __init__(self, parts: Mapping[str, PretrainRecords], weights: Mapping[str, Fraction]):
        self.parts, self._splits = dict(parts), list(parts.values())
        self._weights = [weights[name] for name in self.parts]
        self.positive = np.concatenate([part.positive for part in self.parts.values()])
        self._starts = np.cumsum([0, *map(len, self.parts.values())])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def example(self, record: int, place: int, **pairing: Any) -> HostBatch:
        """One example, as its source makes it.

        Where it has the numbers of its groups, which count within its source, it also has `sources`, the number of the
        source; see `batch.pretrain_spec`.
        """
        number, part, own = self._own(record)
        example = part.example(own, place, **pairing)
        return example | ({"sources": np.asarray(number, np.int32)} if "label_groups" in example else {})

    def text(self, record: int) -> str:
        """One whole text."""
        _, part, own = self._own(record)
        return part.text(own)

    def text_ids(self, record: int) -> np.ndarray:
        """Word-piece ids of one text, cut to `text_len`."""
        _, part, own = self._own(record)
        return part.text_ids(own)

    def order(self, seed: int) -> Order:
        """Which record stands at each place of the training stream."""
        return Order(self._starts, self._weights, seed)

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
        numbers = np.searchsorted(self._starts, chosen, "right") - 1
        found = np.bincount(numbers, minlength=len(self.parts))
        return {name: max(1, int(count)) if most else 0 for name, count in zip(self.parts, found, strict=True)}

    def fingerprint(self) -> str:
        """As `Records.fingerprint`, of all sources."""
        found = [f"{name} {part.fingerprint()}" for name, part in self.parts.items()]
        return hashlib.blake2b("\n".join(found).encode(), digest_size=16).hexdigest()

    def _own(self, record: int) -> tuple[int, PretrainRecords, int]:
        """The number of a record's source, the records of that source, and the record's number among them."""
        number = int(np.searchsorted(self._starts, record, "right")) - 1
        return number, self._splits[number], record - int(self._starts[number])
