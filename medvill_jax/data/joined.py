"""The examples of several parts behind each other, and the order in which they are trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from medvill_jax.data import loader, mixture
from medvill_jax.data.examples import PretrainRecords


class Order:
    """The records of all parts in training, by their places in the stream; every part is in epochs of its own.

    Args:
        starts: int `[K + 1]`, the number of the first record of each of K parts, and the number of all.
        weights: the share of each part, with the sum 1.
        seed: of the orders of the parts.
        run: so many places in a row, from a multiple of it on, are of one part.
    """

    def __init__(self, starts: np.ndarray, weights: Sequence[Fraction], seed: int, *, run: int = 1):
        self._starts, self._weights, self._run = starts, weights, run
        # Not `seed + number`: parts of equal length would then have each other's orders in runs of other seeds.
        seeds = np.random.SeedSequence(seed).generate_state(len(weights)) >> 1  # grain takes 31 bits
        self._orders = [
            loader.shuffled(int(starts[part + 1] - starts[part]), int(own)) for part, own in enumerate(seeds)
        ]

    def __getitem__(self, place: int) -> int:
        run, row = divmod(place, self._run)
        part, own = mixture.place_in_source(run, self._weights)
        record = self._orders[part][own * self._run + row]
        return int(self._starts[part]) + int(record)  # pyright: ignore[reportArgumentType]


class JoinedRecords:
    """The records of several parts; their numbers go on from one part to the next.

    Args:
        parts: by their names.

    Attributes:
        parts: as given.
        positive: bool `[n, C]`, the findings that are certainly present.
        starts: int `[K + 1]`, the number of the first record of each of K parts, and the number of all.
    """

    def __init__(self, parts: Mapping[str, PretrainRecords]):
        self.parts, self._splits = dict(parts), list(parts.values())
        self.positive = np.concatenate([part.positive for part in self._splits])
        self.starts = np.cumsum([0, *map(len, self._splits)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def text(self, record: int) -> str:
        """One whole text."""
        _, part, own = self.own(record)
        return part.text(own)

    def text_ids(self, record: int) -> np.ndarray:
        """Word-piece ids of one text, cut to the `text_len` of its part."""
        _, part, own = self.own(record)
        return part.text_ids(own)

    def fingerprint(self) -> str:
        """As `Records.fingerprint`, of all parts."""
        found = [f"{name} {part.fingerprint()}" for name, part in self.parts.items()]
        return hashlib.blake2b("\n".join(found).encode(), digest_size=16).hexdigest()

    def own(self, record: int) -> tuple[int, PretrainRecords, int]:
        """The number of a record's part, the records of that part, and the record's number among them."""
        number = int(np.searchsorted(self.starts, record, "right")) - 1
        return number, self._splits[number], record - int(self.starts[number])
