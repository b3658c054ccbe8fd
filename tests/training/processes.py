"""Starting `job.py` and other programs as processes, on so many fake devices."""

import contextlib
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
JOB = Path(__file__).with_name("job.py")
SECONDS = 900  # for a machine that does much else


class Process:
    """One process, in a group of its own; its output goes to a file, which a killed one leaves behind too."""

    def __init__(self, arguments: list[str], log: Path, devices: int):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
        self.log = log
        with log.open("a") as out:
            self.popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def send_to_group(self, number: int) -> None:
        """To it and the processes that it has started."""
        os.killpg(self.popen.pid, number)

    def group_is_there(self) -> bool:
        """Whether it runs, or a process that it has started."""
        try:
            self.send_to_group(0)
        except ProcessLookupError:
            return False
        return True

    def running(self) -> bool:
        return self.popen.poll() is None

    def wait(self) -> int:
        """The exit status, negative for a signal."""
        try:
            return self.popen.wait(SECONDS)
        finally:
            self.end()

    def end(self) -> None:
        if self.running():
            self.popen.kill()
            self.popen.wait()

    def output(self) -> str:
        return self.log.read_text()

    def errors(self) -> list[str]:
        """The lines that a person is meant to read."""
        return re.findall(r"^error: .*", self.output(), re.MULTILINE)


class Forked:
    """A start of `job.py` like `Process`, forked from a server that has imported everything: tests that start dozens do
    so within a second each.
    """

    def __init__(self, arguments: list[str], log: Path, devices: int):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.training.job"])
        self.log = log
        # The server looks for modules there only.
        os.environ["PYTHONPATH"] = str(ROOT)
        self._process = context.Process(target=_forked, args=(arguments, str(log), devices), daemon=True)
        with self._asking:
            self._process.start()

    # Every start asks for the status of all processes. The server tells it once; of two threads that ask at the same
    # time, the second would be given 255.
    _asking = threading.Lock()

    def kill(self) -> None:
        self._process.kill()
        while self.running():
            time.sleep(0.005)

    def running(self) -> bool:
        with self._asking:
            return self._process.exitcode is None

    def wait(self) -> int:
        """The exit status, negative for a signal."""
        deadline = time.monotonic() + SECONDS
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.running():
            self.kill()
        with self._asking:
            return self._process.exitcode or 0

    def output(self) -> str:
        return self.log.read_text()


def _forked(arguments: list[str], log: str, devices: int) -> None:
    with open(log, "a") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.argv = ["job.py", *arguments]
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"

    import jax

    from tests.training import job

    jax.config.update("jax_platforms", "cpu")
    job.main()


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
