"""Where metrics may go beside the workdir: one small interface to packages that the user chooses and installs.

A sink gets numbers of training and fields of the configuration, never a text, an image or an identifier of a record,
and no path. By default all of it stays in the workdir: nothing is uploaded unless the user tells the package to.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from medvill_jax.errors import ConfigError, MissingExtra

# Each is a module of this package, a package of Python, and an extra of setup.py.
NAMES = ("mlflow", "trackio", "wandb")
# What runs are grouped under, unless the package's own variables say otherwise.
PROJECT = "medvill_jax"


class Sink(Protocol):
    """A run in another package.

    Attributes:
        run: its identifier there, by which a later start continues it.
    """

    run: str

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds finite values of one step. Steps do not fall, but one may come twice, with other metrics."""
        ...

    def close(self) -> None:
        """Returns once everything is where it is kept."""
        ...


@dataclass(frozen=True)
class Start:
    """How a sink begins.

    Attributes:
        folder: for its files; it exists.
        name: of the run, for people.
        config: fields of the configuration by their dotted names, as numbers and texts.
        run: the identifier of the run that an earlier start made; None for a new one.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    run: str | None


@dataclass(frozen=True)
class Chosen:
    """The sinks of a run, and the fields of the configuration that they get."""

    names: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


NONE = Chosen()


def chosen(listed: str, config: Mapping[str, Any]) -> Chosen:
    """The sinks of a list with commas, `log.sinks`.

    Raises:
        ConfigError: there is no such sink.
        MissingExtra: its package is not installed.
    """
    names = tuple(dict.fromkeys(name.strip() for name in listed.split(",") if name.strip()))
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"log.sinks names {name!r}; there are {', '.join(NAMES)}")
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(name, name, f"log.sinks={listed}")
    of_text = {name: json.dumps(value) for name, value in config.items() if not isinstance(value, int | float | str)}
    return Chosen(names, {**config, **of_text})


def start(name: str, how: Start) -> Sink:
    """Begins, or continues, the run in a package."""
    sink: Sink = importlib.import_module(f"{__name__}.{name}").Run(how)
    return sink
