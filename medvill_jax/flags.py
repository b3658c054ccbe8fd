"""The command line of `medvill_jax.run`, on absl, since ml_collections makes every configuration field a flag of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from medvill_jax import private
from medvill_jax.errors import ConfigError

CONFIG = config_flags.DEFINE_config_file("config", None, "configuration, e.g. configs/pretrain.py or ...:phantom")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default: runs/CONFIG[-VARIANT]")
EVAL_ONLY = flags.DEFINE_boolean("eval_only", False, "evaluate the workdir's best checkpoint on config.eval.split")
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ("train", "compile", "plan"),
    "compile: compile the train step for --topology without running it; plan: tell what the run will take there",
)
TOPOLOGY = flags.DEFINE_string(
    "topology", "", "target hardware of --mode=compile and plan: v5e:4x4, v5e:16x16, v5p:4x4x4, v6e:16x16, cpu:8, ..."
)
TRAIN_RECORDS = flags.DEFINE_integer(
    "train_records", None, "with --mode=plan: training examples, if the data are not here", lower_bound=1
)
INPUT_RATE = flags.DEFINE_float(
    "input_rate", None, "with --mode=plan: examples/s that one host loads, if it is not to be measured", lower_bound=0
)
SEARCH = flags.DEFINE_boolean("search", False, "with --mode=compile or plan: find the largest batch per chip that fits")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0; not needed on TPU pods, SLURM and Open MPI"
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "processes of the run, with --coordinator", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "number of this process, from 0", lower_bound=0)
SHARED = flags.DEFINE_boolean("shared", False, private.HELP)
COMPILE_CACHE = flags.DEFINE_boolean(
    "compile_cache", True, "keep compiled programs in the user's cache folder, so that the next start need not compile"
)
STOPPED_STATUS = flags.DEFINE_integer(
    "stopped_status",
    0,
    "exit status of a run that a signal stopped before its end, by which a scheduler knows to start it again",
    lower_bound=0,
    upper_bound=255,
)
STARTUP_TIMEOUT = flags.DEFINE_float("startup_timeout", 300.0, "seconds to wait for the other processes", lower_bound=0)

# The folder of configs/, in a checkout and in an install.
_ROOT = Path(__file__).parents[1]


def parse(argv: Sequence[str], description: str) -> None:
    """Parses the command line into the flags; with `--help`, prints a description and the flags, and ends the program.

    Raises:
        ConfigError: a wrong flag or configuration.
    """
    if {"--help", "-help", "-h"} & set(argv):
        listing = flags.FLAGS.module_help(sys.modules[__name__]).partition(":\n")[2]
        print(f"{description.strip()}\n\nflags:\n{listing}")
        sys.exit()
    try:
        rest = flags.FLAGS(_with_installed(argv))
    except (KeyError, AttributeError) as error:
        # For a misspelt field, the exception of ml_collections names the nearest one.
        hint = str(error.args[0]).replace("\\n", "\n").strip("'\"").split("\n")[-1]
        raise ConfigError(f"no such configuration field. {hint}") from error
    except (flags.Error, TypeError, ValueError) as error:
        # For an exception of a configuration file, the text is a whole traceback.
        text = str(error)
        raise ConfigError(text.strip().split("\n")[-1] if "Traceback" in text else text) from error
    if len(rest) > 1:
        raise ConfigError(f"unexpected argument {rest[1]!r}; flags are written --name=value")
    if not flags.FLAGS["config"].present:
        raise ConfigError("--config is needed, e.g. --config=configs/pretrain.py:phantom; --help tells more")
    config_file = _file_and_variant()[0]
    if not config_file.is_file():
        raise ConfigError(f"no configuration file {config_file}")
    _settle_lengths(CONFIG.value, config_flags.get_override_values(flags.FLAGS["config"]))


def default_workdir() -> str:
    """runs/CONFIG or runs/CONFIG-VARIANT."""
    path, variant = _file_and_variant()
    return f"runs/{'-'.join(filter(None, (path.stem, variant)))}"


def _settle_lengths(config: Any, given: Mapping[str, Any]) -> None:
    """Of a length in steps and the same in epochs, the one that the command line gives counts, else that in steps; of
    the interval of evaluations, else that in epochs.
    """
    for section, before in (("", ""), ("optimizer.", "warmup_"), ("eval.", "every_")):
        fields = config.get(section.rstrip("."), {}) if section else config
        steps, epochs = f"{before}steps", f"{before}epochs"
        if steps not in fields or epochs not in fields:
            continue
        in_steps, in_epochs = (given.get(f"{section}{name}") for name in (steps, epochs))
        if section == "eval.":  # where both may be given, and that in epochs counts
            fields[epochs] = 0.0 if in_steps is not None and not in_epochs else fields[epochs]
        elif in_steps and in_epochs:
            raise ConfigError(f"give --config.{section}{steps} or --config.{section}{epochs}, not both")
        elif in_epochs:
            fields[steps] = 0
        elif fields[steps]:
            fields[epochs] = 0.0


def _file_and_variant() -> tuple[Path, str]:
    path, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return Path(path), variant


def _with_installed(argv: Sequence[str]) -> list[str]:
    """The arguments, with the full path of a `--config` file that is only in the installed package."""
    arguments = list(argv)
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            value = value if equals else "".join(arguments[number + 1 : number + 2])
            path = value.partition(":")[0]
            if path.startswith("configs/") and not Path(path).exists() and (_ROOT / path).is_file():
                arguments[number : number + 2 - bool(equals)] = [f"--config={_ROOT / value}"]
    return arguments
