"""Flags that several sources have."""

from __future__ import annotations

import argparse


def split(parser: argparse.ArgumentParser, official: str) -> None:
    """`--split`, for a source with an official split; `official` describes it."""
    parser.add_argument(
        "--split",
        choices=("official", "subject"),
        default="official",
        help=f"{official}; or 80 / 10 / 10 by subject (default: official, so that results can be compared)",
    )
