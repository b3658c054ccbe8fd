"""Work on the workers of an Apache Beam runner: the flags that choose one, its options, and a pipeline that it runs."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from medvill_jax.errors import ConfigError, MissingExtra, UserError

# Runner -> pipeline options for {n} workers; other runners need --beam_options.
WORKER_OPTIONS = {
    "DirectRunner": ("--direct_num_workers={n}", "--direct_running_mode=multi_processing"),
    "DataflowRunner": ("--num_workers={n}",),
    "FlinkRunner": ("--parallelism={n}",),
    "SparkRunner": ("--spark_master_url=local[{n}]",),
}
# Of a worker, no record is logged below errors. Where triggers may be unsafe, DirectRunner stays in Python: otherwise
# it fetches Prism, a program, from GitHub, and has it run everything in one process. No pipeline of ours has a trigger.
_ALWAYS = ("--default_sdk_harness_log_level=ERROR", "--allow_unsafe_triggers")

# The thread of DirectRunner that waits for a worker process, and those that hear of it. All fail if it does.
_PROCESS, _HEAR = "run_worker", ("beam_control_read", "read_grpc_client_inputs")
# As the former ends where a process was killed, which says nothing itself; and how much is read of what others say.
_KILLED, _WORDS = f"code {-signal.SIGKILL}", 4096
# The function in which DirectRunner ends its processes: however they end then is no matter.
_CLOSING = "close_all"

# Why the pipeline that runs in the main thread is to end, first reason first; None if there is none to be told.
_reasons: list[str] | None = None
_telling = threading.Lock()


class BeamError(UserError):
    """A runner stopped, or its workers did not do all of the work."""


@dataclass(frozen=True)
class BeamOptions:
    """Which Beam runner does the work.

    Attributes:
      runner: DirectRunner (processes on this host), DataflowRunner, FlinkRunner, SparkRunner, or another of Beam's.
      num_workers: number of workers; None lets the runner decide.
      options: further pipeline options in the form of Beam's command line, such as "--project=p --region=r".
    """

    runner: str = "DirectRunner"
    num_workers: int | None = None
    options: str = ""

    def check(self) -> None:
        """Raises `ConfigError` if the runner or its options cannot be used, `MissingExtra` without Apache Beam."""
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigError(f"--num_workers={self.num_workers}: at least one")
        self.pipeline_options()

    def threads(self) -> int | None:
        """Image threads per worker; None for the default of `films.threads.ordered_map`."""
        if self.runner != "DirectRunner" or self.num_workers is None:
            return None
        return _share(self.num_workers)

    def pipeline_options(self) -> Any:
        """These options as Beam's `PipelineOptions`; raises as `check`."""
        with _only_errors():
            try:
                from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore
                from apache_beam.runners.runner import create_runner  # pyright: ignore
            except ImportError as error:
                raise MissingExtra("Apache Beam", "beam", "--beam_runner") from error
        known = WORKER_OPTIONS.get(self.runner, ()) if self.num_workers is not None else ()
        flags = [*_ALWAYS, *(option.format(n=self.num_workers) for option in known)]
        try:
            flags += shlex.split(self.options)
        except ValueError as error:
            raise ConfigError(f"--beam_options={self.options}: {error}") from None
        try:
            # Checks the name only: Spark and Flink look for Java when they start.
            create_runner(self.runner)
        except (ImportError, ValueError, AttributeError) as error:
            raise ConfigError(f"--beam_runner={self.runner} cannot be used: {error}") from error
        return PipelineOptions(flags)


def add_flags(parser: Any, what: str) -> None:
    """Adds `--beam_runner`, `--num_workers` and `--beam_options` to a parser or a group of one.

    Args:
        parser: of argparse.
        what: is done by the workers and what they must see, in half a sentence.
    """
    parser.add_argument(
        "--beam_runner",
        metavar="NAME",
        help=f"{what}: DirectRunner (processes on this host), DataflowRunner, FlinkRunner, SparkRunner",
    )
    parser.add_argument(
        "--num_workers", type=int, metavar="N", help="workers of --beam_runner (default: the runner decides)"
    )
    parser.add_argument(
        "--beam_options",
        default="",
        metavar="WORDS",
        help='more options for the runner, e.g. "--project=p --region=r --flink_master=h"',
    )


def chosen(args: argparse.Namespace) -> BeamOptions | None:
    """What the flags of `add_flags` say; None without a runner. Raises `ConfigError` for the others alone."""
    if args.beam_runner:
        return BeamOptions(args.beam_runner, args.num_workers, args.beam_options)
    if args.num_workers is not None or args.beam_options:
        raise ConfigError("--num_workers and --beam_options are for --beam_runner")
    return None


