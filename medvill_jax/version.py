"""The version of the package, and the formats of what it writes.

setup.py, results and `medvill --version` take the version from here.
"""

from __future__ import annotations

VERSION = "0.1.0"


def format_problem(recorded: object, known: int) -> str | None:
    """Why something of a recorded format cannot be read, to be said after its name; None if it can.

    Args:
        recorded: the format; None for what was written before formats were recorded, which is 1.
        known: the newest format that is read.
    """
    if recorded is None:
        return None
    if type(recorded) is not int or recorded < 1:
        return f"is damaged: it records the format {recorded!r}"
    if recorded > known:
        return f"was written by a later medvill_jax, format {recorded}; this one reads up to {known}: upgrade it"
    return None
