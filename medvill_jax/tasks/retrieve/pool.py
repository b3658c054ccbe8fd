"""The records that are ranked, and the pairs that two-stage ranking matches."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np

from medvill_jax.data import loader, records
from medvill_jax.data.examples import PairRecords

log = logging.getLogger(__name__)

POOLS = ("even", "balanced")
# Share of all pairs that two-stage ranking matches by default.
TWO_STAGE_SHARE = 0.1


def open_pool(records_of: Callable[..., PairRecords], split: str, count: int, kind: str) -> PairRecords:
    """The candidates of a ranking.

    Args:
        records_of: the records of a split, or some of them.
        split: its name.
        count: the number of candidates; 0 for all.
        kind: one of `POOLS`.

    Raises:
        DataError: too few records.
    """
    whole = records_of(split)
    if len(whole) < 2:
        raise records.DataError(f"{split} has {len(whole)} record: a ranking needs two candidates")
    if count > len(whole):
        log.warning("%d candidates were requested, %s has %d: all of them are ranked", count, split, len(whole))
    chosen = loader.evenly(len(whole), count)
    if kind == "balanced":
        chosen = balanced(whole.label_groups, len(chosen))
    return records_of(split, among=chosen)


def balanced(groups: np.ndarray, count: int) -> np.ndarray:
    """int `[count]`, ascending: records taken from the label sets in turn.

    Args:
        groups: int `[n]`, the label set of each record.
        count: at most n.
    """
    turn = np.empty(len(groups), np.int64)  # the place of each record in its label set
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        turn[members] = np.arange(len(members))
    return np.sort(np.argsort(turn, kind="stable")[:count])


def best_of(similar: np.ndarray, count: int) -> np.ndarray:
    """bool `[Q, C]`: the `count` most similar candidates of each query."""
    chosen = np.zeros(similar.shape, bool)
    best = np.argsort(-similar, axis=1, kind="stable")[:, :count]
    np.put_along_axis(chosen, best, True, axis=1)
    return chosen


def default_proposals(count: int) -> int:
    """The number of proposals per query with which, over both directions, at most a tenth of all pairs is matched."""
    return max(1, math.floor(count * TWO_STAGE_SHARE / 2))
