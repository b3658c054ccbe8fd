"""Errors that a user can correct, in one family: commands show them as one line; any other exception is a bug."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """An error that the user can correct; the message says what is wrong, where, and what to do."""

    def __reduce__(self) -> Any:
        # Constructors of children differ, and errors of worker processes arrive pickled.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[UserError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> UserError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class ConfigError(UserError, ValueError):
    """A configuration field or an argument has a wrong value, or one that conflicts with another."""


class MissingExtra(UserError, ImportError):
    """A library of an optional extra is not installed; the message names the extra."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {library}: pip install 'medvill_jax[{extra}]'")
