"""Loads the model of an export: `medvill_jax.load(FOLDER).arrays.logits(...)`, `.arrays.generate(...)`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from medvill_jax.hub.arrays import Arrays
from medvill_jax.hub.export import Export, read_export
from medvill_jax.hub.files import local_path
from medvill_jax.hub.names import UPSTREAM
from medvill_jax.models.compat import Compat
from medvill_jax.models.medvill import MedvillConfig


class Loaded:
    """A trained model. Evaluation only: no dropout, running BatchNorm statistics.

    Attributes:
        export: the folder's content: configuration, arrays, heads, label names, vocabulary.
        config: the network's configuration, with the compat switches in force.
        arrays: the functions over images and token ids.
    """

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        self.export = export
        self.config = config
        self.arrays = Arrays(export, config, dtype)

    def __getattr__(self, name: str) -> Any:
        # Model cards of earlier exports name these without `arrays`.
        way = f"; what takes arrays is model.arrays.{name}" if hasattr(Arrays, name) else ""
        raise AttributeError(f"a loaded model has no {name!r}{way}")


def load(path: str | Path, *, compat: str | Compat | None = None, dtype: str = "float32") -> Loaded:
    """Loads the model of an export.

    Args:
        path: the folder, or `gs://BUCKET/FOLDER`.
        compat: "upstream" for the released code's behaviour at the checkpoint's stage, "clean" for this package's, or
            the switches themselves; None keeps those that the export records.
        dtype: of computation.

    Raises:
        HubError: the folder is no export, is damaged, or cannot be fetched.
        ConfigError: unknown compat.
    """
    export = read_export(local_path(path))
    config = export.config
    if isinstance(compat, str):
        compat = Compat.named(compat, export.stage if export.stage in UPSTREAM else "pretraining")
    if compat is not None:
        config = dataclasses.replace(config, compat=compat)
    return Loaded(export, config, dtype)
