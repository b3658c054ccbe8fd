"""One run on several processes: found in the environment or told by flags, started, kept in step, and left together.

JAX's own start ends a process from C++ when another one is missing, without a word that Python could say. So the
processes first meet over plain sockets (see `rendezvous`), and only when all are there does JAX start. They prove to
each other that they belong to one run by what MEDVILL_TOKEN holds in the environment of each, which should be a secret;
without it, by the number of the job under SLURM and Open MPI, which keeps two runs apart, but nobody out.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from medvill_jax.cluster import rendezvous
from medvill_jax.cluster.rendezvous import Meeting, StartupError
from medvill_jax.commands import Exit

log = logging.getLogger(__name__)

# How an environment shows that it runs several processes; JAX knows how to read the rest of each.
ENVIRONMENTS = ("gketpu", "gcetpu", "slurm", "ompi")
TOKEN = "MEDVILL_TOKEN"
# What is the same in the processes of one run, and in no other's.
JOBS = {"slurm": "SLURM_JOB_ID", "ompi": "PMIX_NAMESPACE"}
# Process 0 may prepare data or write an export while the others wait; that it lives is watched all the time.
LONG_SECONDS = 6 * 3600.0
# A network file system may show another host's file this much later.
SHARED_SECONDS = 60.0
# An error that hits all processes is better told by each of them: so long has one that hears of another's.
OWN_WORDS_SECONDS = 1.0
# A broken collective is noticed at once; so long it may take until somebody has told this process whose death it was.
TOLD_SECONDS = 2.0


class BarrierError(Exception):
    """A process did not come to where all processes meet; the message names it."""


@dataclass(frozen=True)
class Cluster:
    """Where a process stands among those of its run.

    Attributes:
        coordinator: `HOST:PORT` of process 0.
        processes: how many there are.
        process: which one this is.
        local_devices: the devices of this host that are this process's own; None for all of them.
        job: the launcher's name for this run, if it has one.
    """

    coordinator: str
    processes: int
    process: int
    local_devices: tuple[int, ...] | None = None
    job: str = ""


@dataclass
class _Session:
    process: int
    meeting: Meeting
    links: rendezvous.Links
    places: int = 0


_session: _Session | None = None
_uses: collections.Counter[str] = collections.Counter()


def find(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None, timeout: float = 300.0
) -> Cluster | None:
    """The cluster that flags name, or else that the environment shows; None for a run of one process.

    Args:
        coordinator, processes, process: all of them, or none.
        timeout: seconds that a TPU host may take to find its coordinator's name.

    Raises:
        StartupError: some of the flags without the others, numbers out of range, or an environment that is half there.
    """
    given = {"coordinator": coordinator, "num_processes": processes, "process_id": process}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return _from_environment(timeout)
    if coordinator is None or processes is None or process is None:
        raise StartupError(f"--coordinator, --num_processes and --process_id go together; add {', '.join(missing)}")
    if not 0 <= process < processes:
        raise StartupError(f"--process_id={process} is not in 0 .. {processes - 1}; --num_processes={processes}")
    rendezvous.split_address(coordinator)
    return Cluster(coordinator, processes, process) if processes > 1 else None


def _from_environment(timeout: float) -> Cluster | None:
    from jax._src.clusters import ClusterEnv  # what jax.distributed.initialize() itself asks; no public name

    kinds = {kind.name: kind for kind in ClusterEnv._cluster_types}
    for name in ENVIRONMENTS:
        kind = kinds.get(name)
        if kind is None or not kind.is_env_present():
            continue
        try:
            count = kind.get_process_count()
            if count < 2:
                continue
            port = os.environ.get("JAX_COORDINATOR_PORT")
            address = kind.get_coordinator_address(timeout_secs=int(timeout), override_coordinator_port=port)
            local = kind.get_local_process_id()
            devices = None if local is None or _has_host_alone(os.environ) else (local,)
            job = os.environ.get(JOBS.get(name, ""), "")
            return Cluster(address, count, kind.get_process_id(), devices, job)
        except (OSError, RuntimeError, ValueError) as error:  # no metadata server, an unknown host, odd variables
            raise StartupError(
                f"this looks like a process of a cluster ({name}), but {error}; --coordinator, --num_processes and "
                "--process_id say it too"
            ) from None
    return None


def _has_host_alone(environment: Mapping[str, str]) -> bool:
    """Whether this process is the only one of the run on its host, and so may use all devices there."""
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in environment:
        return environment["OMPI_COMM_WORLD_LOCAL_SIZE"] == "1"
    # "2", "1(x4)" or "2,1": tasks on each node of the step.
    counts = environment.get("SLURM_STEP_TASKS_PER_NODE", environment.get("SLURM_TASKS_PER_NODE", ""))
    return counts.partition("(")[0] == "1"


def start_if_cluster(coordinator: str | None, processes: int | None, process: int | None, timeout: float) -> None:
    """`find`, then `start`; the log of all but process 0 then holds warnings only, and says whose it is.

    Raises:
        StartupError: see there.
    """
    cluster = find(coordinator, processes, process, timeout)
    if cluster is None:
        return
    start(cluster, timeout)
    root = logging.getLogger()
    if cluster.process:
        root.setLevel(logging.WARNING)
    for handler in root.handlers:
        handler.setFormatter(
            logging.Formatter(f"%(asctime)s [{cluster.process}/{cluster.processes}] %(message)s", datefmt="%H:%M:%S")
        )


def start(cluster: Cluster, timeout: float) -> None:
    """Brings the processes together and starts JAX's distributed runtime; to be called before JAX is used.

    On CPUs, collectives go through gloo. From here on the loss of another process ends this one, with a line that names
    the lost one.

    Args:
        cluster: see `find`.
        timeout: seconds to wait for the other processes.

    Raises:
        StartupError: a process did not come; the message names it.
    """
    global _session
    began = time.monotonic()
    token = os.environ.get(TOKEN) or cluster.job
    meeting, links = rendezvous.meet(
        cluster.coordinator, cluster.processes, cluster.process, timeout, _free_port, token
    )
    host, _ = rendezvous.split_address(cluster.coordinator)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    _session = _Session(cluster.process, meeting, links)
    links.watch(_leave_at_once)
    _delay_abort()
    address = f"[{host}]:{meeting.note}" if ":" in host else f"{host}:{meeting.note}"
    jax.distributed.initialize(
        address,
        cluster.processes,
        cluster.process,
        local_device_ids=cluster.local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=max(60, round(timeout)),
    )
    log.info(
        "%d processes met at %s after %.1f s: %s",
        cluster.processes,
        cluster.coordinator,
        time.monotonic() - began,
        ", ".join(dict.fromkeys(meeting.hosts)),
    )


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return str(probe.getsockname()[1])


def _delay_abort() -> None:
    """Lets Python say who is gone and end this process, before JAX does so from C++ for the same reason.

    JAX offers no way to be told instead. A thread that aborts now first sleeps in C, for as many seconds as SIGABRT's
    number (6); then it aborts.
    """
    library = ctypes.CDLL(None)
    # The handler goes after one use, where the system has that: a signal from outside would only wake a sleeper.
    install = getattr(library, "sysv_signal", library.signal)
    install.argtypes = (ctypes.c_int, ctypes.c_void_p)
    install(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


def _leave_at_once(message: str, status: int) -> None:
    if status == rendezvous.LOST_STATUS:
        message += "; start all processes again, and the run goes on from its newest checkpoint"
    else:
        time.sleep(OWN_WORDS_SECONDS)
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
    _let_others_go()
    os._exit(status)


def _let_others_go() -> None:
    """JAX ends the others from C++ as soon as the service in process 0 is gone."""
    if _session is not None and _session.process == 0:
        time.sleep(2 * OWN_WORDS_SECONDS)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that all processes of a started run leave together; when one fails, the others end too."""
    if _session is None:
        yield
        return
    status = 0
    try:
        yield
        barrier("end of the run", LONG_SECONDS)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        status = Exit.INTERRUPTED
    except BaseException:
        traceback.print_exc()
        status = Exit.ERROR
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        # What broke here may be the death of another process, which the watch is about to tell and to end with.
        time.sleep(TOLD_SECONDS)
        _session.links.fail(status)
        _let_others_go()
        # JAX's exit would wait minutes for processes that are ending too.
        os._exit(status)
    _session.links.finish()
    jax.distributed.shutdown()
    signal.signal(signal.SIGABRT, signal.SIG_DFL)


