import logging
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from medvill_jax.training.feed import Feed, advice

ROWS = 8


def run(load: float, compute: float, steps: int = 12, processes: int = 2) -> dict[str, float]:
    """The last figures of a loop with a loader and a step of given seconds."""
    time = 0.0

    def batches() -> Iterator[dict]:
        nonlocal time
        while True:
            time += load
            yield {}

    def step(state: dict, batch: dict) -> tuple[dict, dict[str, jax.Array]]:
        nonlocal time
        time += compute
        return state, {"loss": jnp.zeros(())}

    feed = Feed(batches(), rows=ROWS, processes=processes, seconds=0.2, now=lambda: time)
    figures: dict[str, float] = {}
    began = time
    for number in range(steps):
        feed.step(step, {})
        if number % 3 == 2:
            figures = feed.read((time - began) / 3)
            began = time
    return figures


def test_a_loader_that_is_too_slow_is_told_of_with_the_workers_that_would_do(caplog: pytest.LogCaptureFixture) -> None:
    figures = run(load=0.06, compute=0.02)
    assert figures["input_per_host"] == pytest.approx(ROWS / 0.08)
    assert figures["step_per_host"] == pytest.approx(ROWS / 0.02)
    assert figures["input_wait"] == pytest.approx(0.75)
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "input falls short on host 0" in warning.getMessage()
    assert "8 loading processes would do (--config.data.workers.processes=8; now 2)" in warning.getMessage()


def test_a_loader_that_keeps_up_is_not(caplog: pytest.LogCaptureFixture) -> None:
    figures = run(load=0.0, compute=0.04)
    assert figures["input_per_host"] == pytest.approx(figures["step_per_host"])
    assert figures["input_wait"] == 0
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_nothing_is_said_before_a_step_was_timed() -> None:
    assert run(load=0.0, compute=0.01, steps=3) == {}


@pytest.mark.parametrize(
    ("rate", "need", "processes", "enough"), [(100.0, 250.0, 0, 3), (100.0, 250.0, 1, 3), (100.0, 250.0, 4, 10)]
)
def test_advice(rate: float, need: float, processes: int, enough: int) -> None:
    text = advice(rate, need, processes, cores=8)
    assert f"{enough} loading processes would do" in text
    assert ("more than the 8 cores here" in text) == (enough > 8)
