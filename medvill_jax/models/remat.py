"""Rematerialisation: what a layer computes for its gradient is not kept but computed again (Chen et al., 2016).

A policy says what is kept all the same. Policies have names, and one name holds for every layer of a network:

    ""              keep everything
    full            keep each layer's input only
    dots            also the results of all matrix products (convolutions are not among them)
    dots_no_batch   also the results of products with weights, but not those of attention, whose size grows with L x L
"""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from medvill_jax.errors import ConfigError

POLICIES: dict[str, Any] = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def check_policy(name: str) -> str:
    """The name itself.

    Raises:
        ConfigError: no policy has it.
    """
    if name and name not in POLICIES:
        raise ConfigError(f"unknown remat={name!r}; there are {', '.join(POLICIES)}, and nothing for none")
    return name


def apply(policy: str, module: Any, *args: Any, **static: Any) -> Any:
    """`module(*args, **static)` with its batch statistics updated, recomputed for the gradient as a policy says.

    Args:
        policy: a name, see the module's docstring.
        module: an `nnx.Module` that is called; it may change its batch statistics and nothing else.
        args: arrays, trees of arrays or None.
        static: what is no array.
    """
    if not policy:
        return module(*args, **static)
    graph, state = nnx.split(module)

    def run(state: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
        merged = nnx.merge(graph, state)
        return merged(*args, **static), nnx.state(merged, nnx.BatchStat)

    result, stats = jax.checkpoint(run, policy=POLICIES[policy])(state, args)  # pyright: ignore[reportPrivateImportUsage]
    nnx.update(module, stats)
    return result
