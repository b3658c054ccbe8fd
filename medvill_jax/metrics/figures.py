"""The file of a run's figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medvill_jax import private


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Writes figures as one flat JSON object, in their order; whoever reads sees the old file or the new one.

    Args:
      path: the file, in a folder that exists.
      figures: name -> number, list of numbers such as an interval, or text; numpy's numbers and arrays too. What is
        not finite becomes null, as JSON has no NaN; a figure that is not defined is therefore null.

    Raises:
      TypeError: another kind of value.
      OSError: the file cannot be written.
    """
    text = json.dumps({name: _plain(name, value) for name, value in figures.items()}, indent=2, allow_nan=False)
    private.write(path, f"{text}\n")


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(name, each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"figure {name!r} is a {type(value).__name__}; expected a number or a list of numbers")
