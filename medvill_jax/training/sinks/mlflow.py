"""MLflow: a run in a database of the workdir, or where `MLFLOW_TRACKING_URI` says."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from medvill_jax.training.sinks import PROJECT, Start

# The most that MLflow takes at once, and in one value.
_BATCH, _LENGTH = 100, 6000


class Run:
    """A `Sink`; to see it: mlflow ui --backend-store-uri sqlite:///WORKDIR/sinks/mlflow/mlflow.db"""

    def __init__(self, how: Start):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by the import
        mlflow, entities = (importlib.import_module(name) for name in ("mlflow", "mlflow.entities"))
        self._metric = entities.Metric
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{how.folder.absolute()}/mlflow.db"
        self._client: Any = mlflow.MlflowClient(tracking_uri=uri)
        if how.run is not None:
            self.run = how.run
            self._client.update_run(self.run, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self.run: str = self._client.create_run(number, run_name=how.name).info.run_id
        params = [entities.Param(field, str(value)[:_LENGTH]) for field, value in how.config.items()]
        for part in _parts(params):
            self._client.log_batch(self.run, params=part)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.time_ns() // 1_000_000
        for part in _parts([self._metric(name, value, now, step) for name, value in metrics.items()]):
            self._client.log_batch(self.run, metrics=part)

    def close(self) -> None:
        self._client.set_terminated(self.run)


def _parts(entries: Sequence[Any]) -> list[Sequence[Any]]:
    return [entries[first : first + _BATCH] for first in range(0, len(entries), _BATCH)]
