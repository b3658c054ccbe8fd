"""An answer that tells how much of it is done: JSON objects, one a line, of which the last is the answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from medvill_jax.errors import UserError
from medvill_jax.web.refusals import WRONG

MEDIA_TYPE = "application/x-ndjson"
Objects = AsyncGenerator[Mapping[str, Any], None]


def wanted(request: Request) -> bool:
    """Whether a client asks to be told."""
    return MEDIA_TYPE in request.headers.get("accept", "")


async def last(objects: Objects) -> Mapping[str, Any]:
    """The answer alone."""
    async with contextlib.aclosing(objects):
        return [one async for one in objects][-1]


class Lines(StreamingResponse):
    """Sends objects as they come. What is raised before the first one has a status of its own; later it is a line."""

    def __init__(self, objects: Objects):
        super().__init__((), media_type=MEDIA_TYPE)
        self._objects = objects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive  # the objects notice by themselves that the client has left

        async def line(one: Mapping[str, Any]) -> None:
            await send({"type": "http.response.body", "body": json.dumps(one).encode() + b"\n", "more_body": True})

        async with contextlib.aclosing(self._objects) as objects:
            first = await anext(objects)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await line(first)
            try:
                async for one in objects:
                    await line(one)
            except ClientDisconnect:
                return
            except UserError as error:
                await line({"error": " ".join(str(error).split())})
            except Exception:
                await line({"error": WRONG})
                await send({"type": "http.response.body", "body": b""})
                raise
            await send({"type": "http.response.body", "body": b""})
