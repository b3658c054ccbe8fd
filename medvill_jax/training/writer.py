"""Writes the metrics of a run: to `metrics.jsonl` (one JSON object a line), as TensorBoard scalars, and to sinks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import tensorboardX

from medvill_jax import private
from medvill_jax.training import history, sinks
from medvill_jax.training.history import METRICS_FILE
from medvill_jax.training.sinks.feed import Feed


class MetricsWriter:
    """Appends metrics; only one process of a run writes.

    Args:
        workdir: the folder of `metrics.jsonl` and `tensorboard/`.
        resume_step: lines of later steps are dropped first: an interrupted run wrote them after its last checkpoint,
            and the resumed run writes them again.
        active: whether this process writes.
        to: sinks that get the same values.

    Raises:
        HistoryError: the file of an interrupted run is damaged.
    """

    def __init__(self, workdir: Path, *, resume_step: int, active: bool, to: sinks.Chosen = sinks.NONE):
        self._file = None
        if not active:
            return
        path = workdir / METRICS_FILE
        kept = [line for line in history.read(path) if line["step"] <= resume_step]
        private.write(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")
        self._tensorboard = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=resume_step + 1 if resume_step else None
        )
        self._feeds = [Feed(name, workdir, to.config, kept) for name in to.names]

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one line, with floats in full precision, and the scalars; values that are not finite become null."""
        if self._file is None:
            return
        defined = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._file.write(json.dumps({"step": step, **dict.fromkeys(metrics), **defined}) + "\n")
        self._file.flush()
        for name, value in defined.items():
            self._tensorboard.add_scalar(name, value, step)
        for feed in self._feeds:
            feed.write(step, defined)

    def close(self) -> None:
        """Flushes and closes both files; waits for sinks, but not for long."""
        if self._file is not None:
            self._file.close()
            self._tensorboard.close()
            for feed in self._feeds:
                feed.close()
