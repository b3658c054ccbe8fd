"""Writes the metrics of a run as one JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medvill_jax import private


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Writes metrics as one flat JSON object, in their order; a reader sees the old file or the new one.

    Args:
      path: the file, in a folder that exists.
      metrics: name -> number, list of numbers such as an interval, or text; numpy numbers and arrays are allowed.
        Numbers that are not finite become null, as JSON has no NaN; so null is a metric that is not defined.

    Raises:
      TypeError: a value of another type.
      OSError: the file cannot be written.
    """
    text = json.dumps({name: _plain(name, value) for name, value in metrics.items()}, indent=2, allow_nan=False)
    private.write(path, f"{text}\n")


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"metric {name!r} is a {type(value).__name__}; expected a number or a list of numbers")
