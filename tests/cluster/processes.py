"""Starting `job.py` and other programs as processes, on so many fake devices."""

import atexit
import contextlib
import json
import multiprocessing
import os
import re
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
JOB = Path(__file__).with_name("job.py")
SECONDS = 900  # for a machine that does much else


# What the programs of tests import.
IMPORTED = (
    "tests.cluster.job",
    "medvill_jax.run",
    "data_prep.phantom",
    *(f"medvill_jax.tasks.{task}" for task in ("pretrain", "classify", "retrieve", "vqa", "generate", "zero_shot")),
)


class Process:
    """A program in a process and a group of its own, whose output goes to a file, which a killed one leaves behind too.

    It is forked from a server that has imported everything, so it starts within a second.

    Args:
        arguments: a script and its arguments, or "-c", code and its arguments.
        log: what its output is appended to.
        devices: how many devices it finds.
    """

    # Every start asks for the status of all processes. The server tells it once; of two threads that ask at the same
    # time, the second would be given 255.
    _asking = threading.Lock()

    def __init__(self, arguments: list[str], log: Path, devices: int):
        self.log = log
        log.touch()
        # The server looks for modules there only.
        os.environ["PYTHONPATH"] = str(ROOT)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        environment = {
            **os.environ,
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        }
        environment["JAX_PLATFORMS"] = "cpu"
        # Or run.py would start itself anew for it.
        environment.setdefault("GLIBC_TUNABLES", "")
        self._process = context.Process(target=_run, args=(arguments, str(log), environment), daemon=True)
        with self._asking:
            self._process.start()

    @property
    def pid(self) -> int:
        """Its number, and its group's."""
        assert self._process.pid is not None
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def send_to_group(self, number: int) -> None:
        """To it and the processes that it has started."""
        os.killpg(self.pid, number)

    def group_is_there(self) -> bool:
        """Whether it runs, or a process that it has started."""
        try:
            self.send_to_group(0)
        except ProcessLookupError:
            return False
        return True

    def running(self) -> bool:
        with self._asking:
            return self._process.exitcode is None

    def wait(self, seconds: float = SECONDS) -> int:
        """The exit status, negative for a signal."""
        deadline = time.monotonic() + seconds
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.end()
        with self._asking:
            return self._process.exitcode or 0

    def end(self) -> None:
        while self.running():
            self._process.kill()
            time.sleep(0.005)

    def output(self) -> str:
        return self.log.read_text()

    def errors(self) -> list[str]:
        """The lines that a person is meant to read."""
        return re.findall(r"^error: .*", self.output(), re.MULTILINE)


def _run(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    """Makes of a fork of the server what an interpreter that starts with these arguments would be."""
    os.setsid()
    # The server's daemons may start no processes.
    multiprocessing.current_process()._config["daemon"] = False  # pyright: ignore
    with open(log, "a") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)

    import jax

    for name in jax.config.values:
        if name.upper() in environment:
            jax.config.update(name, _as_is(jax.config.values[name], environment[name.upper()]))
    program, *sys.argv[1:] = arguments
    sys.argv[0] = program
    try:
        if program == "-c":
            exec(compile(sys.argv.pop(1), "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(str(ROOT / program), run_name="__main__")
    finally:
        threading._shutdown()  # pyright: ignore
        atexit._run_exitfuncs()  # pyright: ignore


def _as_is(value: object, text: str) -> object:
    """A text of the environment as a value of a setting's kind."""
    return text == "True" if isinstance(value, bool) else type(value)(text) if isinstance(value, int | float) else text


def free_address() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"localhost:{probe.getsockname()[1]}"


def job(workdir: Path, devices: int, *extra: str, name: str = "log", log: Path | None = None) -> Process:
    """A start of the tiny run, whose output goes beside the workdir, or elsewhere."""
    log = log or workdir.parent / f"{workdir.name}.{name}"
    return Process([str(JOB), f"--workdir={workdir}", *extra], log, devices)


@contextlib.contextmanager
def jobs(workdir: Path, processes: int, devices: int, *extra: str) -> Iterator[list[Process]]:
    """A start of the tiny run on several processes with so many devices each; none outlives the block."""
    cluster = [f"--coordinator={free_address()}", f"--num_processes={processes}"]
    started = [
        job(workdir, devices, *extra, *cluster, f"--process_id={number}", name=f"log{number}")
        for number in range(processes)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.end()


def wait_for_step(workdir: Path, step: int, *watched: Process) -> None:
    """Returns as soon as the figures of a step are written."""
    deadline = time.monotonic() + SECONDS
    while max(losses(workdir), default=0) < step:
        for process in watched:
            assert process.running(), process.output()
        assert time.monotonic() < deadline, [process.output() for process in watched]
        time.sleep(0.002)


def losses(workdir: Path) -> dict[int, float]:
    """Loss of each step, of the complete lines of metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def final(workdir: Path) -> dict[str, np.ndarray]:
    """The last state of a complete run."""
    with np.load(workdir / "final.npz") as arrays:
        return dict(arrays)


def seen(state: dict[str, np.ndarray]) -> np.ndarray:
    """How often the state has learnt from each example."""
    return state["['stats']['seen']['count']"]


def assert_params_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], atol: float = 0.0) -> None:
    """Bitwise if `atol` is 0."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        if atol and "params" in name:
            np.testing.assert_allclose(found[name], array, rtol=0, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name)
