import logging

import jax.numpy as jnp
import pytest

from medvill_jax.training.timing import Timing, advice

ROWS, HOSTS = 8, 2


class Machine:
    """A clock that loading, computing and evaluating move on."""

    def __init__(self) -> None:
        self.time = 0.0
        self.barriers = 0

    def barrier(self) -> None:
        """Other hosts come a second later."""
        self.barriers += 1
        self.time += 1.0


def run(load: float, compute: float, steps: int = 12, processes: int = 2) -> dict[str, float]:
    """The last metrics of a loop with a loader and a step of given seconds, read after every third step."""
    machine = Machine()
    timing = Timing(
        ROWS * HOSTS, hosts=HOSTS, processes=processes, barrier=lambda: None, seconds=0.2, now=lambda: machine.time
    )
    metrics: dict[str, float] = {}
    for number in range(steps):
        with timing.waiting():
            machine.time += load
        machine.time += compute
        timing.stepped(jnp.zeros(()))
        if number % 3 == 2:
            metrics = timing.read()
            with timing.paused():
                machine.time += 5.0
    return metrics


def test_a_loader_that_is_too_slow_is_told_of_with_the_workers_that_would_do(caplog: pytest.LogCaptureFixture) -> None:
    metrics = run(load=3 / 64, compute=1 / 64)
    assert metrics["step_seconds"] == pytest.approx(1 / 16), "without the pause"
    assert metrics["examples_per_second"] == pytest.approx(ROWS * HOSTS * 16)
    assert metrics["input_per_host"] == pytest.approx(ROWS * 16)
    assert metrics["step_per_host"] == pytest.approx(ROWS * 64)
    assert metrics["input_wait"] == pytest.approx(0.75)
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "the input of host 0 is too slow" in warning.getMessage()
    assert "8 workers would be enough (--config.data.workers.processes=8; now 2)" in warning.getMessage()


def test_a_loader_that_keeps_up_is_not(caplog: pytest.LogCaptureFixture) -> None:
    metrics = run(load=0.0, compute=0.04)
    assert metrics["input_per_host"] == pytest.approx(metrics["step_per_host"])
    assert metrics["input_wait"] == 0
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_the_input_is_not_judged_before_a_step_was_timed() -> None:
    assert run(load=0.0, compute=0.01, steps=3).keys() == {"step_seconds", "examples_per_second"}


def test_nothing_is_known_of_the_first_step_which_compiles() -> None:
    timing = Timing(ROWS)
    assert timing.read() == {}
    with timing.waiting():
        pass
    timing.stepped(jnp.zeros(()))
    assert timing.read() == {}


def test_a_step_is_timed_after_a_reading_when_all_hosts_have_their_batch() -> None:
    machine = Machine()
    timing = Timing(ROWS, barrier=machine.barrier, now=lambda: machine.time)
    for _ in range(5):
        with timing.waiting():
            machine.time += 0.5
        machine.time += 0.25
        timing.stepped(jnp.zeros(()))
    assert machine.barriers == 0
    timing.read()
    for barriers in (1, 1):
        with timing.waiting():
            machine.time += 0.5
        machine.time += 0.25
        timing.stepped(jnp.zeros(()))
        assert machine.barriers == barriers
    metrics = timing.read()
    assert metrics["step_per_host"] == pytest.approx(ROWS / 0.25), "waiting for other hosts is no part of a step"
    assert metrics["input_wait"] == pytest.approx(1.0 / 2.5)


@pytest.mark.parametrize(
    ("rate", "need", "processes", "enough"), [(100.0, 250.0, 0, 3), (100.0, 250.0, 1, 3), (100.0, 250.0, 4, 10)]
)
def test_advice(rate: float, need: float, processes: int, enough: int) -> None:
    text = advice(rate, need, processes, cores=8)
    assert f"{enough} workers would be enough" in text
    assert ("more than the 8 cores of this host" in text) == (enough > 8)


def test_a_later_compilation_is_left_out_and_not_taken_for_a_slow_step() -> None:
    machine = Machine()
    timing = Timing(ROWS, now=lambda: machine.time)
    metrics: dict[str, float] = {}
    for number in range(12):
        with timing.waiting():
            pass
        if number in (0, 6):  # the first step after a reading is one of those that are timed
            with timing.compiling():
                machine.time += 100.0
        machine.time += 1.0
        timing.stepped(jnp.zeros(()))
        if number % 3 == 2:
            metrics = timing.read()
            assert metrics["step_seconds"] == pytest.approx(1.0)
    assert metrics["step_per_host"] == pytest.approx(ROWS)
