"""The mesh, and how each array is sharded over it.

The batch is split over both axes, `data` and `fsdp`; parameters are split over `fsdp` only, by an ordered list of
`(regex, layout)`. A layout is "replicate", or "largest": split the largest dimension that the fsdp axis divides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medvill_jax.errors import ConfigError
from medvill_jax.training.policy import resolve
from medvill_jax.trees import flatten, tree_names

PARAMETER_RULES = ((r".*/(bias|scale|mean|var|count)", "replicate"), (r".*", "largest"))


def make_mesh(fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh `("data", "fsdp")` over all devices, in the order of their processes.

    Raises:
        ConfigError: the number of devices is not a multiple of `fsdp`.
    """
    devices = devices or sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if fsdp < 1 or len(devices) % fsdp:
        raise ConfigError(f"mesh.fsdp={fsdp} does not divide the {len(devices)} devices")
    return Mesh(np.array(devices).reshape(-1, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of batches: rows are split over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def whole(tree: Any, shardings: Any) -> Any:
    """Gathers sharded arrays on every device of their mesh; to be called within `jax.jit`.

    Without this the partitioner may split a layer's computation as its weights are split, and gather the activations
    of all rows for it.
    """
    return jax.lax.with_sharding_constraint(tree, jax.tree.map(lambda where: replicated(where.mesh), shardings))


def to_host(tree: Any, mesh: Mesh) -> Any:
    """A sharded tree as whole numpy arrays on every host; all processes must call it together."""
    everywhere = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda array: np.asarray(array.addressable_data(0)), everywhere)


def parameter_spec(shape: tuple[int, ...], layout: str, fsdp: int) -> PartitionSpec:
    """The PartitionSpec of one array under a layout.

    Raises:
        ConfigError: an unknown layout.
    """
    if layout not in ("replicate", "largest"):
        raise ConfigError(f"unknown layout {layout!r}; there are 'replicate' and 'largest'")
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if layout == "replicate" or fsdp == 1 or not divisible:
        return PartitionSpec()
    axis = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * axis, "fsdp")


def tree_shardings(mesh: Mesh, abstract: Any, rules: Sequence[tuple[str, str]] = PARAMETER_RULES) -> Any:
    """Shardings in the structure of `abstract`, a tree of arrays or `jax.ShapeDtypeStruct`; rules match its names."""
    layouts = resolve(rules, flatten(abstract))

    def place(name: str, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, parameter_spec(leaf.shape, layouts[name], mesh.shape["fsdp"]))

    return jax.tree.map(place, tree_names(abstract), abstract)


def decisions(abstract: Any, shardings: Any, rules: Sequence[tuple[str, str]] = PARAMETER_RULES) -> list[str]:
    """One log line per rule: how many arrays it covers, of what total size, and which part of them is split.

    Args:
        abstract: as for `tree_shardings`.
        shardings: the result of `tree_shardings` for it and `rules`.
        rules: the same rules.
    """
    leaves = flatten(abstract)
    by_rule = resolve([(regex, number) for number, (regex, _) in enumerate(rules)], leaves)
    totals = np.zeros((len(rules), 2, 2))  # [rule, whole or split, arrays or bytes]
    for (name, leaf), where in zip(leaves.items(), jax.tree.leaves(shardings), strict=True):
        totals[by_rule[name], int(any(where.spec))] += 1, leaf.size * leaf.dtype.itemsize
    return [
        f"{regex} -> {layout}: "
        + ", ".join(
            f"{arrays:.0f} arrays {what} ({size / 1e6:,.1f} MB)"
            for (arrays, size), what in zip(totals[number], ("whole", "split"), strict=True)
            if arrays
        )
        for number, (regex, layout) in enumerate(rules)
    ]
