"""Train or evaluate one task. In a checkout `python run.py` is the same.

    python -m medvill_jax.run --config=configs/pretrain.py:phantom              the demo, which makes its data
    python -m medvill_jax.run --config=configs/pretrain.py --config.data.path=DATA --config.batch_size=64 --workdir=RUN
    python -m medvill_jax.run --config=configs/pretrain.py ... --workdir=RUN    again: goes on where it stopped
    python -m medvill_jax.run --config=configs/pretrain.py ... --workdir=RUN --eval_only --config.eval.split=test
    python -m medvill_jax.run --config=configs/pretrain.py --mode=compile --topology=v5e:16x16 --config.batch_size=4096
    python -m medvill_jax.run --config=configs/pretrain.py --mode=plan --topology=v5e:16x16 --train_records=89395

The same command on every host of a TPU pod or under srun makes one run. Elsewhere each process gets its number:

    python -m medvill_jax.run ... --coordinator=HOST:PORT --num_processes=2 --process_id=0

Every field of the configuration is a flag: --config.FIELD=VALUE. The files in configs/ explain the fields.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import absl.logging

from medvill_jax import flags, private
from medvill_jax.commands import Exit, one_line
from medvill_jax.errors import ConfigError

# A run may be resumed with other values of these fields: they do not change the metrics of the training.
FREE_FIELDS = ("remat", "log.", "checkpoint.", "mesh.", "data.workers.", "eval.batch_size")
# These may also differ in an evaluation: they choose its data, and how the model is queried.
EVALUATION_FIELDS = (*FREE_FIELDS, "eval.", "decode.", "rank.", "data.path", "data.mixture", "data.questions", "dtype")
GOES_ON = "the same command goes on from the newest checkpoint"


def program() -> NoReturn:
    """`entry`, in a process that allocates memory in huge pages."""
    ask_for_huge_pages()
    # A crash of native code then shows where each thread was.
    faulthandler.enable()
    entry()


def entry() -> NoReturn:
    """Runs the command line of `sys.argv`; ends with `SystemExit`, unless there is a bug."""
    with one_line():
        with one_line(failed=Exit.USAGE):
            flags.parse(sys.argv, __doc__ or "")
        with private.files(flags.SHARED.value):
            status = start(flags.CONFIG.value)
    sys.exit(status)


def start(config: Any) -> int:
    """Trains, evaluates or compiles, as the flags say; called in every process. Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    # Orbax warns about every checkpoint without metrics, JAX about every missing platform.
    absl.logging.set_verbosity(absl.logging.ERROR)
    for noisy in ("jax", "fsspec", "gcsfs"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with one_line(failed=Exit.USAGE):
        prepare(config)
    workdir = flags.WORKDIR.value or flags.default_workdir()
    if flags.MODE.value != "train":
        compile_step(config, workdir)
        return Exit.DONE

    from medvill_jax.cluster import distributed

    with one_line(failed=Exit.PROCESSES):
        distributed.start_if_cluster(
            flags.COORDINATOR.value, flags.NUM_PROCESSES.value, flags.PROCESS_ID.value, flags.STARTUP_TIMEOUT.value
        )
    interrupted = "" if flags.EVAL_ONLY.value else GOES_ON
    with distributed.together(), one_line(interrupted=interrupted, where=workdir), keeping_programs():
        complete = run_task(config, workdir)
    return Exit.DONE if complete else flags.STOPPED_STATUS.value


def free_fields(config: Any) -> tuple[str, ...]:
    """`FREE_FIELDS`; but what a run goes back to is a checkpoint, so they then decide about its metrics."""
    goes_back = config.get("bad_steps", {}).get("policy") == "rollback"
    return tuple(name for name in FREE_FIELDS if not (goes_back and name == "checkpoint."))


@contextlib.contextmanager
def keeping_programs() -> Iterator[None]:
    """A block whose compiled programs are kept for the next start, unless the flags say otherwise."""
    from medvill_jax import compiled

    if not flags.COMPILE_CACHE.value:
        yield
        return
    with compiled.on_disk() as folder:
        if folder is not None:
            logging.info("compiled programs: %s (--nocompile_cache: none are kept)", folder)
        yield


def prepare(config: Any) -> None:
    """Checks flags, and sets the environment for JAX, which must not be imported before."""
    if config.seed < 0:
        raise ConfigError(f"seed={config.seed} is below 0")
    mode = flags.MODE.value
    if mode != "plan" and (flags.TRAIN_RECORDS.present or flags.INPUT_RATE.present):
        raise ConfigError("--train_records and --input_rate need --mode=plan")
    if mode == "train":
        # A task that does not train has no mesh.
        if flags.TOPOLOGY.value or flags.SEARCH.value or config.get("mesh", {}).get("topology"):
            raise ConfigError("--topology and --search need --mode=compile or plan, which sets mesh.topology")
        return
    if flags.EVAL_ONLY.value:
        raise ConfigError(f"--mode={mode} compiles the train step; leave --eval_only out")
    if not flags.TOPOLOGY.value:
        raise ConfigError(f"--mode={mode} needs --topology, e.g. v5e:4x4, or cpu:8, which needs no further install")

    from medvill_jax.compile import topology

    topology.prepare(topology.parse(flags.TOPOLOGY.value), os.environ)


def run_task(config: Any, name: str) -> bool:
    """Trains or evaluates the task of the configuration in the workdir of that name; called in every process.

    Returns:
        Whether it came to its end, or a signal stopped it before.
    """
    from data_prep import phantom
    from medvill_jax.cluster import distributed
    from medvill_jax.cluster.workdir import DATA_DIR, Workdir
    from medvill_jax.tasks import registry, setup

    workdir = Workdir(name)
    logging.info("workdir: %s", workdir.home)
    if config.get("dtype") == "auto":
        # That of the run in the workdir, whatever devices this start has.
        begun = functools.partial(workdir.recorded, "dtype")
        config.dtype = distributed.on_first("type of computation", lambda: begun() or setup.dtype(config).name)
        logging.info("computing in %s; --config.dtype names another type", config.dtype)
    makes_data = "phantom" in config.data and not (config.data.path or config.data.get("mixture"))
    if makes_data and workdir.is_mirror:
        raise ConfigError(
            "the phantom data cannot be made in a bucket: give a --workdir outside, or --config.data.path"
        )
    fields, task_type = config.to_dict(), registry.task(config.task)
    if flags.EVAL_ONLY.value:
        if task_type.trains and not config.eval.get("dry_run", False):
            workdir.check_same_run(fields, EVALUATION_FIELDS)
    else:
        token = distributed.on_first("claim", lambda: workdir.claim(fields, free_fields(config)))
        workdir.check_shared(token, fields)
    if makes_data:
        phrases, questions = phantom.prepare_phrases, phantom.prepare_vqa
        of_task = {"vqa": questions, "ground": phrases, "ground_maps": phrases}
        makers = {"path": of_task.get(config.task, phantom.prepare)}
        if "questions" in config.data:
            makers["questions"] = phantom.prepare_vqa
        for field, make in makers.items():
            made = functools.partial(make, workdir / DATA_DIR, **config.data.phantom)
            config.data[field] = distributed.on_first(f"phantom data, {field}", made)
    config.lock()
    task = task_type(config, workdir)
    try:
        metrics = evaluate(task) if flags.EVAL_ONLY.value else task.fit()
    finally:
        workdir.publish()
    if metrics and distributed.is_first():
        lines = task.closing_lines(metrics)
        if (workdir / "metrics.jsonl").is_file():
            curves = f"tensorboard --logdir={workdir.path}"
            lines.append(f"metrics of every step: {workdir / 'metrics.jsonl'}, curves: {curves}")
        if (workdir / "export").is_dir():
            use = "for medvill_jax.load, --config.init.checkpoint or conversion"
            lines.append(f"the model: {workdir / 'export'}, {use}")
        print(workdir.shown("\n".join(lines)))
    return metrics is not None or not task.stop.stopped


def evaluate(task: Any) -> dict[str, Any] | None:
    """The metrics of the best checkpoint; None if a signal came before they were complete."""
    from medvill_jax.cluster.stopping import Stopped

    try:
        with task.stop:
            return task.evaluate_best()
    except Stopped as signal:
        logging.warning("%s: stopped before the end; the same command continues the evaluation", signal)
        return None


def compile_step(config: Any, name: str) -> None:
    """Compiles the train step for a topology, and reports its memory and time, or plans the run."""
    from medvill_jax.cluster.workdir import Workdir
    from medvill_jax.compile import aot, topology
    from medvill_jax.tasks import planned, registry
    from medvill_jax.tasks.data import FAKE

    task = registry.task(config.task)
    if not task.trains:
        raise ConfigError(
            f"{config.task} does not train, so it has no step to compile: leave --mode={flags.MODE.value} out"
        )
    if not config.data.mixture:
        config.data.path = config.data.path or FAKE
    if flags.MODE.value == "plan" and config.data.path == FAKE and not flags.TRAIN_RECORDS.value:
        raise ConfigError(
            "a plan needs the number of training examples: set --config.data.path=DATA to a prepared data set, or "
            "--train_records=N"
        )
    config.mesh.topology = flags.TOPOLOGY.value
    workdir, target = Workdir(name), topology.parse(flags.TOPOLOGY.value)

    @functools.lru_cache(maxsize=1)  # a search tries many, and a plan asks for the one that was compiled
    def runner(batch_size: int) -> Any:
        sized = config.copy_and_resolve_references()
        sized.batch_size = batch_size
        return task(sized.lock(), workdir)

    if flags.SEARCH.value:
        report = aot.search(lambda batch_size: runner(batch_size).program(), target, config.accumulate)
    else:
        report = aot.compile_report(runner(config.batch_size).program(), target)
    written = report.write(workdir.path)
    if flags.MODE.value == "plan":
        chosen = runner(report.batch_size)
        plan = planned.plan(chosen, report, flags.TRAIN_RECORDS.value, flags.INPUT_RATE.value)
        print("\n".join(plan.lines()))
        print(f"\nas JSON and as a page: {', '.join(workdir.shown(str(path)) for path in plan.write(workdir.path))}")
    else:
        print("\n".join(report.lines()))
        print(f"\nthe same as JSON: {workdir.shown(str(written))}")
    workdir.publish()


def ask_for_huge_pages() -> None:
    """Restarts this program with a C library that allocates memory in huge pages.

    On CPUs every step allocates and frees hundreds of megabytes; in small pages, that is a fifth of all processor time.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


if __name__ == "__main__":
    program()
