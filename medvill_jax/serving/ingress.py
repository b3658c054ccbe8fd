"""The addresses that programs ask; every film goes to a replica, and to another one if that dies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from medvill_jax.web import arriving, asked, limits
from medvill_jax.web.arriving import Door
from medvill_jax.web.guard import Guard
from medvill_jax.web.refusals import EXPECTED, refusal

# Calls a method of a replica by its name.
Call = Callable[..., Awaitable[Any]]


def app(ask: Call, needed: Mapping[str, Sequence[str]]) -> Guard:
    """The ASGI application; `needed` are the options that a task does not go without."""
    door = Door(limits.REQUESTS, limits.BYTES_TOGETHER)

    async def predict(request: Request) -> Response:
        """An answer about a film that is sent along, of which nothing is kept."""
        task, kind, size = asked.announced(request, needed)
        with door.entered(size):
            return await ask("predict", task, kind, await arriving.body(request))

    async def about(request: Request) -> Response:
        """What can be asked here."""
        return JSONResponse(await ask("about"))

    async def document(request: Request) -> Response:
        """The OpenAPI document."""
        return JSONResponse(await ask("document"))

    async def failed(request: Request, error: Exception) -> Response:
        return refusal(error)

    routes = [
        Route("/api/predict/{task}", predict, methods=["POST"]),
        Route("/api/about", about),
        Route("/openapi.json", document),
    ]
    # It keeps nothing that a page of another site could read here, so requests may call it by any name.
    return Guard(Starlette(routes=routes, exception_handlers=dict.fromkeys(EXPECTED, failed)), None, _uncounted)


def _uncounted(name: str, status: int, seconds: float) -> None:
    """The engine counts."""
