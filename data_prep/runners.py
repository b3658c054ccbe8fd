"""Makes the shards of a build: with threads of this process, or with the workers of an Apache Beam runner."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.shards import Shard, make_shard
from data_prep.workspace import Stopped
from medvill_jax.data.records import DataError

# Runner -> pipeline options for {n} workers; other runners need --beam_options.
WORKER_OPTIONS = {
    "DirectRunner": ("--direct_num_workers={n}", "--direct_running_mode=multi_processing"),
    "DataflowRunner": ("--num_workers={n}",),
    "FlinkRunner": ("--parallelism={n}",),
    "SparkRunner": ("--spark_master_url=local[{n}]",),
}
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class BeamOptions:
    """Which Beam runner makes the shards.

    Attributes:
      runner: DirectRunner (processes on this host), DataflowRunner, FlinkRunner, SparkRunner, or another of Beam's.
      num_workers: number of workers; None lets the runner decide.
      options: further pipeline options in the form of Beam's command line, such as "--project=p --region=r".
    """

    runner: str = "DirectRunner"
    num_workers: int | None = None
    options: str = ""

    def check(self) -> None:
        """Raises `DataError` if the runner or its options cannot be used."""
        if self.num_workers is not None and self.num_workers < 1:
            raise DataError(f"--num_workers={self.num_workers}: at least one")
        self.pipeline_options()

    def threads(self) -> int | None:
        """Image threads per worker; None for the default of `images.ordered_map`."""
        if self.runner != "DirectRunner" or self.num_workers is None:
            return None
        return max(1, (os.cpu_count() or 1) // self.num_workers)

    def pipeline_options(self) -> Any:
        """These options as Beam's `PipelineOptions`; raises `DataError` if they cannot be used."""
        before = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)
        try:
            from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]
            from apache_beam.runners.runner import create_runner  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise DataError("--beam_runner needs Apache Beam: pip install 'medvill_jax[prep]'") from error
        finally:
            logging.getLogger().setLevel(before)
        known = WORKER_OPTIONS.get(self.runner, ()) if self.num_workers is not None else ()
        flags = ["--default_sdk_harness_log_level=ERROR", *(option.format(n=self.num_workers) for option in known)]
        flags += shlex.split(self.options)
        try:
            # Checks the name only: Spark and Flink look for Java when they start.
            create_runner(self.runner)
        except (ImportError, ValueError, AttributeError) as error:
            raise DataError(f"--beam_runner={self.runner} cannot be used: {error}") from error
        return PipelineOptions(flags)


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

    with _importable():
        try:
            with beam.Pipeline(runner=runner, options=options) as pipeline:
                _ = (
                    pipeline
                    | "Shards" >> beam.Create(list(shards))
                    | "Spread" >> beam.Reshuffle()
                    | "Make" >> beam.Map(make_shard)
                )
        except RuntimeError as error:
            last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise Stopped(f"the {runner} of Apache Beam stopped: {last}") from error
    missing = [shard for shard in shards if not shard.stats.is_file()]
    if missing:
        raise Stopped(
            f"the workers of {runner} reported success, but {len(missing)} of {len(shards)} shards are not at "
            f"{missing[0].file.parent}: source and --out must be folders that every worker sees under the same name"
        )


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Lets worker processes on this host import this package, and limits Beam's logging to errors."""
    root = str(Path(__file__).resolve().parents[1])
    before = os.environ.get("PYTHONPATH")
    level = logging.getLogger().level
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, before)))
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def _watch(shards: Sequence[Shard], progress: Callable[[int], Any]) -> Iterator[None]:
    """Calls `progress` with the rows of shards that other processes finish."""
    waiting, stop = list(shards), threading.Event()

    def look() -> None:
        for shard in [shard for shard in waiting if shard.stats.is_file()]:
            waiting.remove(shard)
            progress(shard.rows)

    def watch() -> None:
        while not stop.wait(_POLL_SECONDS):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
        look()
