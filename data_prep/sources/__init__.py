"""Public data sets, one module each; `fields.json` says which of their columns becomes which of our fields.

A module has `HELP` (its help text), `add_flags(parser)` (its own flags), `prepare(source, out, ...)` (official files ->
records) and `write_tree(out, studies, seed, image_size)` (phantom studies in the same official files). The command line
finds it by the name of its entry in the table.
"""

from __future__ import annotations

import importlib
from typing import Any


def module(name: str) -> Any:
    """The module of a source, by its name in the table."""
    return importlib.import_module(f"{__name__}.{name}")
