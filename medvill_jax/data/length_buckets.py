"""Batches of texts of like length, so that short reports are not padded to the longest one.

The records of a split are divided into buckets by the lengths of their texts. Every global batch is of one bucket, and
its text slots are as many as the longest text of that bucket may need. Buckets take turns as the sources of a mixture
do, in proportion to their records, so that every record is seen equally often. Which bucket a batch is of, and which
records it holds, follows from the step, the seed, the batch size and the lengths of all texts, on any number of hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from medvill_jax.batch import HostBatch
from medvill_jax.data.examples import PretrainRecords
from medvill_jax.data.joined import JoinedRecords, Order
from medvill_jax.errors import ConfigError

FIELD = "config.data.length_buckets"
# Every bucket is a train step that is compiled by itself.
MOST = 4


class BucketedRecords(JoinedRecords):
    """The records of a split in buckets. A negative report is one of the same bucket, so it fits the same slots.

    Args:
        parts: the records of each bucket, with its `text_len`.
    """

    def __init__(self, parts: Sequence[PretrainRecords]):
        super().__init__({str(number): part for number, part in enumerate(parts)})
        self._weights = [Fraction(len(part), len(self)) for part in parts]

    def example(self, record: int, place: int, **pairing: Any) -> HostBatch:
        """One example, as its bucket makes it; arguments as for `PretrainRecords.example`."""
        _, part, own = self.own(record)
        return part.example(own, place, **pairing)

    def order(self, seed: int, batch_size: int) -> Order:
        """Which record stands at each place of the training stream: every batch is of one bucket."""
        return Order(self.starts, self._weights, seed, run=batch_size)


def lengths(buckets: Sequence[int], text_len: int) -> tuple[int, ...]:
    """The word pieces that the texts of each bucket have at most: `buckets`, then `text_len`.

    Raises:
        ConfigError: they do not increase from 1 to less than `text_len`, or are too many.
    """
    increases = all(type(most) is int for most in buckets) and [*buckets] == sorted({*buckets})
    if not increases or (buckets and not 0 < buckets[0] <= buckets[-1] < text_len):
        raise ConfigError(
            f"{FIELD}={tuple(buckets)}: numbers of word pieces that increase and are less than "
            f"model.text_len={text_len} are needed, such as (73, 201), or () for no buckets"
        )
    if len(buckets) >= MOST:
        raise ConfigError(f"{FIELD} has {len(buckets)} lengths; at most {MOST - 1}, since each compiles a step")
    return (*buckets, text_len)


def divide(
    pieces: np.ndarray, texts: np.ndarray, groups: np.ndarray, most: Sequence[int], *, batch_size: int
) -> list[tuple[int, np.ndarray]]:
    """Which records are of which bucket.

    A bucket that has less than one batch of records, or no negatives since all texts or label sets are equal, is joined
    with the next longer one; the longest with the one before.

    Args:
        pieces: int `[n]`, the word pieces of each text.
        texts, groups: `[n]`, equal exactly for equal texts, and for equal label sets.
        most: the word pieces of the texts of each bucket at most, increasing; longer texts are in the last.
        batch_size: global.

    Returns:
        The word pieces of each bucket at most, and its records, int `[m]`, ascending; all records once.
    """
    number = np.minimum(np.searchsorted(most, pieces), len(most) - 1)
    divided: list[tuple[int, np.ndarray]] = []
    waiting = np.zeros(0, np.int64)
    for bucket, length in enumerate(most):
        waiting = np.union1d(waiting, np.flatnonzero(number == bucket))
        varied = all(len(np.unique(column[waiting])) > 1 for column in (texts, groups))
        if len(waiting) >= batch_size and varied:
            divided.append((length, waiting))
            waiting = np.zeros(0, np.int64)
    if len(waiting):
        before = divided.pop()[1] if divided else np.zeros(0, np.int64)
        divided.append((most[-1], np.union1d(before, waiting)))
    return divided
