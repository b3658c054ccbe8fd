"""Work on threads, in order: decoding releases Python's lock, so films are read while others are used."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ordered_map(
    function: Callable[[A], B], items: Iterable[A], *, workers: int | None = None, ahead: int | None = None
) -> Generator[B, None, None]:
    """`map` on threads: results in order.

    Args:
        function: called on the threads.
        items: taken by the consumer's thread.
        workers: threads; None for one per core, at most 16.
        ahead: the most items that are worked on ahead of the consumer; None for four per thread.
    """
    workers = workers or min(16, os.cpu_count() or 1)
    ahead = ahead or 4 * workers
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[B]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
