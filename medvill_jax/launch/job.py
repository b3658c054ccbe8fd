"""What is launched: the flags of a training, and what every engine needs to know of it."""

from __future__ import annotations

import argparse
import io
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medvill_jax.errors import ConfigError

# EX_TEMPFAIL of sysexits.h: what failed now may succeed later.
STOPPED = 75
# Of a program that SIGTERM ends before it handles signals.
TERMINATED = 128 + signal.SIGTERM
# A free port of the host of process 0, where nothing assigns one.
PORT = 8476
# Flags of the training whose values may be paths that it reads.
_LOADED = ("--config.data.", "--config.init.")
# A DNS label (RFC 1035), short enough for what engines append to it.
_NAME, _LONGEST = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?"), 40


@dataclass(frozen=True)
class Job:
    """Attributes:
    name: a DNS label.
    words: flags of the training, `--config` and `--workdir` among them.
    workdir: the value of `--workdir`.
    data: what is read, as (flag, place): of `--config.data.path`, or each of `--config.data.mixture`.
    """

    name: str
    words: tuple[str, ...]
    workdir: str
    data: tuple[tuple[str, str], ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of the run: those of the training, and the status by which its engine starts it again."""
        return (*self.words, f"--stopped_status={STOPPED}")

    @property
    def compiled(self) -> str:
        """Where compiled programs are kept: beside the workdir, for all runs there and every start of them."""
        return f"{self.workdir.rstrip('/').rpartition('/')[0] or '.'}/compiled"

    def require_bucket(self) -> None:
        """Raises `ConfigError` unless what the run reads and writes is where machines without a common disk look."""
        given = [word.split("=", 1) for word in self.words if word.startswith(_LOADED) and "=" in word]
        here = [(flag, place) for flag, place in given if place and Path(place).exists()]
        for flag, place in (("--workdir", self.workdir), *self.data, *here):
            if not place.startswith("gs://"):
                raise ConfigError(f"{flag}={place}: these machines share no disk; give a path in a bucket, gs://...")


def count(word: str) -> int:
    """A number from 1, for argparse."""
    if (number := int(word)) < 1:
        raise argparse.ArgumentTypeError(f"{word} is below 1")
    return number


def add_spot(parser: argparse.ArgumentParser) -> None:
    """Adds the flag of machines that may be taken away."""
    parser.add_argument("--spot", action="store_true", help="machines that are cheaper and taken away at any time")


def name_of(workdir: str) -> str:
    """The name of a job, from the last part of its workdir."""
    last = re.sub(r"[^a-z0-9]+", "-", workdir.rstrip("/").rpartition("/")[2].lower())
    return re.sub(r"^[^a-z]+", "", last)[:_LONGEST].strip("-") or "medvill"


def check_name(name: str) -> str:
    """The name. Raises `ConfigError` unless it is a DNS label that engines can append to."""
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name={name}: a name is made of a-z, 0-9 and -, starts with a letter, and has at most {_LONGEST} of them"
        )
    return name


def document(comments: tuple[str, ...], content: dict[str, Any]) -> str:
    """A YAML document after lines of comment; strings of several lines stay lines."""
    out = io.StringIO()
    out.writelines(f"# {line}\n" for line in comments)
    yaml.dump(content, out, Dumper=_Dumper, sort_keys=False, width=10**6)
    return out.getvalue()


class _Dumper(yaml.SafeDumper):
    pass


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _string)
