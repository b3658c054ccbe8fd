"""Starts and ends the server."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Callable, Collection, Iterator, Sequence

import uvicorn

from medvill_jax.app.model import Model
from medvill_jax.app.similar import Index
from medvill_jax.errors import ConfigError
from medvill_jax.web import limits, routes
from medvill_jax.web.guard import LOOPBACK, Guard
from medvill_jax.web.meters import Meters
from medvill_jax.web.routes import Example, Server
from medvill_jax.web.service import Service
from medvill_jax.web.worker import Worker


def bound(host: str, port: int) -> socket.socket:
    """A socket that holds an address; nobody can connect to it before the server runs.

    Raises:
        ConfigError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise ConfigError(f"--host={host}: there is no such address") from None
    held = socket.socket(family, kind, protocol)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(place)
    except (OSError, OverflowError) as error:
        held.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise ConfigError(f"--port={port} is in use: end the other program, or choose another port") from None
        raise ConfigError(f"cannot listen at {host}, port {port}: {getattr(error, 'strerror', error)}") from None
    return held


def hosts_of(host: str) -> Collection[str] | None:
    """The names that a request may call this server by; None for any, once it is open to other machines."""
    return LOOPBACK if host in ("localhost", "127.0.0.1", "::1") else None


def serve(
    held: socket.socket,
    models: Sequence[Model],
    *,
    host: str,
    index: Index | None = None,
    examples: Sequence[Example] = (),
    ready: Callable[[str], None],
) -> None:
    """Answers until SIGTERM or Ctrl-C; then what has been asked is answered first.

    Args:
        held: as `bound` gives it.
        models, index: as for `Service`.
        host: that was asked for.
        examples: films that the page offers.
        ready: called with the address once it answers.
    """
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # it logs what it finds odd about a film
    meters = Meters()
    service = Service(models, index, meters.batch)
    service.warm()
    worker = Worker(service.compute, most_waiting=limits.REQUESTS, most_together=limits.TOGETHER)
    server = Server(service, worker, meters, examples)
    guarded = Guard(routes.app(server), hosts_of(host), meters.request)
    config = uvicorn.Config(
        guarded,
        access_log=False,
        log_level="warning",
        server_header=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=limits.DRAIN,
        h11_max_incomplete_event_size=limits.TEXT_BYTES,
    )
    place, port = held.getsockname()[:2]
    address = f"http://{f'[{place}]' if ':' in place else place}:{port}"
    try:
        with _quiet_end():
            _Listening(config, lambda: ready(address)).run([held])
    finally:
        worker.close()
        server.readers.shutdown()


class _Listening(uvicorn.Server):
    """Calls `ready` once connections are taken."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]):
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


@contextlib.contextmanager
def _quiet_end() -> Iterator[None]:
    """A block after whose server the program goes on: uvicorn raises the signal that ended it once more."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
