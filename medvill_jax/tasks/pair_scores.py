"""Matching scores of many image-text pairs: each image encoded once, pairs batched over the devices, kept on disk."""

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
# The note of what the scores were made with; another checkpoint or pool starts them anew.
MADE_WITH_FILE = "itm_scores.json"
# At most this many pairs between two flushes to disk.
FLUSH_PAIRS = 50_000


class Scores:
    """A float32 array `[images, texts]` of pair scores, NaN where a pair has none yet.

    Args:
        workdir: holds it on disk, so that an interrupted ranking goes on; None keeps it in memory.
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
        # All processes must compute the same missing pairs.
        stored = distributed.from_first(self.array)
        if not distributed.is_first():
            self.array = stored
        if done := int((~np.isnan(stored)).sum()):
            log.info("%d of %d pair scores were computed before", done, stored.size)

    def flush(self) -> None:
        """Writes the scores to disk, and to the bucket if the workdir mirrors one."""
        if isinstance(self.array, np.memmap) and self._workdir is not None:
            self.array.flush()
            self._workdir.publish(patient=True)


def _on_disk(folder: Path, made_with: dict[str, Any]) -> np.memmap:
    """The array of the folder; a new one if it was made with something else or cannot be read."""
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
    """Whether a file holds scores of this shape; opened for writing, a truncated file would be filled with zeros."""
    try:
        stored = np.lib.format.open_memmap(path, mode="r")
    except (FileNotFoundError, ValueError):
        return False
    return stored.shape == shape and stored.dtype == np.float32


def fill(
    scores: Scores,
    wanted: np.ndarray,
    score: Callable[..., jax.Array],
    state: Tree,
    sides: Any,
    text_ids: np.ndarray,
    text_lens: np.ndarray,
    *,
    batch_size: int,
    batch_sharding: Any,
    replicated: Any,
) -> int:
    """Computes the wanted scores that are missing.

    Encoded films stay on the host and go to the devices once each, at most `batch_size` at a time, so that the memory
    of the devices does not grow with the pool.

    Args:
        scores: filled in place.
        wanted: bool `[images, texts]`.
        score: jitted `(params, stats, sides, text_ids, text_lens, image_index, text_index) -> [P]`, see `score_pairs`.
        state: parameters and statistics.
        sides: numpy `[images, ...]`, the outputs of `match_side` for all images.
        text_ids, text_lens: numpy `[texts, T+1]` and `[texts]`, of all texts.
        batch_size: pairs in a batch, a multiple of the number of devices.
        batch_sharding, replicated: the shardings of pairs, and of images and texts.

    Returns:
        The number of pairs that were computed.
    """
    images = len(sides)
    at_once = min(batch_size, images)
    text = [loader.from_whole(part, replicated) for part in (text_ids, text_lens)]
    total = int(np.count_nonzero(wanted & np.isnan(scores.array)))
    unflushed = 0
    with tqdm(total=total, unit="pair", disable=not sys.stderr.isatty() or jax.process_index() != 0) as progress:
        for start in range(0, images, at_once):
            first = min(
                start, images - at_once
            )  # the same number of films every time, or the function would be compiled again
            rows = slice(first, first + at_once)
            missing = np.argwhere(wanted[rows] & np.isnan(scores.array[rows])).astype(np.int32)  # [pairs, 2]
            block = loader.from_whole(sides[rows], replicated) if len(missing) else None
            for place in range(0, len(missing), batch_size):
                pairs = missing[place : place + batch_size]
                filled = np.resize(pairs, (batch_size, 2))
                index = [loader.from_whole(part, batch_sharding) for part in filled.T]
                values = score(state["params"], state["stats"], block, *text, *index)
                scores.array[first + pairs[:, 0], pairs[:, 1]] = np.asarray(values.addressable_data(0))[: len(pairs)]
                progress.update(len(pairs))
                unflushed += len(pairs)
                if unflushed >= FLUSH_PAIRS:
                    scores.flush()
                    unflushed = 0
    scores.flush()
    return total


def score_pairs(
    module: Any,
    sides: jax.Array,
    text_ids: jax.Array,
    text_lens: jax.Array,
    image_index: jax.Array,
    text_index: jax.Array,
    attention: str | None = None,
) -> jax.Array:
    """float32 `[P]`, the log-odds that image and text match.

    Args:
        module: a `Medvill`.
        sides: `[images, ...]`, from `match_side`.
        text_ids, text_lens: `[texts, T+1]` and `[texts]`.
        image_index, text_index: int32 `[P]`, which image is paired with which text.
        attention: one of `attention_masks.KINDS`, or None for the configured one.
    """
    logits = module.match(sides[image_index], text_ids[text_index], text_lens[text_index], attention=attention)
    return logits[:, 1] - logits[:, 0]
