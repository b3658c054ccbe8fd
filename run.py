"""Train or evaluate one task.

    python run.py --config=configs/pretrain.py:phantom              the demo, with data of its own
    python run.py --config=configs/pretrain.py --config.data.path=DATA --config.batch_size=64 --workdir=RUN
    python run.py --config=configs/pretrain.py ... --workdir=RUN    again: goes on where it stopped
    python run.py --config=configs/pretrain.py ... --workdir=RUN --eval_only --config.eval.split=test

Every field of the configuration is a flag: --config.FIELD=VALUE. The fields and what they mean stand in configs/.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import absl.logging
from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "configuration, e.g. configs/pretrain.py or ...:phantom")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default: runs/CONFIG[-VARIANT]")
EVAL_ONLY = flags.DEFINE_boolean("eval_only", False, "evaluate the workdir's best checkpoint on config.eval.split")

# A run may be taken up again with other values of these: they change no figure of the training.
FREE_FIELDS = ("log.", "checkpoint.", "mesh.", "data.workers.", "eval.split", "eval.batch_size")


def fail(message: object, status: int = 1) -> NoReturn:
    """One line for the user, and out."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """absl's parsing, with one clear line for whatever is wrong with a flag."""
    try:
        rest = flags.FLAGS(tuple(argv))
    except (KeyError, AttributeError) as error:
        # ml_collections names the nearest field in the exception of a misspelt one.
        hint = str(error.args[0]).replace("\\n", "\n").strip("'\"").split("\n")[-1]
        fail(f"no such configuration field. {hint}", 2)
    except (flags.Error, TypeError, ValueError) as error:
        # What a configuration file raises arrives as the text of a whole trace.
        fail(str(error).strip().split("\n")[-1] if "Traceback" in str(error) else error, 2)
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}; flags are written --name=value", 2)
    if not flags.FLAGS["config"].present:
        fail("--config is needed, e.g. --config=configs/pretrain.py:phantom; --help tells more", 2)
    config_file = Path(config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0])
    if not config_file.is_file():
        fail(f"no configuration file {config_file}", 2)
    return rest


def default_workdir() -> Path:
    """runs/CONFIG or runs/CONFIG-VARIANT."""
    path, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return Path("runs") / "-".join(filter(None, (Path(path).stem, variant)))


def main(argv: Sequence[str]) -> None:
    """Parsed flags in, one task run."""
    del argv
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    # Orbax warns of every checkpoint without figures, JAX tells of every platform that is not there.
    absl.logging.set_verbosity(absl.logging.ERROR)
    logging.getLogger("jax").setLevel(logging.WARNING)

    from data_prep import phantom
    from medvill_jax.data.records import DataError
    from medvill_jax.hub.errors import HubError
    from medvill_jax.metrics.command import MissingExtra
    from medvill_jax.metrics.predictions import PredictionError
    from medvill_jax.tasks import classify, generate, pretrain, retrieve, vqa, zero_shot
    from medvill_jax.training import checkpoint, loop, trainer

    modules = (pretrain, classify, retrieve, vqa, generate, zero_shot)
    tasks = {module.__name__.rpartition(".")[2]: module.Task for module in modules}
    config = CONFIG.value
    workdir = Path(WORKDIR.value) if WORKDIR.value else default_workdir()
    logging.info("workdir: %s", workdir)
    try:
        if not EVAL_ONLY.value:
            trainer.claim_workdir(workdir, config.to_dict(), FREE_FIELDS)
        if "phantom" in config.data and not config.data.path:
            prepare = phantom.prepare_vqa if config.task == "vqa" else phantom.prepare
            config.data.path = str(prepare(workdir / "data", **config.data.phantom))
        config.lock()
        task = tasks[config.task](config, workdir)
    except (DataError, HubError, MissingExtra, ValueError, trainer.WorkdirError) as error:
        fail(error)
    try:
        figures = task.evaluate_best() if EVAL_ONLY.value else task.fit()
    except (
        DataError,
        HubError,
        PredictionError,
        checkpoint.CheckpointError,
        loop.NotFiniteError,
        trainer.WorkdirError,
    ) as error:
        fail(error)
    if figures:
        print("\n".join(task.closing_lines(figures)))
        if (workdir / "metrics.jsonl").is_file():
            print(f"figures of every step: {workdir / 'metrics.jsonl'}, curves: tensorboard --logdir={workdir}")
        if (workdir / "export").is_dir():
            print(f"the model: {workdir / 'export'}, for medvill_jax.load, --config.init.checkpoint or conversion")


def ask_for_huge_pages() -> None:
    """Starts this program anew with a C library that takes memory in huge pages.

    On CPUs every step takes and returns hundreds of megabytes; page by page, that is a fifth of all processor time.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


if __name__ == "__main__":
    ask_for_huge_pages()
    try:
        app.run(main, flags_parser=parse_flags)
    except KeyboardInterrupt:
        fail("interrupted", 130)
