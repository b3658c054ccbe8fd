"""Mixtures: several data sets as one stream, each with its share of it.

Which data set a place of the stream belongs to follows from the place and the weights alone, in whole numbers, so it is
the same on every host and machine, and after any interruption. Sources alternate as evenly as their weights allow: the
number of examples of one of K sources among the first n differs by less than K from its share.

`grain.MapDataset.mix` was considered: it cuts weights to hundredths of the smallest one, and does not state that later
versions keep the order of earlier ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from medvill_jax.errors import ConfigError
from medvill_jax.paths import in_bucket

FIELD = "config.data.mixture"
_EXAMPLE = f"--{FIELD}='A:0.6,B:0.4'"
# As text, so that no exponent makes a number that fills the memory.
_NUMBER = re.compile(r"\d+/\d+|(\d+\.?\d*|\.\d+)(e[-+]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Source:
    """One data set of a mixture.

    Attributes:
        name: in metrics and logs, unique in the mixture.
        path: of the prepared data set.
        weight: its share of the stream; those of a mixture sum to 1.
    """

    name: str
    path: str
    weight: Fraction


def parse(text: str) -> tuple[Source, ...]:
    """The sources of `PATH:WEIGHT,PATH:WEIGHT,...`; the last colon of each entry separates its weight.

    A source is named by the last part of its path; where two would have one name, by as many parts as tell them apart.

    Raises:
        ConfigError: an entry without a path or a positive weight, or the same path twice.
    """
    paths, weights = [], []
    for entry in text.split(","):
        path, _, weight = entry.strip().rpartition(":")
        if not path:
            raise ConfigError(f"{FIELD}: {entry!r} is not PATH:WEIGHT, as in {_EXAMPLE}")
        try:
            share = Fraction(weight) if _NUMBER.fullmatch(weight) else Fraction(0)
        except ZeroDivisionError:
            share = Fraction(0)
        if not share:
            raise ConfigError(f"{FIELD}: the weight {weight!r} of {path} is not a number above 0, as in {_EXAMPLE}")
        paths.append(path.rstrip("/"))
        weights.append(share)
    places = [path if in_bucket(path) else os.path.realpath(path) for path in paths]
    if twice := {path for path, place in zip(paths, places, strict=True) if places.count(place) > 1}:
        raise ConfigError(f"{FIELD} names {', '.join(sorted(twice))} more than once: give it one weight")
    total = sum(weights)
    return tuple(
        Source(name, path, weight / total) for name, path, weight in zip(_names(paths), paths, weights, strict=True)
    )


def _names(paths: Sequence[str]) -> list[str]:
    """A name for each path, of letters, digits, "_", "." and "-", which metrics and files may contain."""
    parts = [[part for part in path.split("/") if part not in ("", ".", "..")] for path in paths]
    names: list[str] = []
    for last in range(1, max(map(len, parts), default=0) + 1):
        names = [_NOT_IN_NAMES.sub("-", "-".join(words[-last:])).strip("-.") or "data" for words in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name}-{number}" for number, name in enumerate(names or ["data"] * len(paths), 1)]


def place_in_source(position: int, weights: Sequence[Fraction]) -> tuple[int, int]:
    """The number of the source of a place of the stream, and how many earlier places are of this source.

    Args:
        position: of the stream, from 0.
        weights: of the sources, with the sum 1.
    """
    before, here = position, position + 1
    rest = Fraction(1)
    for source, weight in enumerate(weights[:-1]):
        of_before, of_here = (_share(count, weight / rest) for count in (before, here))
        if of_here > of_before:
            return source, of_before
        before, here, rest = before - of_before, here - of_here, rest - weight
    return len(weights) - 1, before


def counts(examples: int, weights: Sequence[Fraction]) -> list[int]:
    """How many of the first examples of the stream come from each source."""
    found, rest = [], Fraction(1)
    for weight in weights[:-1]:
        found.append(_share(examples, weight / rest))
        examples, rest = examples - found[-1], rest - weight
    return [*found, examples]


def _share(count: int, share: Fraction) -> int:
    """`count * share`, rounded half up."""
    return (2 * count * share.numerator + share.denominator) // (2 * share.denominator)
