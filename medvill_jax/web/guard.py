"""Around every request: who may ask, what a browser may do with an answer, one line for an error, and counting."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medvill_jax.web.refusals import wrong

# Everything comes from this server, and nothing may frame the page or be sent elsewhere.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Guard:
    """ASGI middleware.

    Args:
        app: that answers.
        hosts: names that the Host header may have; None for any. A page of another site whose name is made to point to
            this machine (DNS rebinding) sends its own.
        count: called with the name of the endpoint, the status and the seconds of every request.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, count: Callable[[str, int, float], None]):
        self._app, self._hosts, self._count = app, hosts, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            await (self._refusal(scope) or self._app)(scope, receive, sending)
        except Exception as error:
            told = wrong(error)
            if not status:
                await told(scope, receive, sending)
        finally:
            name = getattr(scope.get("endpoint"), "__name__", "none")
            self._count(name, status, time.monotonic() - started)
        return None

    def _refusal(self, scope: Scope) -> Any:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if self._hosts is not None and _name(host) not in self._hosts:
            return JSONResponse({"error": f"this page is for {' and '.join(self._hosts)} alone"}, 421)
        # Browsers say so of every request; other programs do not, and need not be held.
        if scope["method"] not in ("GET", "HEAD") and headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return JSONResponse({"error": "pages of other sites may not ask here"}, 403)
        return None


def _name(host: str) -> str:
    """A Host header without its port."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
