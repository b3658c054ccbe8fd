"""The addresses of the server: the page, films and questions about them, health, counters, the OpenAPI document."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from medvill_jax.web import arriving, asked, glossary, limits, lines, openapi
from medvill_jax.web.arriving import Door
from medvill_jax.web.meters import Meters
from medvill_jax.web.refusals import EXPECTED, Refused, refusal
from medvill_jax.web.service import EXPLAIN, Service
from medvill_jax.web.shelf import Shelf, Upload
from medvill_jax.web.worker import Busy, Worker

PAGE = {
    "/": "index.html",
    "/app.js": "app.js",
    "/film.js": "film.js",
    "/style.css": "style.css",
    "/icon.svg": "icon.svg",
}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
# Threads that decode films: each may need memory for `films.limits.MAX_PIXELS`.
READERS = 2


@dataclass(frozen=True)
class Example:
    """A film that comes with the server: the JPEG, and what was drawn in it, in words."""

    jpeg: bytes
    text: str


@dataclass
class Server:
    """What the endpoints share; they run in the thread of the event loop."""

    service: Service
    worker: Worker
    meters: Meters
    examples: Sequence[Example] = ()
    shelf: Shelf = field(default_factory=lambda: Shelf(limits.FILMS_KEPT, limits.KEPT_FOR))
    door: Door = field(default_factory=lambda: Door(limits.REQUESTS, limits.BYTES_TOGETHER))
    readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(READERS, "reads"))

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            *(Route(path, _file(name)) for path, name in PAGE.items()),
            Route("/api/about", self.about),
            Route("/api/examples/{number:int}", self.example),
            Route("/api/films", self.upload, methods=["POST"]),
            Route("/api/films/{film}", self.forget, methods=["DELETE"]),
            Route("/api/films/{film}/picture", self.picture),
            Route("/api/films/{film}/{task}", self.ask, methods=["POST"]),
            Route("/api/predict/{task}", self.predict, methods=["POST"]),
            Route("/healthz", self.health),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.document),
        ]

    async def about(self, request: Request) -> Response:
        """What can be asked here."""
        own = {"examples": [example.text for example in self.examples], "maps": glossary.MAPS}
        return JSONResponse(self.service.about() | own)

    async def example(self, request: Request) -> Response:
        """A film that comes with the server."""
        number = request.path_params["number"]
        if number >= len(self.examples):
            raise Refused(404, "there is no such example")
        return Response(self.examples[number].jpeg, media_type="image/jpeg")

    async def upload(self, request: Request) -> Response:
        """Keeps a film in memory."""
        size = arriving.size_of(request, limits.FILM_BYTES, "the film")
        with self.door.entered(size):
            data = await arriving.body(request)
            picture, films = await self._in_reader(self.service.read, data)
        warnings = list(dict.fromkeys(words for film in films.values() for words in film.warnings))
        return JSONResponse({"film": self.shelf.put(Upload(picture, films)), "warnings": warnings}, 201)

    async def forget(self, request: Request) -> Response:
        """Drops a film."""
        self.shelf.forget(request.path_params["film"])
        return Response(status_code=204)

    async def picture(self, request: Request) -> Response:
        """The film as the page shows it."""
        return Response(self._kept(request).picture, media_type="image/png")

    async def ask(self, request: Request) -> Response:
        """An answer about a film that is kept, as one object or as `lines`; the same question is computed once."""
        upload = self._kept(request)
        arriving.size_of(request, limits.TEXT_BYTES, "the question")
        told = self._told(request, upload)
        return lines.Lines(told) if lines.wanted(request) else JSONResponse(await lines.last(told))

    async def _told(self, request: Request, upload: Upload) -> lines.Objects:
        """How much of an answer is done, and then the answer."""
        task = request.path_params["task"]
        with self.door.entered(0):
            options = asked.options(task, await arriving.body(request), self.service.needed.get(task, ()))
            question = self.service.question(task, options)
            if (answer := upload.answers.get(question)) is None:
                job = self.worker.submit(question, upload.films[question.model], slow=task == EXPLAIN)
                async with contextlib.aclosing(arriving.steps(request, job)) as steps:
                    async for done, of in steps:
                        yield {"done": done, "of": of}
                answer = upload.answers[question] = job.result.result()
                while len(upload.answers) > limits.ANSWERS_KEPT:
                    upload.answers.popitem(last=False)
            yield answer

    async def predict(self, request: Request) -> Response:
        """An answer about a film that is sent along, of which nothing is kept."""
        task, kind, size = asked.announced(request, self.service.needed)
        with self.door.entered(size):
            data = await arriving.body(request)
            question, film = await self._in_reader(self.service.at_once, task, kind, data)
            del data  # it need not wait in the queue
            return JSONResponse(await arriving.result(request, self.worker.submit(question, film)))

    async def health(self, request: Request) -> Response:
        """Whether questions are answered."""
        alive = self.worker.alive
        return JSONResponse({"status": "ok" if alive else "the thread that computes has ended"}, 200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        """Counters for Prometheus."""
        self.meters.waiting.set(self.worker.waiting)
        self.meters.kept.set(len(self.shelf))
        return Response(self.meters.text(), media_type="text/plain; version=0.0.4")

    async def document(self, request: Request) -> Response:
        """The OpenAPI document."""
        return JSONResponse(openapi.document(list(self.service.by_task), self.service.needed))

    def _kept(self, request: Request) -> Upload:
        if (upload := self.shelf.get(request.path_params["film"])) is None:
            raise Refused(404, "this film is not kept any more: open it again")
        return upload

    def _in_reader(self, function: Callable[..., Any], *given: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self.readers, function, *given)


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = (resources.files("medvill_jax.web") / "static" / name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    async def page(request: Request) -> Response:
        return Response(content, media_type=kind)

    return page


def app(server: Server) -> Starlette:
    """The application of a server."""

    async def failed(request: Request, error: Exception) -> Response:
        if isinstance(error, Busy):
            server.meters.refused.inc()
        return refusal(error)

    return Starlette(routes=server.routes(), exception_handlers=dict.fromkeys(EXPECTED, failed))
