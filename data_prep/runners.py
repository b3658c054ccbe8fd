"""Makes the shards of a build: with threads of this process, or with the workers of an Apache Beam runner."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_prep.shards import Shard, make_shard
from data_prep.workspace import Stopped
from medvill_jax import beam_runner
from medvill_jax.beam_runner import BeamError, BeamOptions

__all__ = ["BeamOptions", "run_shards"]

_POLL_SECONDS = 0.5


def run_shards(
    shards: Sequence[Shard],
    progress: Callable[[int], Any],
    runner: str | None = None,
    options: Any = None,
) -> None:
    """Makes every shard that is not finished.

    Args:
      shards: all shards of a build; finished ones are skipped.
      progress: called with the number of rows done since the last call.
      runner: an Apache Beam runner, or None for the threads of this process.
      options: Beam's `PipelineOptions`.
    """
    progress(sum(shard.rows for shard in shards if shard.stats.is_file()))
    todo = [shard for shard in shards if not shard.stats.is_file()]
    if runner is None:
        for shard in todo:
            make_shard(shard, lambda: progress(1))
    elif todo:
        with _watch(todo, progress):
            _run_beam(todo, runner, options)


def _run_beam(shards: Sequence[Shard], runner: str, options: Any) -> None:
    import apache_beam as beam  # pyright: ignore[reportMissingImports]

    try:
        with beam_runner.pipeline(runner, options) as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(list(shards))
                | "Spread" >> beam.Reshuffle()
                | "Make" >> beam.Map(make_shard)
            )
    except BeamError as error:
        raise Stopped(str(error)) from error
    missing = [shard for shard in shards if not shard.stats.is_file()]
    if missing:
        raise Stopped(
            f"the workers of {runner} reported success, but {len(missing)} of {len(shards)} shards are not at "
            f"{missing[0].file.parent}: source and --out must be folders that every worker sees under the same name"
        )


@contextlib.contextmanager
def _watch(shards: Sequence[Shard], progress: Callable[[int], Any]) -> Iterator[None]:
    """Calls `progress` with the rows of shards that other processes finish."""
    waiting = list(shards)

    def look() -> None:
        for shard in [shard for shard in waiting if shard.stats.is_file()]:
            waiting.remove(shard)
            progress(shard.rows)

    try:
        with beam_runner.polled(look, _POLL_SECONDS):
            yield
    finally:
        look()