def on_first(what: str, action: Callable[[], object]) -> str:
    """Lets process 0 do something while the others wait.

    Args:
        what: names it, in messages.
        action: done in process 0.

    Returns:
        What the action gave, as text, in every process.

    Raises:
        Exception: in process 0, what the action raised; the others then end (see `together`).
        BarrierError: process 0 did not finish.
    """
    if _session is None:
        return str(action())
    key = _key(what)
    if jax.process_index() == 0:
        given = str(action())
        _client().key_value_set(key, f"={given}")  # the service takes no empty text
        return given
    try:
        return _client().blocking_key_value_get(key, int(LONG_SECONDS * 1000))[1:]
    except jax.errors.JaxRuntimeError as error:
        raise BarrierError(f"{_session.meeting.name(0)} did not finish {what!r}: {_first_line(error)}") from None


def from_first(array: np.ndarray) -> np.ndarray:
    """An array as process 0 has it, in every process; all call this together, with arrays of one shape and dtype."""
    return array if _session is None else np.array(multihost_utils.broadcast_one_to_all(array))


def any_of(here: bool) -> bool:
    """Whether something is so in any process; all call this together."""
    return here if _session is None else bool(np.any(multihost_utils.process_allgather(np.array(here))))


def appears(there: Callable[[], bool], seconds: float = SHARED_SECONDS) -> bool:
    """Whether what another host has written shows on this one, within some seconds."""
    deadline = time.monotonic() + seconds
    while not (found := there()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def barrier(what: str, timeout: float = LONG_SECONDS) -> None:
    """Waits until all processes are here.

    Args:
        what: names the place, in messages.
        timeout: seconds.

    Raises:
        BarrierError: some did not come; the message names them.
    """
    if _session is None:
        return
    try:
        _client().wait_at_barrier(_key(what), int(timeout * 1000))
    except jax.errors.JaxRuntimeError as error:
        missing = [_session.meeting.name(process) for process in _named_tasks(str(error), len(_session.meeting.hosts))]
        who = ", ".join(missing) or _first_line(error)
        raise BarrierError(f"not all processes came to {what!r} within {timeout:g} s; missing: {who}") from None


def _key(what: str) -> str:
    """A key that the coordination service has not seen; the same in every process."""
    _uses[what] += 1
    return f"medvill_jax/{what}/{_uses[what]}"


def _named_tasks(message: str, processes: int) -> list[int]:
    """The numbers that a message of the coordination service lists, one a line, as late."""
    _, _, names = message.partition("timed out task names:\n")
    numbers = []
    for line in names.splitlines():
        if not line.strip().isdigit() or int(line) >= processes:
            break
        numbers.append(int(line))
    return numbers


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def _client() -> Any:
    from jax._src import distributed  # the coordination client has no public name; Orbax reads it here too

    return distributed.global_state.client


def stop_agreed() -> bool:
    """Whether all processes stop here, because one of them was sent SIGTERM.

    JAX's preemption service tells the others and picks a place that none has passed, so every process must ask at the
    same places. False in a run of one process.
    """
    if _session is None:
        return False
    # The service knows places by numbers without a gap.
    _session.places += 1
    return multihost_utils.reached_preemption_sync_point(_session.places)


def is_first() -> bool:
    """Whether this is process 0, which writes what is written once."""
    return _session is None or jax.process_index() == 0


def is_running() -> bool:
    """Whether this is a run of several processes."""
    return _session is not None
