"""Trackio: a database in the workdir, or a Space or server where `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL` says."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import secrets
from collections.abc import Mapping

from medvill_jax.training.sinks import PROJECT, Start


class Run:
    """A `Sink`; to see it: TRACKIO_DIR=WORKDIR/sinks/trackio trackio show"""

    def __init__(self, how: Start):
        os.environ.setdefault("TRACKIO_DIR", str(how.folder.absolute()))  # read by the import
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        trackio = importlib.import_module("trackio")
        self.run = how.run or f"{how.name}-{secrets.token_hex(4)}"
        with contextlib.redirect_stdout(io.StringIO()):  # it prints advice
            self._run = trackio.init(
                project=PROJECT,
                name=self.run,
                config=dict(how.config),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()
