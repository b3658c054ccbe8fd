"""Scores of image-text pairs, many of them: images once, pairs batched over the devices, what is done kept on disk."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from medvill_jax.cluster import distributed
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data import loader
from medvill_jax.tasks import made_with as notes
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

SCORES_FILE = "itm_scores.npy"
# What the scores were made with; another checkpoint or pool starts them anew.
MADE_WITH_FILE = "itm_scores.json"
# Pairs between two flushes to disk, at the most.
FLUSH_PAIRS = 50_000


class Scores:
    """A float32 array `[images, texts]` of pair scores, NaN where a pair has none yet.

    Args:
        workdir: where it lives on disk, so that an interrupted ranking goes on; None keeps it in memory.
        shape: images, texts.
        made_with: JSON-like; scores on disk that were made with something else are dropped.
    """

    def __init__(self, workdir: Workdir | None, shape: tuple[int, int], made_with: dict[str, Any] | None = None):
        self._workdir = workdir
        self.array = np.full(shape, np.nan, np.float32)
        if workdir is None:
            return
        if distributed.is_first():
            self.array = _on_disk(workdir.path, {"shape": shape, **(made_with or {})})
        # What is left to do is the same for all processes.
        known = distributed.from_first(self.array)
        if not distributed.is_first():
            self.array = known
        if done := int((~np.isnan(known)).sum()):
            log.info("%d of %d pair scores are there already", done, known.size)

    def flush(self) -> None:
        """Hands what was written to the disk, and to the bucket that the folder may mirror."""
        if isinstance(self.array, np.memmap) and self._workdir is not None:
            self.array.flush()
            self._workdir.publish(patient=True)


def _on_disk(folder: Path, made_with: dict[str, Any]) -> np.memmap:
    """The array of the folder, new if it was made with something else, or cannot be read."""
    path, note, shape = folder / SCORES_FILE, folder / MADE_WITH_FILE, tuple(made_with["shape"])
    if notes.fits(note, made_with) and _is_whole(path, shape):
        return np.lib.format.open_memmap(path, mode="r+")
    note.unlink(missing_ok=True)
    fresh = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    fresh[:] = np.nan
    fresh.flush()
    notes.write(note, made_with)
    return fresh


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file holds scores of a shape; opened to be written, one that was cut short would end in zeros."""
    try:
        kept = np.lib.format.open_memmap(path, mode="r")
    except (FileNotFoundError, ValueError):
        return False
    return kept.shape == shape and kept.dtype == np.float32


def fill(
    scores: Scores,
    wanted: np.ndarray,
    match: Callable[..., jax.Array],
    state: Tree,
    sides: Any,
    text_ids: np.ndarray,
    text_lens: np.ndarray,
    *,
    batch_size: int,
    batch_sharding: Any,
    replicated: Any,
) -> int:
    """Computes the wanted scores that are still missing.

    Films stay on the host and go to the devices once each, as many at a time as there are pairs in a batch; so devices
    hold no more for a large pool than for a small one.

    Args:
        scores: filled in place.
        wanted: bool `[images, texts]`.
        match: `(params, stats, sides, text_ids, text_lens, image_index, text_index) -> [P]`, see `pair_scores`; jitted.
        state: parameters and statistics.
        sides: numpy, of all images, `[images, ...]`.
        text_ids, text_lens: of all texts, `[texts, T+1]` and `[texts]`.
        batch_size: pairs at a time, a multiple of the devices.
        batch_sharding, replicated: where things go.

    Returns:
        How many pairs were computed.
    """
    images = len(sides)
    at_once = min(batch_size, images)
    text = [loader.from_whole(part, replicated) for part in (text_ids, text_lens)]
    total = int(np.count_nonzero(wanted & np.isnan(scores.array)))
    since = 0
    with tqdm(total=total, unit="pair", disable=not sys.stderr.isatty() or jax.process_index() != 0) as progress:
        for start in range(0, images, at_once):
            first = min(start, images - at_once)  # as many films every time, or else it would be compiled again
            rows = slice(first, first + at_once)
            left = np.argwhere(wanted[rows] & np.isnan(scores.array[rows])).astype(np.int32)  # [pairs, 2]
            block = loader.from_whole(sides[rows], replicated) if len(left) else None
            for place in range(0, len(left), batch_size):
                some = left[place : place + batch_size]
                filled = np.resize(some, (batch_size, 2))
                index = [loader.from_whole(part, batch_sharding) for part in filled.T]
                found = match(state["params"], state["stats"], block, *text, *index)
                scores.array[first + some[:, 0], some[:, 1]] = np.asarray(found.addressable_data(0))[: len(some)]
                progress.update(len(some))
                since += len(some)
                if since >= FLUSH_PAIRS:
                    scores.flush()
                    since = 0
    scores.flush()
    return total


def pair_scores(
    module: Any,
    sides: jax.Array,
    text_ids: jax.Array,
    text_lens: jax.Array,
    image_index: jax.Array,
    text_index: jax.Array,
    attention: str | None = None,
) -> jax.Array:
    """float32 `[P]`, how much better "matched" scores than "not matched": the logit of the matching probability.

    Args:
        module: a `Medvill`.
        sides: `[images, ...]` of `match_side`.
        text_ids, text_lens: `[texts, T+1]` and `[texts]`.
        image_index, text_index: int32 `[P]`, which image faces which text.
        attention: one of `attention_masks.KINDS`, or None for the configured one.
    """
    logits = module.match(sides[image_index], text_ids[text_index], text_lens[text_index], attention=attention)
    return logits[:, 1] - logits[:, 0]
