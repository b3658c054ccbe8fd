"""Nested dicts of arrays as flat names and back, and the names that a model of given sizes has."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import Medvill, MedvillConfig
from medvill_jax.training.policy import Tree, path_name


def flatten(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """Leaves by name, `encoder/layer/0/attention/query/kernel`."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(dict(tree))[0]}


def nest(flat: Mapping[str, Any]) -> Tree:
    """The inverse of `flatten`; numbers become integer keys, as lists of modules have them."""
    tree: Tree = {}
    for name, leaf in flat.items():
        *branches, last = (int(key) if key.isdigit() else key for key in name.split("/"))
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
        node[last] = leaf
    return tree


def part_of(name: str) -> str:
    """The top-level module of a name."""
    return name.partition("/")[0]


@functools.lru_cache(maxsize=4)
def functional(config: MedvillConfig, dtype: str = "float32") -> Functional[Medvill]:
    """The model of a configuration as pure functions."""
    return Functional(lambda rngs: Medvill(config, dtype=jnp.dtype(dtype), rngs=rngs))


def expected(config: MedvillConfig) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes by name of all parameters and of all batch statistics; all are float32."""
    model = functional(config)
    params, stats = (
        {name: tuple(leaf.shape) for name, leaf in flatten(tree).items()}
        for tree in (
            model.abstract_params,
            model.abstract_stats,
        )
    )
    return params, stats
