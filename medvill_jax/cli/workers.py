"""`medvill predict --beam_runner`: the workers of Apache Beam answer instead of this process."""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
from pathlib import Path

from medvill_jax import beam_runner
from medvill_jax.beam_runner import BeamOptions
from medvill_jax.cli.many import Ask
from medvill_jax.errors import ConfigError
from medvill_jax.spread.question import Question


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    group = parser.add_argument_group("many films on many processors")
    beam_runner.add_flags(group, "have workers of Apache Beam answer, who must see films and model")
    group.add_argument(
        "--parts",
        metavar="FOLDER",
        help="where workers leave answers until they are collected: a folder that all see, or gs://BUCKET/FOLDER "
        "(default: the folder of --out)",
    )


def chosen(args: argparse.Namespace) -> BeamOptions | None:
    """The runner; None for this process.

    Raises:
        ConfigError: it cannot be used, or with these flags.
        MissingExtra: Apache Beam is not installed.
    """
    beam = beam_runner.chosen(args)
    if beam is None:
        if args.parts is not None:
            raise ConfigError("--parts is for --beam_runner")
        return None
    for flag in ("explain", "report", "json"):
        if getattr(args, flag):
            raise ConfigError(f"--{flag} is for one film, not for --beam_runner")
    if args.batch_size is not None and args.batch_size < 1:
        raise ConfigError(f"batch_size={args.batch_size} is below 1")
    if args.out is None or (args.out.exists() and not args.out.is_file()):
        raise ConfigError("--beam_runner needs --out=FILE, a file for the answers")
    beam.check()
    return beam


def asking(beam: BeamOptions, question: Question, args: argparse.Namespace) -> Ask:
    """The workers as `many` asks them."""
    from medvill_jax.spread import spread

    folder = f"{args.out.absolute().parent}/.{args.out.name}.parts"
    if args.parts is not None:
        # Commands with other files of this name may have the same --parts.
        own = hashlib.sha256(os.fsencode(f"{os.uname().nodename}:{args.out.absolute()}")).hexdigest()[:8]
        folder = f"{args.parts}/.{args.out.name}.{own}.parts"
    return functools.partial(spread.run, question, beam, folder)


def rejected(args: argparse.Namespace) -> Path:
    """The file of the films that have no answer, beside that of the answers."""
    return args.out.with_name(f"{args.out.stem}.rejected.jsonl")
