"""MedViLL in JAX: medical vision-language pre-training that people can really run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from medvill_jax.version import VERSION as __version__  # noqa: F401

if TYPE_CHECKING:
    from medvill_jax.app.model import Model as Model
    from medvill_jax.app.model import load as load
    from medvill_jax.app.results import Answer as Answer
    from medvill_jax.app.results import Embedding as Embedding
    from medvill_jax.app.results import Failed as Failed
    from medvill_jax.app.results import Findings as Findings
    from medvill_jax.app.results import HeatMap as HeatMap
    from medvill_jax.app.results import Match as Match
    from medvill_jax.app.results import Report as Report

# Name -> the module that has it. Importing the package stays light: data preparation needs no JAX.
_LAZY = {
    **dict.fromkeys(("Model", "load"), "medvill_jax.app.model"),
    **dict.fromkeys(
        ("Answer", "Embedding", "Failed", "Findings", "HeatMap", "Match", "Report"), "medvill_jax.app.results"
    ),
}
__all__ = ["Answer", "Embedding", "Failed", "Findings", "HeatMap", "Match", "Model", "Report", "load"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
