"""MedViLL in JAX: medical vision-language pre-training that people can really run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvill_jax.hub.loaded import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Importing the package stays light: data preparation needs no JAX.
    if name == "load":
        from medvill_jax.hub.loaded import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
