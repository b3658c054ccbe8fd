"""Rematerialisation: a layer's activations are recomputed for the gradient instead of kept (Chen et al., 2016).

A policy, the same for every layer of a network, names what is kept:

    ""              keep everything
    full            keep each layer's input only
    dots            also the results of all matrix products and convolutions
    dots_no_batch   also the results of products with weights; neither those of attention, whose size grows with L x L,
                    nor those of convolutions

The modules name these results, see `models.precision`: rounded to the type they compute in, but for attention's logits.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
from flax import nnx

from medvill_jax.errors import ConfigError
from medvill_jax.models.precision import ATTENDED, CONVOLVED, WEIGHTED

POLICIES: dict[str, Any] = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names(WEIGHTED, CONVOLVED, ATTENDED),
    "dots_no_batch": jax.checkpoint_policies.save_only_these_names(WEIGHTED),
}


def check_policy(name: str) -> str:
    """Returns the name of a policy.

    Raises:
        ConfigError: there is no such policy.
    """
    if name and name not in POLICIES:
        raise ConfigError(f"unknown remat={name!r}; there are {', '.join(POLICIES)}, and '' for none")
    return name


_OFF = contextvars.ContextVar("off", default=False)


@contextlib.contextmanager
def off() -> Iterator[None]:
    """A block in which traced networks keep all activations, whatever their policy: so useful FLOPs are counted."""
    token = _OFF.set(True)
    try:
        yield
    finally:
        _OFF.reset(token)


def is_off() -> bool:
    """Whether this is inside of such a block."""
    return _OFF.get()


def apply(policy: str, module: Any, *args: Any, **fixed: Any) -> Any:
    """Calls `module(*args, **fixed)` under a policy, and updates its batch statistics.

    Args:
        policy: a name, see the module's docstring.
        module: an `nnx.Module`; its call may change only its batch statistics.
        args: arrays, trees of arrays or None.
        fixed: arguments without a gradient.
    """
    if not policy or is_off():
        return module(*args, **fixed)
    graph, state = nnx.split(module)

    def run(state: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
        merged = nnx.merge(graph, state)
        return merged(*args, **fixed), nnx.state(merged, nnx.BatchStat)

    result, stats = jax.checkpoint(run, policy=POLICIES[policy])(state, args)  # pyright: ignore[reportPrivateImportUsage]
    nnx.update(module, stats)
    return result
