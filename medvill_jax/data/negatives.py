"""Image-text matching negatives: the report of another study whose set of labels differs (docs/spec.md#itm).

One random number per negative, without retries: the candidates are counted, one is picked uniformly, and its place is
found by binary search. Records are sorted by label set, so that the records of one set are an interval, which is left
out as a whole; the few records of other sets with the same text are left out one by one.
"""

from __future__ import annotations

import numpy as np

from medvill_jax.data.labels import label_groups
from medvill_jax.data.records import DataError


class Negatives:
    """Samples negatives for the records of a split.

    Args:
        labels: int8 `[n, C]`, one row per record; the label set of a record is its set of positive findings.
        texts: `[n]`, integers that are equal exactly for equal texts.

    Attributes:
        groups: int `[n]`, equal exactly for equal label sets.
        texts: int `[n]`, equal exactly for equal texts.

    Raises:
        DataError: all records have the same text, so there is no negative.
    """

    def __init__(self, labels: np.ndarray, texts: np.ndarray):
        texts = np.unique(texts, return_inverse=True)[1]
        if len(texts) and texts.max() == 0:
            raise DataError(
                "image-text matching needs at least two different texts in a split, and this one has a single one"
            )
        groups = label_groups(labels)
        self._order = np.argsort(groups, kind="stable")
        self.groups, self.texts = groups, texts
        sorted_groups = groups[self._order]
        self._start = np.searchsorted(sorted_groups, np.arange(groups.max() + 1), "left")
        self._stop = np.searchsorted(sorted_groups, np.arange(groups.max() + 1), "right")
        by_text = np.argsort(texts[self._order], kind="stable")  # sorted places, grouped by text, ascending in each
        counts = np.bincount(texts)
        self._places_of_text = np.split(by_text, np.cumsum(counts)[:-1])

    def draw(self, record: int, rng: np.random.Generator) -> int:
        """A record with another label set and another text; if there is none, one with another text.

        All such records have equal probability.
        """
        group = self.groups[record]
        start, stop = self._start[group], self._stop[group]
        same_text = self._places_of_text[self.texts[record]]
        outside = same_text[(same_text < start) | (same_text >= stop)]
        if len(self._order) - (stop - start) - len(outside) == 0:
            start = stop = 0
            outside = same_text
        # Places in the order without the interval of this label set.
        excluded = outside - np.where(outside >= stop, stop - start, 0)
        pick = rng.integers(0, len(self._order) - (stop - start) - len(excluded))
        pick += np.searchsorted(excluded - np.arange(len(excluded)), pick, "right")
        if pick >= start:
            pick += stop - start
        return int(self._order[pick])


def other_images(texts: np.ndarray, seed: int) -> np.ndarray:
    """Pairs each record with one of another text, by a permutation int `[n]`: the shuffled-images baseline.

    Records are sorted by text, with the texts in random order, and shifted by the size of the largest group of one
    text. So every partner has another text, unless one text has more than half of the records: then some of its records
    are paired with records of the same text.
    """
    texts = np.unique(texts, return_inverse=True)[1]
    counts = np.bincount(texts)
    rank = np.random.default_rng(seed).permutation(len(counts))
    order = np.argsort(rank[texts], kind="stable")
    partner = np.empty(len(texts), np.int64)
    partner[order] = np.roll(order, -counts.max())
    return partner
