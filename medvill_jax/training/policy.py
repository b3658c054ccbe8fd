"""Per-parameter policies: ordered lists of `(regex, value)` over parameter names.

A name is the path in the state, such as `encoder/layer/0/attention/query/kernel`. The first regex that matches the
whole name wins, and a name that none matches is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import jax

V = TypeVar("V")
Policy: TypeAlias = Sequence[tuple[str, V]]
Tree = dict[Any, Any]


def path_name(path: tuple[Any, ...]) -> str:
    """A JAX key path as a name: keys, indices and attributes joined by "/"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def tree_names(tree: Any) -> Any:
    """The tree with every leaf replaced by its name."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path_name(path), tree)


def select(tree: Tree, names: frozenset[str], prefix: str = "") -> Tree:
    """The part of a nested dict whose leaves' names are in `names`; branches left empty are dropped."""
    chosen: Tree = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            if branch := select(value, names, name + "/"):
                chosen[key] = branch
        elif name in names:
            chosen[key] = value
    return chosen


def merge(first: Any, second: Any) -> Tree:
    """The union of two nested dicts without a common leaf; the inverse of two complementary `select`s."""
    merged = dict(first)
    for key, value in second.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return merged


def resolve(policy: Policy[V], names: Iterable[str]) -> dict[str, V]:
    """The value of each name under a policy.

    Raises:
        ValueError: names without a value, all of them listed, or an invalid regex.
    """
    try:
        compiled = [(re.compile(pattern), value) for pattern, value in policy]
    except re.error as error:
        raise ValueError(f"{error.pattern!r} is not a valid regular expression: {error}") from None
    values, missing = {}, []
    for name in names:
        found = next(((value,) for pattern, value in compiled if pattern.fullmatch(name)), None)
        if found is None:
            missing.append(name)
        else:
            values[name] = found[0]
    if missing:
        raise ValueError("no rule covers: " + ", ".join(missing))
    return values


def frozen_names(patterns: Sequence[str], names: Sequence[str]) -> frozenset[str]:
    """The names that a list of regexes freezes.

    Raises:
        ValueError: a regex that matches nothing.
    """
    for pattern in patterns:
        if not any(resolve([(pattern, True), (r".*", False)], names).values()):
            raise ValueError(f"freeze rule {pattern!r} matches no parameter; names look like {names[0]!r}")
    frozen = resolve([*((pattern, True) for pattern in patterns), (r".*", False)], names)
    return frozenset(name for name in names if frozen[name])
