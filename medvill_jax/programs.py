"""`jax.jit` with the options of XLA that suit the network, for every program that runs it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

# By default XLA for CPUs hands products and convolutions to YNNPACK, which adds up to 2048 terms in a row. A float32
# product of 768 terms then has twice torch's rounding error, one of 2048 terms three times, and the gradient of the
# ResNet takes 1.6 times as long as without. Reductions stay there, since it adds those in short rows. So do all
# products of a network that computes in a narrow type, whose own rounding is far larger: it has the processor's
# instructions for bfloat16, which XLA's products have not.
CPU_OPTIONS = {
    "wide": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"},
    "narrow": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"},
}

_traced_for: ContextVar[str | None] = ContextVar("traced_for", default=None)


def jit(function: Callable[..., Any], *, dtype: str = "float32", platform: str | None = None, **arguments: Any) -> Any:
    """`jax.jit` for a program that runs the network; not to be called within another one.

    Args:
        function: what to compile.
        dtype: that the network computes in.
        platform: where the program will run, such as "cpu" or "tpu"; None is JAX's default.
        arguments: other arguments of `jax.jit`.
    """
    runs_on = platform or jax.default_backend()

    @functools.wraps(function)
    def traced(*args: Any, **named: Any) -> Any:
        token = _traced_for.set(runs_on)
        try:
            return function(*args, **named)
        finally:
            _traced_for.reset(token)

    options = _cpu_options("narrow" if jnp.dtype(dtype).itemsize < 4 else "wide") if runs_on == "cpu" else None
    return jax.jit(traced, compiler_options=options, **arguments)


def platform() -> str:
    """Where the program that is being traced will run; JAX's default outside of one."""
    return _traced_for.get() or jax.default_backend()


@functools.cache
def _cpu_options(kind: str) -> dict[str, Any] | None:
    """Those of `CPU_OPTIONS` that XLA knows, or None: they are experimental, and it refuses what it does not know."""
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS[kind]).lower().compile()
    except jax.errors.JaxRuntimeError:
        return _cpu_options("wide") if kind == "narrow" else None
    return CPU_OPTIONS[kind]
