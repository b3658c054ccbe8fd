"""What can go wrong with a file or a checkpoint, in one type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from medvill_jax.errors import UserError


class HubError(UserError):
    """A file cannot be read or does not fit; the message says what, where and what to do."""


class Allowed:
    """Names that may be missing, extra, misshaped or untied.

    Args:
        patterns: regexes; each must match a whole name, ours or the source's.

    Raises:
        HubError: an invalid regex.
    """

    def __init__(self, patterns: Iterable[str]):
        try:
            self._patterns = [re.compile(pattern) for pattern in patterns]
        except re.error as error:
            raise HubError(f"--allow: {error.pattern!r} is not a valid regular expression: {error}") from None

    def __call__(self, *names: str) -> bool:
        """Whether one of the names is allowed."""
        return any(pattern.fullmatch(name) for pattern in self._patterns for name in names)


def raise_all(what: str, problems: Sequence[str]) -> None:
    """Raises one `HubError` that lists all problems; returns where there are none."""
    if problems:
        raise HubError(f"{what}:\n  " + "\n  ".join(problems))
