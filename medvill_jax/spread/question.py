"""What workers are asked about every film."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Question:
    """A question to films, for processes that load the model themselves.

    Attributes:
        export: what `load` takes; the same model for every worker.
        task, options: of `Model.stream`.
        batch_size: films that are computed at a time, always as many.
        made_with: the entries `weights` and `options` that every answer must have.
    """

    export: str
    task: str
    options: Mapping[str, Any]
    batch_size: int
    made_with: Mapping[str, Any]
