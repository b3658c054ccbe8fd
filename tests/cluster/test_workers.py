"""Loading processes: they leave signals to the process that trains, and end with it."""

import signal
import time
from pathlib import Path

import pytest

from tests.cluster import processes
from tests.cluster.processes import job

LOADING = ("--steps=200", "--load_processes=2", "--load_pause=0.1")


@pytest.mark.slow
def test_a_signal_to_the_whole_group_is_one_for_the_run(tmp_path: Path) -> None:
    process = job(tmp_path / "run", 1, *LOADING)
    processes.wait_for_step(tmp_path / "run", 3, process)
    process.send_to_group(signal.SIGTERM)
    assert process.wait() == 0, process.output()
    assert "the same command goes on from here" in process.output()
    assert "Traceback" not in process.output()


@pytest.mark.slow
def test_no_loading_process_outlives_a_killed_run(tmp_path: Path) -> None:
    process = job(tmp_path / "run", 1, *LOADING)
    processes.wait_for_step(tmp_path / "run", 3, process)
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while process.group_is_there() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not process.group_is_there()