@contextlib.contextmanager
def pipeline(runner: str, options: Any) -> Iterator[Any]:
    """An empty pipeline for the block to fill, which runs at its end.

    Worker processes on this host can import this package, and share its cores. An interruption cancels the job, and so
    does `stop`.

    Args:
        runner: its name.
        options: Beam's `PipelineOptions`.

    Raises:
        BeamError: the runner stopped.
    """
    import apache_beam as beam  # pyright: ignore

    filled, made = False, beam.Pipeline(runner=runner, options=options)
    with (
        _only_errors(),
        _environment(runner, options),
        _quiet_processes(runner) as words,
        _watched_processes(words),
    ):
        try:
            with made:
                yield made
                filled = True
        except (KeyboardInterrupt, BeamError):
            if (job := getattr(made, "result", None)) is not None:
                with contextlib.suppress(NotImplementedError):
                    job.cancel()
            raise
        except Exception as error:  # runners have exceptions without a common base
            if not filled:
                raise
            last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise BeamError(f"the {runner} of Apache Beam stopped: {last}") from error


def stop(why: str) -> None:
    """Ends the pipeline that the main thread runs, if it runs one, with a `BeamError`; called on another thread."""
    with _telling:
        if _reasons is not None:
            _reasons.append(why)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


@contextlib.contextmanager
def polled(look: Callable[[], None], seconds: float) -> Iterator[None]:
    """A block during which a thread calls `look` every so many seconds, for what other processes leave."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(seconds):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """Limits logging to errors: of Beam, which logs much at lower levels."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)


@contextlib.contextmanager
def _environment(runner: str, options: Any) -> Iterator[None]:
    """The environment that worker processes on this host start with."""
    root = str(Path(__file__).resolve().parents[1])
    wanted = {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    workers = options.get_all_options().get("direct_num_workers") or 1
    if runner == "DirectRunner" and workers > 1:
        wanted["NPROC"] = os.environ.get("NPROC", str(_share(workers)))  # the threads of XLA on CPUs
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet_processes(runner: str) -> Iterator[IO[bytes]]:
    """Has processes of DirectRunner ignore Ctrl-C, which reaches all processes of a terminal, and say nothing of it or
    of how they start and end: they end with this one, and what they log as an error arrives here by another way.

    Yields:
        The file that has what they say instead.
    """
    before = sys.executable
    with tempfile.NamedTemporaryFile() as words:  # for this user alone
        if runner == "DirectRunner":  # a shell starts them by the name of the interpreter
            sys.executable = f"trap '' INT; exec 2>>{shlex.quote(words.name)}; exec {shlex.quote(before)}"
        try:
            yield words
        finally:
            sys.executable = before


@contextlib.contextmanager
def _watched_processes(words: IO[bytes]) -> Iterator[None]:
    """Raises `BeamError` in the block where a process of DirectRunner ends, which would wait for it for ever, or where
    `stop` is called.

    Args:
        words: of the processes.
    """
    global _reasons
    if threading.current_thread() is not threading.main_thread():  # signals are for the main thread
        yield
        return
    hook = threading.excepthook

    def ended(what: threading.ExceptHookArgs) -> None:
        name = None if what.thread is None else what.thread.name
        if name == _PROCESS:
            stop(_why(str(what.exc_value), words))
        elif name not in _HEAR:
            hook(what)

    def told(_: int, frame: FrameType | None) -> None:
        if _reasons and not any(at.f_code.co_name == _CLOSING for at, _ in traceback.walk_stack(frame)):
            raise BeamError(_reasons[0])

    before = signal.signal(signal.SIGUSR1, told)
    _reasons, threading.excepthook = [], ended
    try:
        yield
    finally:
        threading.excepthook = hook
        with _telling:  # from here no signal is sent, which would end this program
            _reasons = None
        signal.signal(signal.SIGUSR1, before)


def _why(ended: str, words: IO[bytes]) -> str:
    """Why a worker process ended, from how it did and the last line that there is."""
    if ended.endswith(_KILLED):
        return "a worker process was killed, perhaps for want of memory: try fewer --num_workers"
    file = words.fileno()
    said = os.pread(file, _WORDS, max(0, os.fstat(file).st_size - _WORDS)).decode(errors="replace").split("\n")
    last = [line.strip() for line in said if line.strip()][-1:]
    return f"a worker process ended: {ended}" + "".join(f": {line}" for line in last)


def _share(workers: int) -> int:
    """The cores of this host for each of its workers."""
    return max(1, (os.cpu_count() or 1) // workers)
