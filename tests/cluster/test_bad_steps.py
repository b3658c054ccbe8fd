"""Bad steps and averages in a run of several processes with split parameters, killed and resumed."""

import signal
from pathlib import Path

import numpy as np

from tests.cluster import processes
from tests.cluster.processes import jobs

# One is skipped, three in a row go back from step 13 to step 10.
RUN = ("--fsdp=2", "--policy=rollback", "--decay=0.9", "--bad", "6", "10", "11", "12", "--steps=40", "--pause=0.1")


def test_processes_that_are_killed_skip_and_go_back_as_if_they_were_not(tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    with jobs(whole, 2, 2, *RUN) as started:
        for process in started:
            assert process.wait() == 0, process.output()
    first = started[0].output()
    assert "step 7: bad steps that were skipped: 1 since the last look, 1 in all" in first
    assert "3 bad steps in a row, up to step 13: back to the state of step 10" in first

    for step, number in ((8, signal.SIGTERM), (14, signal.SIGKILL)):
        with jobs(run, 2, 2, *RUN) as started:
            processes.wait_for_step(run, step, *started)
            started[1].send(number)
            statuses = [process.wait() for process in started]
        assert max(processes.losses(run)) < 40, "it came in time"
        assert statuses[1] == (0 if number == signal.SIGTERM else -number)
    with jobs(run, 2, 2, *RUN) as started:
        for process in started:
            assert process.wait() == 0, process.output()
    expected, found = processes.final(whole), processes.final(run)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert processes.losses(run) == processes.losses(whole)
