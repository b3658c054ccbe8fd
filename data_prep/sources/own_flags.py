"""Flags that several sources have."""

from __future__ import annotations

import argparse

from data_prep.sources.sections import SECTIONS


def split(parser: argparse.ArgumentParser, official: str) -> None:
    """`--split`, for a source with an official split; `official` describes it."""
    parser.add_argument(
        "--split",
        choices=("official", "subject"),
        default="official",
        help=f"{official}; or 80 / 10 / 10 by subject (default: official, so that results can be compared)",
    )


def sections(parser: argparse.ArgumentParser) -> None:
    """`--sections` and `--fallback`, for a source whose table has a column for each section of a report."""
    choices = (*SECTIONS, "+".join(SECTIONS))
    parser.add_argument(
        "--sections",
        choices=choices,
        default=choices[0],
        help="the text (default: findings, which describe this film; an impression concludes from more than the film)",
    )
    parser.add_argument(
        "--fallback",
        choices=choices,
        help="the text of a report without --sections (default: none: it is left out)",
    )
