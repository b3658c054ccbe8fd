"""A run of several processes: configured by flags or the environment, started, kept in step, and ended together.

When a process is missing, JAX aborts the others from C++ without naming it. So the processes first meet over plain
sockets (see `rendezvous`), and JAX starts when all have met. They prove that they belong to one run by a secret, the
environment variable MEDVILL_TOKEN. Without it the job number of SLURM or Open MPI is used, which keeps two runs apart
but keeps nobody out.
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

# JAX's names of the environments in which several processes are detected.
ENVIRONMENTS = ("gketpu", "gcetpu", "slurm", "ompi")
TOKEN = "MEDVILL_TOKEN"
# The variable that is the same in all processes of one run, and differs between runs.
JOBS = {"slurm": "SLURM_JOB_ID", "ompi": "PMIX_NAMESPACE"}
# Process 0 may prepare data or write an export while the others wait; its death is noticed at once in any case.
LONG_SECONDS = 6 * 3600.0
# How much later a network file system may show another host's file.
SHARED_SECONDS = 60.0
# How long a process that hears of another's error may take to report its own: an error often hits all of them.
REPORT_SECONDS = 1.0
# How long a process waits, after a collective has failed, for the message that names the process that died.
NAMED_SECONDS = 2.0


class BarrierError(Exception):
    """A process did not reach a barrier; the message names it."""


@dataclass(frozen=True)
class Cluster:
    """The processes of a run, as one of them sees them.

    Attributes:
        coordinator: `HOST:PORT` of process 0.
        processes: how many processes the run has.
        process: the number of this one.
        local_devices: the devices of this host that this process uses; None for all of them.
        job: the launcher's identifier of this run, empty if it has none.
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
    stop_checks: int = 0


_session: _Session | None = None
_uses: collections.Counter[str] = collections.Counter()


def find(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None, timeout: float = 300.0
) -> Cluster | None:
    """The cluster that the flags describe, or else the environment; None for a run of one process.

    Args:
        coordinator, processes, process: the fields of `Cluster`; all of them, or none.
        timeout: seconds that a TPU host may take to find its coordinator's name.

    Raises:
        StartupError: some of the flags without the others, numbers out of range, or an incomplete environment.
    """
    options = {"coordinator": coordinator, "num_processes": processes, "process_id": process}
    missing = [f"--{name}" for name, value in options.items() if value is None]
    if len(missing) == len(options):
        return _from_environment(timeout)
    if coordinator is None or processes is None or process is None:
        raise StartupError(f"--coordinator, --num_processes and --process_id go together; add {', '.join(missing)}")
    if not 0 <= process < processes:
        raise StartupError(f"--process_id={process} is not in 0 .. {processes - 1}; --num_processes={processes}")
    rendezvous.split_address(coordinator)
    return Cluster(coordinator, processes, process) if processes > 1 else None


def _from_environment(timeout: float) -> Cluster | None:
    from jax._src.clusters import ClusterEnv  # which jax.distributed.initialize() uses; it has no public name

    environments = {environment.name: environment for environment in ClusterEnv._cluster_types}
    for name in ENVIRONMENTS:
        environment = environments.get(name)
        if environment is None or not environment.is_env_present():
            continue
        try:
            count = environment.get_process_count()
            if count < 2:
                continue
            port = os.environ.get("JAX_COORDINATOR_PORT")
            address = environment.get_coordinator_address(timeout_secs=int(timeout), override_coordinator_port=port)
            local = environment.get_local_process_id()
            devices = None if local is None or _has_host_alone(os.environ) else (local,)
            job = os.environ.get(JOBS.get(name, ""), "")
            return Cluster(address, count, environment.get_process_id(), devices, job)
        except (OSError, RuntimeError, ValueError) as error:  # no metadata server, an unknown host, wrong variables
            raise StartupError(
                f"this looks like a process of a cluster ({name}), but {error}; set --coordinator, --num_processes "
                "and --process_id instead"
            ) from None
    return None


def _has_host_alone(environment: Mapping[str, str]) -> bool:
    """Whether this process is the only one of the run on its host, and so may use all its devices."""
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in environment:
        return environment["OMPI_COMM_WORLD_LOCAL_SIZE"] == "1"
    # "2", "1(x4)" or "2,1": tasks of the step on each node.
    counts = environment.get("SLURM_STEP_TASKS_PER_NODE", environment.get("SLURM_TASKS_PER_NODE", ""))
    return counts.partition("(")[0] == "1"


