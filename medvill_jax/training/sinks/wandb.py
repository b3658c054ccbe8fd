"""Weights & Biases: offline, in the workdir, for `wandb sync` to upload; online if `WANDB_MODE=online` says so."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Mapping
from typing import Any

from medvill_jax.training.sinks import PROJECT, Start


class Run:
    """A `Sink`. Every start of an offline run is a folder of its own: sync the first, then the others with --append."""

    def __init__(self, how: Start):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read by the import
        wandb = importlib.import_module("wandb")
        self.run = how.run or secrets.token_hex(4)
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        # Neither output, nor code, nor what names the machine and its user.
        settings = wandb.Settings(
            console="off",
            silent=True,
            save_code=False,
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            host="",
            username="",
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(how.folder),
            id=self.run,
            name=how.name,
            config=dict(how.config),
            mode=mode,
            resume="allow" if mode == "online" else None,  # only a server knows the run
            settings=settings,
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()
