"""The error of files and checkpoints, and the names that may differ without one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from medvill_jax.errors import UserError


class HubError(UserError):
    """A file or a checkpoint cannot be read, or does not fit the model."""


class Allowed:
    """Names that may be missing, extra, misshaped or untied.

    Args:
        patterns: regexes; one allows a name that it matches as a whole, ours or the checkpoint's.

    Raises:
        HubError: an invalid regex.
    """

    def __init__(self, patterns: Iterable[str]):
        try:
            self._patterns = [re.compile(pattern) for pattern in patterns]
        except re.error as error:
            raise HubError(f"--allow: {error.pattern!r} is not a valid regular expression: {error}") from None

    def __call__(self, *names: str) -> bool:
        """Whether one of these names is allowed."""
        return any(pattern.fullmatch(name) for pattern in self._patterns for name in names)


def raise_all(subject: str, problems: Sequence[str]) -> None:
    """Raises one `HubError` that lists all problems; does nothing if there are none."""
    if problems:
        raise HubError(f"{subject}:\n  " + "\n  ".join(problems))
