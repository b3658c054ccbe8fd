"""`jax.jit` with the options of XLA that suit the network, for every program that runs it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

# By default XLA for CPUs hands products and convolutions to YNNPACK, which adds up to 2048 terms in a row. A float32
# product of 768 terms then has twice torch's rounding error, one of 2048 terms three times, and the gradient of the
# ResNet takes 1.6 times as long as without. Reductions stay there, since it adds those in short rows.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def jit(function: Callable[..., Any], *, platform: str | None = None, **arguments: Any) -> Any:
    """`jax.jit` for a program that runs the network; not to be called within another one.

    Args:
        function: what to compile.
        platform: where the program will run, such as "cpu" or "tpu"; None is JAX's default.
        arguments: other arguments of `jax.jit`.
    """
    options = _cpu_options() if (platform or jax.default_backend()) == "cpu" else None
    return jax.jit(function, compiler_options=options, **arguments)


@functools.cache
def _cpu_options() -> dict[str, Any] | None:
    """`CPU_OPTIONS`, or None where XLA does not know them: they are experimental, and it refuses unknown options."""
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return CPU_OPTIONS
