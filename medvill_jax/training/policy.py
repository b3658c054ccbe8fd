"""Per-parameter policies: ordered lists of `(regex, value)` over parameter names.

A name is a path in the tree of parameters, such as `encoder/layer/0/attention/query/kernel`. The first regex that
matches the whole name wins, and a name that no regex matches is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias, TypeVar

from medvill_jax.errors import ConfigError

V = TypeVar("V")
Policy: TypeAlias = Sequence[tuple[str, V]]


def resolve(policy: Policy[V], names: Iterable[str]) -> dict[str, V]:
    """The value of each name under a policy.

    Raises:
        ConfigError: names that no regex matches (all are listed), or an invalid regex.
    """
    try:
        compiled = [(re.compile(pattern), value) for pattern, value in policy]
    except re.error as error:
        raise ConfigError(f"{error.pattern!r} is not a valid regular expression: {error}") from None
    values, missing = {}, []
    for name in names:
        rule_value = next(((value,) for pattern, value in compiled if pattern.fullmatch(name)), None)
        if rule_value is None:
            missing.append(name)
        else:
            values[name] = rule_value[0]
    if missing:
        raise ConfigError("no rule covers: " + ", ".join(missing))
    return values


def frozen_names(patterns: Sequence[str], names: Sequence[str]) -> frozenset[str]:
    """The names that a list of regexes freezes.

    Raises:
        ConfigError: a regex that is invalid or matches no name.
    """
    for pattern in patterns:
        if not any(resolve([(pattern, True), (r".*", False)], names).values()):
            raise ConfigError(f"freeze rule {pattern!r} matches no parameter; names look like {names[0]!r}")
    frozen = resolve([*((pattern, True) for pattern in patterns), (r".*", False)], names)
    return frozenset(name for name in names if frozen[name])
