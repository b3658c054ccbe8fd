"""The thread that computes: what comes together, what waits, what is refused, and what is left out."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from medvill_jax.web import arriving
from medvill_jax.web.worker import Busy, Tell, Worker

WAIT = 30


class Bench:
    """A worker whose computing waits until it may go on, and which notes its batches."""

    def __init__(self, **limits: int):
        self.may, self.begun = threading.Event(), threading.Event()
        self.stepped, self.goes = threading.Semaphore(0), threading.Semaphore(0)
        self.batches: list[tuple[Any, list[Any]]] = []
        self.worker = Worker(self._compute, **({"most_waiting": 10, "most_together": 3} | limits))

    def _compute(self, kind: Any, items: Sequence[Any], tell: Tell) -> list[Any]:
        self.batches.append((kind, [*items]))
        self.begun.set()
        assert self.may.wait(WAIT)
        if kind == "steps":
            for step in range(items[0]):
                tell(step + 1, items[0])
                self.stepped.release()
                assert self.goes.acquire(timeout=WAIT)
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
    assert [job.result.result(WAIT) for job in quick] == [("ab"[n % 2], n) for n in range(7)]
    assert [job.result.result(WAIT) for job in slow] == [("map", 0), ("map", 1)]
    assert bench.batches[1:] == [("a", [0, 2, 4]), ("b", [1, 3, 5]), ("a", [6]), ("map", [0]), ("map", [1])]
    bench.worker.close()


def test_a_full_queue_refuses_and_what_nobody_waits_for_makes_room() -> None:
    bench = Bench(most_waiting=2)
    bench.busy()
    first, second = bench.worker.submit("a", 1), bench.worker.submit("a", 2)
    with pytest.raises(Busy):
        bench.worker.submit("a", 3)
    first.leave()
    assert first.result.cancelled()
    third = bench.worker.submit("a", 3)
    bench.may.set()
    assert (second.result.result(WAIT), third.result.result(WAIT)) == (("a", 2), ("a", 3))
    bench.worker.close()
    assert bench.batches[1:] == [("a", [2, 3])]


def test_an_error_is_that_of_its_batch_alone() -> None:
    bench = Bench()
    bench.may.set()
    bad, good = bench.worker.submit("bad", 1), bench.worker.submit("good", 2)
    with pytest.raises(ValueError, match="bad"):
        bad.result.result(WAIT)
    assert good.result.result(WAIT) == ("good", 2)
    assert bench.worker.alive
    bench.worker.close()


def test_steps_are_told_and_a_job_that_is_left_ends_with_its_next_one() -> None:
    bench = Bench()
    bench.may.set()
    job, after = bench.worker.submit("steps", 3, slow=True), bench.worker.submit("steps", 5, slow=True)
    assert after.steps is None
    for step in (1, 2, 3):
        assert bench.stepped.acquire(timeout=WAIT)
        assert job.steps == (step, 3)
        bench.goes.release()
    assert job.result.result(WAIT) == ("steps", 3)
    assert bench.stepped.acquire(timeout=WAIT)
    after.leave()
    bench.goes.release()
    assert isinstance(after.result.exception(WAIT), CancelledError)
    assert after.steps == (2, 5)
    bench.worker.close()


class Client:
    """A request whose client is there until it `left`."""

    left = False

    async def is_disconnected(self) -> bool:
        return self.left


def test_a_client_is_told_of_steps_and_its_leaving_ends_them() -> None:
    bench, client, told = Bench(), Client(), []
    bench.may.set()
    job = bench.worker.submit("steps", 4, slow=True)

    async def wait() -> None:
        async for step in arriving.steps(client, job):  # pyright: ignore[reportArgumentType]
            told.append(step)
            client.left = len(told) == 2
            bench.goes.release()

    # In a thread of its own, as the browser of other tests has a loop in this one.
    with ThreadPoolExecutor(1) as pool, pytest.raises(ClientDisconnect):
        pool.submit(lambda: asyncio.run(wait())).result(WAIT)
    bench.goes.release()
    assert isinstance(job.result.exception(WAIT), CancelledError)
    assert told == [(1, 4), (2, 4)]
    bench.worker.close()


def test_closing_computes_what_waits_and_refuses_the_rest() -> None:
    bench = Bench()
    bench.busy()
    jobs = [bench.worker.submit("a", n) for n in range(5)]
    closing = threading.Thread(target=bench.worker.close)
    closing.start()
    bench.may.set()
    closing.join(WAIT)
    assert [job.result.result(0) for job in jobs] == [("a", n) for n in range(5)]
    with pytest.raises(Busy):
        bench.worker.submit("a", 1)
    assert not bench.worker.alive
