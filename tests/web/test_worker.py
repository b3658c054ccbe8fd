"""The thread that computes: what comes together, what waits, what is refused, and what is left out."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from medvill_jax.web.worker import Busy, Worker

WAIT = 30


class Bench:
    """A worker whose computing waits until it may go on, and which notes its batches."""

    def __init__(self, **limits: int):
        self.may, self.begun = threading.Event(), threading.Event()
        self.batches: list[tuple[Any, list[Any]]] = []
        self.worker = Worker(self._compute, **({"most_waiting": 10, "most_together": 3} | limits))

    def _compute(self, kind: Any, items: Sequence[Any]) -> list[Any]:
        self.batches.append((kind, [*items]))
        self.begun.set()
        assert self.may.wait(WAIT)
        if kind == "bad":
            raise ValueError("bad")
        return [(kind, item) for item in items]

    def busy(self) -> None:
        """Has it compute, so that what comes next waits."""
        self.worker.submit("first", 0)
        assert self.begun.wait(WAIT)


def test_jobs_of_a_kind_are_computed_together_and_slow_ones_last() -> None:
    bench = Bench()
    bench.busy()
    slow = [bench.worker.submit("map", n, slow=True) for n in range(2)]
    quick = [bench.worker.submit("ab"[n % 2], n) for n in range(7)]
    bench.may.set()
    assert [job.result(WAIT) for job in quick] == [("ab"[n % 2], n) for n in range(7)]
    assert [job.result(WAIT) for job in slow] == [("map", 0), ("map", 1)]
    assert bench.batches[1:] == [("a", [0, 2, 4]), ("b", [1, 3, 5]), ("a", [6]), ("map", [0]), ("map", [1])]
    bench.worker.close()


def test_a_full_queue_refuses_and_what_nobody_waits_for_makes_room() -> None:
    bench = Bench(most_waiting=2)
    bench.busy()
    first, second = bench.worker.submit("a", 1), bench.worker.submit("a", 2)
    with pytest.raises(Busy):
        bench.worker.submit("a", 3)
    assert first.cancel()
    third = bench.worker.submit("a", 3)
    bench.may.set()
    assert (second.result(WAIT), third.result(WAIT)) == (("a", 2), ("a", 3))
    bench.worker.close()
    assert bench.batches[1:] == [("a", [2, 3])]


def test_an_error_is_that_of_its_batch_alone() -> None:
    bench = Bench()
    bench.may.set()
    bad, good = bench.worker.submit("bad", 1), bench.worker.submit("good", 2)
    with pytest.raises(ValueError, match="bad"):
        bad.result(WAIT)
    assert good.result(WAIT) == ("good", 2)
    assert bench.worker.alive
    bench.worker.close()


def test_closing_computes_what_waits_and_refuses_the_rest() -> None:
    bench = Bench()
    bench.busy()
    jobs = [bench.worker.submit("a", n) for n in range(5)]
    closing = threading.Thread(target=bench.worker.close)
    closing.start()
    bench.may.set()
    closing.join(WAIT)
    assert [job.result(0) for job in jobs] == [("a", n) for n in range(5)]
    with pytest.raises(Busy):
        bench.worker.submit("a", 1)
    assert not bench.worker.alive
