"""Nested dicts of arrays by the names of their leaves, such as `encoder/layer/0/attention/query/kernel`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax

Tree = dict[Any, Any]


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves of any tree by name: the keys, indices and attributes of their paths, joined by "/"."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def nest(flat: Mapping[str, Any], *, lists: bool = True) -> Tree:
    """The inverse of `flatten` for nested dicts.

    Args:
        flat: leaves by name.
        lists: whether numbers become integer keys, as in lists of modules.
    """
    tree: Tree = {}
    for name, leaf in flat.items():
        *branches, last = (int(key) if lists and key.isdigit() else key for key in name.split("/"))
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
        node[last] = leaf
    return tree


def tree_names(tree: Any) -> Any:
    """The tree with every leaf replaced by its name."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _name(path), tree)


def select(tree: Tree, names: Collection[str]) -> Tree:
    """The leaves of a nested dict whose names are in `names`; empty branches are dropped."""
    return nest({name: leaf for name, leaf in flatten(tree).items() if name in names})


def merge(first: Any, second: Any) -> Tree:
    """The union of two nested dicts without a common leaf; the inverse of two complementary `select`s."""
    return nest(flatten(first) | flatten(second))


def part_of(name: str) -> str:
    """The top-level branch that a name lies in."""
    return name.partition("/")[0]


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
