"""What a user can correct, in one family: commands show it as one line, and whatever else is raised is a bug."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can correct; the message says what is wrong, where, and what to do."""


class ConfigError(UserError, ValueError):
    """A configuration field or an argument has a value that it cannot have, or that does not go with another's."""


class MissingExtra(UserError, ImportError):
    """A library of an optional extra is not installed; the message names the extra."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {library}: pip install 'medvill_jax[{extra}]'")
