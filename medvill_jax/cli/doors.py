"""Subcommands that are programs of their own: their words go on as they are, errors and statuses come back so."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def prep(argv: Sequence[str]) -> int:
    """`python -m data_prep`."""
    from data_prep.__main__ import main

    return main(argv)


def train(argv: Sequence[str]) -> int:
    """`python -m medvill_jax.run`."""
    from medvill_jax.run import program

    # Flags of configuration fields are read there by ml_collections.
    sys.argv = ["medvill train", *argv]
    program()


def plan(argv: Sequence[str]) -> int:
    """`python -m medvill_jax.run --mode=plan`."""
    from medvill_jax.run import program

    sys.argv = ["medvill plan", "--mode=plan", *argv]
    program()


def convert(argv: Sequence[str]) -> int:
    """`python -m medvill_jax.hub.convert`."""
    from medvill_jax.hub.convert import program

    return program(argv)


def labels(argv: Sequence[str]) -> int:
    """`python -m medvill_jax.metrics.clinical`."""
    from medvill_jax.metrics.clinical import main

    return main(argv)
