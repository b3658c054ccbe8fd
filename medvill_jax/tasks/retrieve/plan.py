"""An estimate of the time that ranking a split takes here, from a few timed batches, without checkpoint or data."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from medvill_jax.batch import BatchSpec, fake_batch
from medvill_jax.data import loader, records
from medvill_jax.tasks.data import Data
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.retrieve.pool import default_proposals
from medvill_jax.tasks.retrieve.scoring import PairScorer

# The published test split of MIMIC-CXR (docs/spec.md#retrieval-pool), for a dry run without data.
PUBLISHED_POOL = 1531


def plan(data: Data, spec: BatchSpec, evaluation: Evaluation) -> list[str]:
    """The estimate as lines of text.

    Raises:
        DataError: the split has too few records.
    """
    config, trainer = evaluation.config, evaluation.trainer
    count = PUBLISHED_POOL if data.fake else records.splits(config.data.path).get(config.eval.split, 0)
    count = min(config.eval.candidates or count, count) if not data.fake else config.eval.candidates or count
    if count < 2:
        raise records.DataError(f"{config.eval.split} has {count} records: a ranking needs two candidates")
    proposals = min(config.rank.proposals or default_proposals(count), count)
    pairs, proposed_pairs = count * count, min(2 * count * proposals, count * count)
    scorer = PairScorer(evaluation)
    state = trainer.initial_state()
    host = fake_batch(spec, 0, vocab_size=data.vocabulary.size, sep_id=data.vocabulary.sep_id)
    batch = next(loader.to_device(iter([host]), trainer.batch_sharding))
    encoded = scorer.encode(state["params"], state["stats"], batch)
    place = np.arange(scorer.batch_size, dtype=np.int32) % config.batch_size
    index = loader.from_whole(place, trainer.batch_sharding)
    arguments = (encoded["side"], encoded["text_ids"], encoded["text_lens"], index, index)
    encode = _seconds(lambda: scorer.encode(state["params"], state["stats"], batch)) / config.batch_size
    match = _seconds(lambda: scorer.match(state["params"], state["stats"], *arguments)) / scorer.batch_size
    side_bytes = encoded["side"].nbytes // config.batch_size * count
    exhaustive, two_stage = count * encode + pairs * match, count * encode + proposed_pairs * match
    return [
        f"{count:,} films x {count:,} reports on {trainer.mesh.size} {jax.default_backend()} device(s):",
        f"  film and report encodings  {count:>12,}   {_duration(count * encode):>9}   "
        f"({encode * 1e3:.2f} ms each, {side_bytes / 2**20:,.0f} MiB kept)",
        f"  exhaustive, pairs matched  {pairs:>12,}   {_duration(pairs * match):>9}   ({match * 1e3:.2f} ms each)",
        f"  two-stage, pairs matched   {proposed_pairs:>12,}   {_duration(proposed_pairs * match):>9}   "
        f"(at most; {proposals} proposals a query and direction)",
        f"  two-stage saves            {pairs - proposed_pairs:>12,}   {_duration(exhaustive - two_stage):>9}   "
        f"({100 * (exhaustive - two_stage) / exhaustive:.0f} % of the time)",
        "times are extrapolated from a few batches, without reading the films; nothing was ranked",
    ]


def _seconds(call: Callable[[], Any]) -> float:
    """The mean time of a call, without compilation."""
    jax.block_until_ready(call())
    start, runs = time.perf_counter(), 0
    while runs < 3 or (time.perf_counter() - start < 2.0 and runs < 50):
        jax.block_until_ready(call())
        runs += 1
    return (time.perf_counter() - start) / runs


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