def start_if_cluster(coordinator: str | None, processes: int | None, process: int | None, timeout: float) -> None:
    """`find`, then `start`; log lines get the process number, and all but process 0 log warnings only.

    Raises:
        StartupError: as `find` and `start`.
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
    """Waits for all processes and starts JAX's distributed runtime; to be called before JAX is used.

    On CPUs, collectives use gloo. From here on the death of another process ends this one, with a line that names it.

    Args:
        cluster: see `find`.
        timeout: seconds to wait for the other processes.

    Raises:
        StartupError: a process did not start; the message names it.
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
    """Gives Python time to name the process that died and to end this one, before JAX aborts from C++.

    JAX has no callback for that. The handler of SIGABRT becomes C's `sleep`, so a thread that aborts first sleeps for
    as many seconds as SIGABRT's number (6).
    """
    library = ctypes.CDLL(None)
    # `sysv_signal` removes the handler after one use, so that another SIGABRT ends the process.
    install = getattr(library, "sysv_signal", library.signal)
    install.argtypes = (ctypes.c_int, ctypes.c_void_p)
    install(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


def _leave_at_once(message: str, status: int) -> None:
    if status == rendezvous.LOST_STATUS:
        message += "; start all processes again, and the run goes on from its newest checkpoint"
    else:
        time.sleep(REPORT_SECONDS)
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
    _let_others_go()
    os._exit(status)


def _let_others_go() -> None:
    """Lets process 0 wait for the others: JAX aborts them from C++ as soon as its service in process 0 ends."""
    if _session is not None and _session.process == 0:
        time.sleep(2 * REPORT_SECONDS)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that all processes of a started run leave together; if one fails, the others end too."""
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
        # If another process's death caused the error, the watch names it and ends this process meanwhile.
        time.sleep(NAMED_SECONDS)
        _session.links.fail(status)
        _let_others_go()
        # A normal exit would wait minutes in JAX for the other processes, which are ending too.
        os._exit(status)
    _session.links.finish()
    jax.distributed.shutdown()
    signal.signal(signal.SIGABRT, signal.SIG_DFL)


def on_first(what: str, action: Callable[[], object]) -> str:
    """Runs an action in process 0 while the others wait.

    Args:
        what: the action's name in messages.
        action: called in process 0.

    Returns:
        The action's result, as text, in every process.

    Raises:
        Exception: in process 0, any that the action raises; the others then end (see `together`).
        BarrierError: process 0 did not finish.
    """
    if _session is None:
        return str(action())
    key = _key(what)
    if jax.process_index() == 0:
        result = str(action())
        _client().key_value_set(key, f"={result}")  # the service takes no empty text
        return result
    try:
        return _client().blocking_key_value_get(key, int(LONG_SECONDS * 1000))[1:]
    except jax.errors.JaxRuntimeError as error:
        raise BarrierError(f"{_session.meeting.name(0)} did not finish {what!r}: {_first_line(error)}") from None


def from_first(array: np.ndarray) -> np.ndarray:
    """The array of process 0, in every process; all must call this together, with arrays of one shape and dtype."""
    return array if _session is None else np.array(multihost_utils.broadcast_one_to_all(array))


def any_of(here: bool) -> bool:
    """Whether `here` is true in any process; all must call this together."""
    return here if _session is None else bool(np.any(multihost_utils.process_allgather(np.array(here))))


def appears(there: Callable[[], bool], seconds: float = SHARED_SECONDS) -> bool:
    """Waits for a file of another host: whether `there` becomes true on this host within some seconds."""
    deadline = time.monotonic() + seconds
    while not (appeared := there()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return appeared


def barrier(what: str, timeout: float = LONG_SECONDS) -> None:
    """Waits until all processes have called this.

    Args:
        what: the barrier's name in messages.
        timeout: seconds.

    Raises:
        BarrierError: some processes did not call it in time; the message names them.
    """
    if _session is None:
        return
    try:
        _client().wait_at_barrier(_key(what), int(timeout * 1000))
    except jax.errors.JaxRuntimeError as error:
        missing = [_session.meeting.name(process) for process in _named_tasks(str(error), len(_session.meeting.hosts))]
        who = ", ".join(missing) or _first_line(error)
        raise BarrierError(f"not all processes reached {what!r} within {timeout:g} s; missing: {who}") from None


def _key(what: str) -> str:
    """A key that the coordination service has not seen, the same in every process."""
    _uses[what] += 1
    return f"medvill_jax/{what}/{_uses[what]}"


def _named_tasks(message: str, processes: int) -> list[int]:
    """The process numbers that a timeout message of the coordination service lists, one a line."""
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
    from jax._src import distributed  # the coordination client has no public name; Orbax imports it from here too

    return distributed.global_state.client


def stop_agreed() -> bool:
    """Whether all processes stop here, because one of them received SIGTERM; False in a run of one process.

    JAX's preemption service informs the others and picks a call that no process has passed, so every process must call
    this at the same places.
    """
    if _session is None:
        return False
    # The service numbers these calls without gaps.
    _session.stop_checks += 1
    return multihost_utils.reached_preemption_sync_point(_session.stop_checks)


def is_first() -> bool:
    """Whether this is process 0, which writes the files that a run has once."""
    return _session is None or jax.process_index() == 0


def is_running() -> bool:
    """Whether this is a run of several processes."""
    return _session is not None
