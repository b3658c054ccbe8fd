"""Train or evaluate one task.

    python run.py --config=configs/pretrain.py:phantom              the demo, with data of its own
    python run.py --config=configs/pretrain.py --config.data.path=DATA --config.batch_size=64 --workdir=RUN
    python run.py --config=configs/pretrain.py ... --workdir=RUN    again: goes on where it stopped
    python run.py --config=configs/pretrain.py ... --workdir=RUN --eval_only --config.eval.split=test
    python run.py --config=configs/pretrain.py --mode=compile --topology=v5e:16x16 --config.batch_size=4096

The same command on every host of a TPU pod or under srun makes one run. Elsewhere each process is told who it is:

    python run.py ... --coordinator=HOST:PORT --num_processes=2 --process_id=0

Every field of the configuration is a flag: --config.FIELD=VALUE. The fields and what they mean stand in configs/.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import absl.logging
from absl import app, flags
from ml_collections import config_flags

from medvill_jax import private

CONFIG = config_flags.DEFINE_config_file("config", None, "configuration, e.g. configs/pretrain.py or ...:phantom")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; default: runs/CONFIG[-VARIANT]")
EVAL_ONLY = flags.DEFINE_boolean("eval_only", False, "evaluate the workdir's best checkpoint on config.eval.split")
MODE = flags.DEFINE_enum(
    "mode", "train", ("train", "compile"), "compile: the train step for --topology, without running"
)
TOPOLOGY = flags.DEFINE_string("topology", "", "to compile for: v5e:4x4, v5e:16x16, v5p:4x4x4, v6e:16x16, cpu:8, ...")
SEARCH = flags.DEFINE_boolean("search", False, "with --mode=compile: find the largest batch per chip that fits")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0; TPU pods, SLURM, Open MPI need none")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "processes of the run, with --coordinator", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this is, from 0", lower_bound=0)
SHARED = flags.DEFINE_boolean("shared", False, private.HELP)
STARTUP_TIMEOUT = flags.DEFINE_float("startup_timeout", 300.0, "seconds to wait for the other processes", lower_bound=0)

# A run may be taken up again with other values of these: they change no figure of the training.
FREE_FIELDS = ("remat", "log.", "checkpoint.", "mesh.", "data.workers.", "eval.batch_size")
# These too may differ when it is evaluated: they say on what, and how its answers are asked for.
EVALUATION_FIELDS = (*FREE_FIELDS, "eval.", "decode.", "rank.", "data.path", "dtype")


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


def default_workdir() -> str:
    """runs/CONFIG or runs/CONFIG-VARIANT."""
    path, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return f"runs/{'-'.join(filter(None, (Path(path).stem, variant)))}"


def main(argv: Sequence[str]) -> None:
    """Parsed flags in, one task run."""
    del argv
    with private.files(SHARED.value):
        start()


def start() -> None:
    """What `--mode` says, in every process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    # Orbax warns of every checkpoint without figures, JAX tells of every platform that is not there.
    absl.logging.set_verbosity(absl.logging.ERROR)
    for noisy in ("jax", "fsspec", "gcsfs"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if MODE.value == "compile":
        prepare_to_compile()
        compile_step(CONFIG.value)
        return
    # What trains nothing has no mesh.
    if TOPOLOGY.value or SEARCH.value or CONFIG.value.get("mesh", {}).get("topology"):
        fail("--topology and --search go with --mode=compile, which sets mesh.topology", 2)

    from medvill_jax.cluster import distributed

    try:
        distributed.start_if_cluster(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, STARTUP_TIMEOUT.value)
    except distributed.StartupError as error:
        fail(error, 3)
    with distributed.together():
        run_task()


def run_task() -> None:
    """The task that the configuration names, in every process."""
    from data_prep import phantom
    from medvill_jax.cluster import distributed
    from medvill_jax.cluster import workdir as workdirs
    from medvill_jax.data.records import DataError
    from medvill_jax.hub.errors import HubError
    from medvill_jax.metrics.command import MissingExtra
    from medvill_jax.metrics.predictions import PredictionError
    from medvill_jax.tasks import registry
    from medvill_jax.training import checkpoint, loop

    config = CONFIG.value
    try:
        workdir = workdirs.folder(WORKDIR.value or default_workdir())
    except workdirs.WorkdirError as error:
        fail(error)
    logging.info("workdir: %s", workdirs.home(workdir))
    first = distributed.is_first()
    with one_line(workdir, DataError, HubError, MissingExtra, ValueError, workdirs.WorkdirError):
        if "phantom" in config.data and not config.data.path and workdirs.is_mirror(workdir):
            fail("the demo's data are made in a folder: give a --workdir outside a bucket, or --config.data.path")
        fields, task_type = config.to_dict(), registry.task(config.task)
        if EVAL_ONLY.value:
            if task_type.trains and not config.eval.get("dry_run", False):
                workdirs.check_same_run(workdir, fields, EVALUATION_FIELDS)
        else:
            token = distributed.on_first("claim", lambda: workdirs.claim(workdir, fields, FREE_FIELDS))
            workdirs.check_shared(workdir, token, fields)
        if "phantom" in config.data and not config.data.path:
            prepare = phantom.prepare_vqa if config.task == "vqa" else phantom.prepare
            config.data.path = distributed.on_first(
                "phantom data", lambda: prepare(workdir / workdirs.DATA_DIR, **config.data.phantom)
            )
        config.lock()
        task = task_type(config, workdir)
    with one_line(
        workdir,
        DataError,
        HubError,
        PredictionError,
        checkpoint.CheckpointError,
        loop.NotFiniteError,
        workdirs.WorkdirError,
    ):
        try:
            figures = evaluate(task) if EVAL_ONLY.value else task.fit()
        finally:
            workdirs.publish(workdir)
    if figures and first:
        lines = task.closing_lines(figures)
        if (workdir / "metrics.jsonl").is_file():
            lines.append(f"figures of every step: {workdir / 'metrics.jsonl'}, curves: tensorboard --logdir={workdir}")
        if (workdir / "export").is_dir():
            use = "for medvill_jax.load, --config.init.checkpoint or conversion"
            lines.append(f"the model: {workdir / 'export'}, {use}")
        print(workdirs.shown(workdir, "\n".join(lines)))


@contextlib.contextmanager
def one_line(workdir: Path, *expected: type[Exception]) -> Iterator[None]:
    """A block whose expected errors, and those of the file system, are one line for the user."""
    try:
        yield
    except expected as error:
        fail(error)
    except OSError as error:
        fail(f"{error.strerror or error}: {error.filename or workdir}")


def evaluate(task: Any) -> dict[str, Any] | None:
    """The figures of the best checkpoint; None if a signal came before they were complete."""
    from medvill_jax.cluster import stopping

    try:
        with stopping.StopSignal():
            return task.evaluate_best()
    except stopping.Stopped as signal:
        logging.warning("%s: stopped before the end; the same command evaluates on", signal)
        return None


def prepare_to_compile() -> None:
    """Sets what JAX must find in its environment when it is imported, which is after this."""
    from medvill_jax.compile import topology

    if EVAL_ONLY.value:
        fail("--mode=compile compiles the train step; leave --eval_only out", 2)
    if not TOPOLOGY.value:
        fail("--mode=compile needs --topology, e.g. v5e:4x4, or cpu:8 without any further install", 2)
    try:
        topology.prepare(topology.parse(TOPOLOGY.value), os.environ)
    except topology.TopologyError as error:
        fail(error, 2)


def compile_step(config: Any) -> None:
    """Compiles the train step for a topology, and tells of its memory and time."""
    from medvill_jax.cluster import workdir as workdirs
    from medvill_jax.compile import aot, topology
    from medvill_jax.data.records import DataError
    from medvill_jax.hub.errors import HubError
    from medvill_jax.metrics.command import MissingExtra
    from medvill_jax.tasks import registry
    from medvill_jax.tasks.data import FAKE

    task = registry.task(config.task)
    if not task.trains:
        fail(f"{config.task} trains nothing, so there is no step to compile")
    config.data.path = config.data.path or FAKE
    config.mesh.topology = TOPOLOGY.value

    def build(batch_size: int) -> aot.Program:
        sized = config.copy_and_resolve_references()
        sized.batch_size = batch_size
        return task(sized.lock(), workdir).program()

    try:
        workdir = workdirs.folder(WORKDIR.value or default_workdir())
        target = topology.parse(TOPOLOGY.value)
        if SEARCH.value:
            report = aot.search(build, target, config.accumulate)
        else:
            report = aot.compile_report(build(config.batch_size), target)
        written = report.write(workdir)
        workdirs.publish(workdir)
    except (aot.TooLargeError, DataError, HubError, MissingExtra, ValueError, workdirs.WorkdirError) as error:
        fail(error)
    print("\n".join(report.lines()))
    print(f"\nthe same for programs: {workdirs.shown(workdir, str(written))}")


def ask_for_huge_pages() -> None:
    """Starts this program anew with a C library that takes memory in huge pages.

    On CPUs every step takes and returns hundreds of megabytes; page by page, that is a fifth of all processor time.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def entry() -> NoReturn:
    """The program over `sys.argv`; ends with `SystemExit`, whatever happens."""
    try:
        app.run(main, flags_parser=parse_flags)
    except KeyboardInterrupt:
        fail("interrupted", 130)


if __name__ == "__main__":
    ask_for_huge_pages()
    entry()
