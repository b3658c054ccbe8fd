"""The addresses of the server: the page, films and questions about them, health, counters, the OpenAPI document."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from medvill_jax.errors import ConfigError, MissingExtra, UserError
from medvill_jax.films.limits import ImageError
from medvill_jax.version import VERSION
from medvill_jax.web import arriving, glossary, limits, lines, openapi
from medvill_jax.web.arriving import Door, Refused
from medvill_jax.web.meters import Meters
from medvill_jax.web.service import EXPLAIN, Service
from medvill_jax.web.shelf import Shelf, Upload
from medvill_jax.web.worker import Busy

PAGE = {
    "/": "index.html",
    "/app.js": "app.js",
    "/film.js": "film.js",
    "/style.css": "style.css",
    "/icon.svg": "icon.svg",
}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
NOTICE = "Research use only, not a medical device."
# Threads that decode films: each may need memory for `films.limits.MAX_PIXELS`.
_READERS = 2


@dataclass(frozen=True)
class Example:
    """A film that comes with the server: the JPEG, and what was drawn in it, in words."""

    jpeg: bytes
    text: str


@dataclass
class Server:
    """What the endpoints share; they run in the thread of the event loop."""

    service: Service
    meters: Meters
    examples: Sequence[Example] = ()
    shelf: Shelf = field(default_factory=lambda: Shelf(limits.FILMS_KEPT, limits.KEPT_FOR))
    door: Door = field(default_factory=lambda: Door(limits.REQUESTS, limits.BYTES_TOGETHER))
    readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_READERS, "reads"))

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
        service = self.service
        models = [
            {"name": model.export.stage, "weights": model.weights, "image_size": model.config.image_size}
            for model in service.models
        ]
        return JSONResponse(
            {
                "notice": NOTICE,
                "version": VERSION,
                "models": models,
                "tasks": list(service.by_task),
                "examples": [example.text for example in self.examples],
                "film_bytes": limits.FILM_BYTES,
                "needed": service.needed,
                "question_length": limits.QUESTION_LENGTH,
                "report_length": limits.REPORT_LENGTH,
                "maps": glossary.MAPS,
            }
        )

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
            question = self.service.question(task, _options(task, await arriving.body(request), self._needed(task)))
            if (answer := upload.answers.get(question)) is None:
                job = self.service.worker.submit(question, upload.films[question.model], slow=task == EXPLAIN)
                async with contextlib.aclosing(arriving.steps(request, job)) as steps:
                    async for done, of in steps:
                        yield {"done": done, "of": of}
                answer = upload.answers[question] = job.result.result()
                while len(upload.answers) > limits.ANSWERS_KEPT:
                    upload.answers.popitem(last=False)
            yield answer

    async def predict(self, request: Request) -> Response:
        """An answer about a film that is sent along, of which nothing is kept."""
        task = request.path_params["task"]
        if task not in openapi.AT_ONCE:
            raise Refused(404, f"no {task} at once; there are {', '.join(openapi.AT_ONCE)}")
        if needed := self._needed(task):
            raise Refused(400, f"{task} needs {', '.join(needed)}: send the film to /api/films, and then ask about it")
        size = arriving.size_of(request, limits.FILM_BYTES, "the film")
        question = self.service.question(task, {})
        with self.door.entered(size):
            data = await arriving.body(request)
            film = await self._in_reader(self.service.models[question.model].read, data)
            del data  # it need not wait in the queue
            job = self.service.worker.submit(question, film, slow=task == EXPLAIN)
            return JSONResponse(await arriving.result(request, job))

    async def health(self, request: Request) -> Response:
        """Whether questions are answered."""
        alive = self.service.worker.alive
        return JSONResponse({"status": "ok" if alive else "the thread that computes has ended"}, 200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        """Counters for Prometheus."""
        self.meters.waiting.set(self.service.worker.waiting)
        self.meters.kept.set(len(self.shelf))
        return Response(self.meters.text(), media_type="text/plain; version=0.0.4")

    async def document(self, request: Request) -> Response:
        """The OpenAPI document."""
        return JSONResponse(openapi.document(list(self.service.by_task), self.service.needed))

    def _needed(self, task: str) -> Sequence[str]:
        return self.service.needed.get(task, ())

    def _kept(self, request: Request) -> Upload:
        if (upload := self.shelf.get(request.path_params["film"])) is None:
            raise Refused(404, "this film is not kept any more: open it again")
        return upload

    def _in_reader(self, function: Callable[..., Any], *given: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self.readers, function, *given)


def _options(task: str, body: bytes, needed: Sequence[str]) -> dict[str, Any]:
    try:
        options = json.loads(body or b"{}")
    except ValueError:
        raise Refused(400, "the question is not JSON") from None
    if not isinstance(options, dict):
        raise Refused(400, "the question is no JSON object")
    return _checked(task, options, needed)


def _checked(task: str, options: Mapping[str, Any], needed: Sequence[str]) -> dict[str, Any]:
    """Options of a task that the page has. Raises `Refused`."""
    known = openapi.OPTIONS.get(task)
    if known is None:
        raise Refused(404, f"there is no task {task}; there are {', '.join(openapi.OPTIONS)}")
    if unknown := options.keys() - known.keys():
        raise Refused(400, f"{task} has no {', '.join(sorted(unknown))}")
    if missing := [name for name in needed if name not in options]:
        raise Refused(400, f"{task} needs {', '.join(missing)}")
    for name, value in options.items():
        if not isinstance(value, known[name]) or isinstance(value, bool):
            raise Refused(400, f"{name} is of a wrong type")
        if name not in openapi.LENGTHS:
            continue
        if not value.strip():
            raise Refused(400, f"the {name} is empty: write it, and ask again")
        if len(value) > (most := openapi.LENGTHS[name]):
            raise Refused(400, f"the {name} has {len(value):,} characters; at most {most:,} are taken")
    return dict(options)


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = (resources.files("medvill_jax.web") / "static" / name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    async def page(request: Request) -> Response:
        return Response(content, media_type=kind)

    return page


def _failed(error: Exception) -> Response:
    """One clear message, whatever it is."""
    headers = {}
    match error:
        case Refused():
            status = error.status
        case HTTPException():
            status, headers = error.status_code, dict(error.headers or {})
            error = Exception(error.detail)
        case Busy():
            status, headers = 503, {"Retry-After": str(error.seconds)}
        case ImageError():
            status = 422
        case ConfigError():
            status = 400
        case MissingExtra():
            status = 501
        case ClientDisconnect():
            status = 499  # nobody reads it; the number is nginx's
        case _:
            status = 500
    return JSONResponse({"error": " ".join(str(error).split())}, status, headers)


def app(server: Server) -> Starlette:
    """The application of a server."""
    kinds: tuple[type[Exception], ...] = (Refused, HTTPException, Busy, UserError, ClientDisconnect)

    async def failed(request: Request, error: Exception) -> Response:
        if isinstance(error, Busy):
            server.meters.refused.inc()
        return _failed(error)

    return Starlette(routes=server.routes(), exception_handlers=dict.fromkeys(kinds, failed))
