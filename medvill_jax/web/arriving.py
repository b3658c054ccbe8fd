"""Requests on their way in: how many at a time, how large, and how long they may take."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from medvill_jax.web import limits
from medvill_jax.web.refusals import Refused
from medvill_jax.web.worker import Busy, Job

# How often a request that waits looks whether its client is still there, seconds.
_LOOK = 0.25


class Door:
    """Lets in so many requests at a time, with so many bytes together; for the thread of the event loop."""

    def __init__(self, requests: int, total: int):
        self._requests, self._total = requests, total

    @contextlib.contextmanager
    def entered(self, size: int) -> Iterator[None]:
        """A block in which a request of `size` bytes counts. Raises `Busy`."""
        if self._requests < 1 or self._total < size:
            raise Busy(seconds=2)
        self._requests -= 1
        self._total -= size
        try:
            yield
        finally:
            self._requests += 1
            self._total += size


def size_of(request: Request, most: int, what: str) -> int:
    """The bytes that a request brings. Raises `Refused`."""
    told = request.headers.get("content-length", "")
    if not told.isdecimal():
        raise Refused(411, "the request does not say how long it is: give Content-Length")
    if int(told) > most:
        raise Refused(413, f"{what} has {int(told):,} bytes; at most {most:,} are taken")
    return int(told)


async def body(request: Request) -> bytes:
    """What a request brings, whose size `size_of` has passed. Raises `Refused`."""
    try:
        async with asyncio.timeout(limits.ARRIVAL):
            return b"".join([chunk async for chunk in request.stream()])
    except TimeoutError:
        raise Refused(408, f"the request did not arrive within {limits.ARRIVAL} s") from None


async def steps(request: Request, job: Job) -> AsyncGenerator[tuple[int, int], None]:
    """How many steps of a job are done, and of how many, whenever that is more, until it has its result.

    A job that nobody waits for any more is left. Raises `ClientDisconnect`.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    waiting, told = asyncio.wrap_future(job.result), None
    waiting.add_done_callback(lambda one: one.cancelled() or one.exception())  # or asyncio logs that nobody looked
    waiting.add_done_callback(lambda _: changed.set())
    job.on_step = lambda: loop.call_soon_threadsafe(changed.set)
    try:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await changed.wait()
            changed.clear()
            if (now := job.steps) is not None and now != told:
                yield now
                told = now
            if waiting.done():
                break
            if await request.is_disconnected():
                raise ClientDisconnect
    finally:
        job.on_step = None
        if not waiting.done():
            waiting.cancel()
            job.leave()


async def result(request: Request, job: Job) -> Any:
    """The result of a job, which is left as by `steps`. Raises `ClientDisconnect`."""
    async for _ in steps(request, job):
        pass
    return job.result.result()
