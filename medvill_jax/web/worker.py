"""One thread that computes: jobs wait in a bounded queue, and those of one kind are computed together."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

# To be told how many steps are done, and of how many.
Tell = Callable[[int, int], None]
# Kind of a job, the items of all jobs of a batch, and whom to tell after each step -> a result for each.
Compute = Callable[[Any, Sequence[Any], Tell], Sequence[Any]]


class Busy(Exception):
    """The queue is full, or the worker is closed; `seconds` says when it is worth to try again."""

    def __init__(self, seconds: int):
        super().__init__(f"the server is busy: try again in {seconds} s")
        self.seconds = seconds


@dataclass(eq=False)
class Job:
    """What waits, is computed or has its result.

    Attributes:
        kind, item, slow: as for `Worker.submit`.
        result: of it.
        steps: how many are done, and of how many; None before the first one.
        on_step: called in the thread after each of them.
        left: whether nobody waits for it any more.
    """

    kind: Hashable
    item: Any
    slow: bool
    result: Future[Any] = field(default_factory=Future)
    steps: tuple[int, int] | None = None
    on_step: Callable[[], object] | None = None
    left: bool = False

    def leave(self) -> None:
        """Has it not computed, or not to its end."""
        self.left = True
        self.result.cancel()


class Worker:
    """Computes jobs in one thread, as programs on one device come one after the other anyhow.

    A slow job waits until there is no other, and is computed alone. A job that is left before its turn is not computed,
    and one that is left later ends with its next step.

    Args:
        compute: called in the thread; what it raises is raised by the futures of the batch.
        most_waiting: jobs in the queue; more are refused.
        most_together: jobs of a batch.
    """

    def __init__(self, compute: Compute, *, most_waiting: int, most_together: int):
        self._compute, self._most_waiting, self._most_together = compute, most_waiting, most_together
        self._waiting: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="computes", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of jobs in the queue."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether jobs are still computed."""
        return self._thread.is_alive() and not self._closed

    def submit(self, kind: Hashable, item: Any, *, slow: bool = False) -> Job:
        """Has an item computed, together with others of its kind unless it is slow. Raises `Busy`."""
        job = Job(kind, item, slow)
        with self._changed:
            self._waiting = [other for other in self._waiting if not other.left]
            if self._closed or len(self._waiting) >= self._most_waiting:
                raise Busy(seconds=2)
            self._waiting.append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """Computes what is in the queue, and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            try:
                results = self._compute(batch[0].kind, [job.item for job in batch], functools.partial(_tell, batch))
                for job, result in zip(batch, results, strict=True):
                    job.result.set_result(result)
            except BaseException as error:  # whatever it is, somebody waits for it
                for job in batch:
                    if not job.result.done():
                        job.result.set_exception(error)
            del batch  # films would stay in memory until the next job

    def _next(self) -> list[Job]:
        """The next batch, once there is one; none after `close`."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return []
                first = min(self._waiting, key=lambda job: job.slow)  # of equals the one that has waited longest
                most = 1 if first.slow else self._most_together
                chosen = [job for job in self._waiting if job.kind == first.kind][:most]
                self._waiting = [job for job in self._waiting if job not in chosen]
                if running := [job for job in chosen if job.result.set_running_or_notify_cancel()]:
                    return running


def _tell(batch: Sequence[Job], done: int, of: int) -> None:
    for job in batch:
        job.steps = done, of
        if (on_step := job.on_step) is not None:
            on_step()
    if all(job.left for job in batch):
        raise CancelledError
