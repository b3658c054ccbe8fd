"""A request outlives the replica that had it: it goes to another, within bounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from medvill_jax.web.refusals import Refused

# Replicas that may die with one request. One more would be a request that kills replicas, not replicas that die.
TRIED = 3
log = logging.getLogger(__name__)
T = TypeVar("T")


async def answered(send: Callable[[], Awaitable[T]], died: type[Exception], seconds: float) -> T:
    """The answer of a replica; answering twice does no harm, as nothing is kept.

    Args:
        send: gives the request to a replica, once there is one.
        died: raised by `send` if the replica that had the request ended before it answered.
        seconds: for all replicas together.

    Raises:
        Refused: 503, `TRIED` replicas died with it, or no answer came in time.
    """
    try:
        async with asyncio.timeout(seconds):
            for number in range(1, TRIED + 1):
                try:
                    return await send()
                except died:
                    log.warning("replica %s of at most %s ended with a request that it had", number, TRIED)
    except TimeoutError:
        raise Refused(503, f"no replica has answered within {seconds:g} s: try again later") from None
    raise Refused(503, f"{TRIED} replicas ended while they had this request: it is not given to another")
