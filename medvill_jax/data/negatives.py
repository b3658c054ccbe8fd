"""Image-text matching negatives: the report of another study whose set of labels differs (docs/spec.md#itm).

One draw, no retries: the records that may serve are counted, one is picked uniformly, and its place is found by binary
search. Records are sorted by label set, so the own set is one interval to leave out; the few records of other sets
that carry the very same text are left out one by one.
"""

from __future__ import annotations

import numpy as np

from medvill_jax.data.labels import label_groups
from medvill_jax.data.records import DataError


class Negatives:
    """Draws negatives for the records of one split.

    Args:
        labels: int8 `[n, C]`, one row a record; a record's label set are its positive findings.
        texts: `[n]` any integers that are equal exactly where the texts are.

    Attributes:
        groups, texts: int `[n]`, equal exactly where the label sets, or the texts, are equal.

    Raises:
        DataError: every record has the same text, so nothing can be a negative.
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
        """A record whose label set differs and whose text differs; failing that, one whose text differs.

        Uniform over the records that qualify.
        """
        group = self.groups[record]
        start, stop = self._start[group], self._stop[group]
        same_text = self._places_of_text[self.texts[record]]
        outside = same_text[(same_text < start) | (same_text >= stop)]
        if len(self._order) - (stop - start) - len(outside) == 0:
            start = stop = 0
            outside = same_text
        # Places as they would be numbered with the own interval cut out.
        excluded = outside - np.where(outside >= stop, stop - start, 0)
        pick = rng.integers(0, len(self._order) - (stop - start) - len(excluded))
        pick += np.searchsorted(excluded - np.arange(len(excluded)), pick, "right")
        if pick >= start:
            pick += stop - start
        return int(self._order[pick])


def other_images(texts: np.ndarray, seed: int) -> np.ndarray:
    """For each record another one with a different text: int `[n]`, a permutation; the shuffled-images baseline.

    Records of one text are laid side by side in a random order of the texts, and everything moves on by the largest
    such group. That misses no record as long as no text fills more than half of the split; where one does, the records
    that cannot be served keep an image of the same text.
    """
    texts = np.unique(texts, return_inverse=True)[1]
    counts = np.bincount(texts)
    rank = np.random.default_rng(seed).permutation(len(counts))
    order = np.argsort(rank[texts], kind="stable")
    partner = np.empty(len(texts), np.int64)
    partner[order] = np.roll(order, -counts.max())
    return partner
