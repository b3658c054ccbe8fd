"""The tasks by their names in `config.task`."""

from __future__ import annotations

import importlib
from typing import Any

from medvill_jax.errors import ConfigError

# Name -> module, imported when its task is requested.
TASKS = {
    "pretrain": "medvill_jax.tasks.pretrain",
    "classify": "medvill_jax.tasks.classify",
    "retrieve": "medvill_jax.tasks.retrieve",
    "vqa": "medvill_jax.tasks.vqa",
    "generate": "medvill_jax.tasks.generate",
    "ground": "medvill_jax.tasks.ground",
    "ground_maps": "medvill_jax.tasks.ground_maps",
    "multitask": "medvill_jax.tasks.multitask",
    "zero_shot": "medvill_jax.tasks.zero_shot",
}


def task(name: str) -> Any:
    """The task of that name: called with a configuration and a workdir, it returns a run; `trains` says if it learns.

    Raises:
        ConfigError: no such task.
    """
    if name not in TASKS:
        raise ConfigError(f"task={name!r}; there are {', '.join(TASKS)}")
    return importlib.import_module(TASKS[name]).Task
