"""What requests with a film may take of memory, and what of them is refused before it is read."""

import asyncio
import base64
import json
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from medvill_jax.serving import ingress
from medvill_jax.web import limits, routes
from medvill_jax.web.asked import IN_JSON, JSON, with_film
from medvill_jax.web.meters import Meters
from medvill_jax.web.refusals import Refused
from tests import coroutines

MIB = 1 << 20
NEEDED = {"ask": ("question",)}


async def no_replica(method: str, *given: Any) -> None:
    raise AssertionError(method)


APPS: dict[str, Callable[[], Any]] = {
    "page": lambda: routes.app(routes.Server(SimpleNamespace(needed=NEEDED), None, Meters())),  # pyright: ignore
    "ingress": lambda: ingress.app(no_replica, NEEDED),
}


@pytest.fixture(params=[*APPS])
def app(request: pytest.FixtureRequest) -> Any:
    """Who takes requests with films."""
    return APPS[request.param]()


@pytest.fixture
def traced() -> Iterator[None]:
    """Memory is counted."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def answer(app: Any, task: str, kind: str, size: int, receive: Callable[[], Awaitable[Any]]) -> tuple[int, str]:
    """Status and words of a refusal; `receive` gives the request."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    path = f"/api/predict/{task}"
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % size), (b"host", b"localhost")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]


async def never() -> Any:
    raise AssertionError("it is read")


@pytest.mark.parametrize(
    ("task", "kind", "size", "status", "words"),
    [
        ("similar", "", 1000, 404, "no similar at once; there are report, findings, ask"),
        ("diagnose", JSON, 1000, 404, "no diagnose at once"),
        ("ask", "image/png", 1000, 400, 'ask needs question: send {"film": ..., "question": ...} as application/json'),
        ("report", "", limits.FILM_BYTES + 1, 413, "the film has 67,108,865 bytes; at most 67,108,864"),
        (
            "ask",
            JSON,
            limits.FILM_JSON_BYTES + 1,
            413,
            "the JSON with the film has 89,511,257 bytes; at most 89,511,256",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_before_it_is_read(
    app: Any, task: str, kind: str, size: int, status: int, words: str
) -> None:
    got, said = coroutines.run(answer(app, task, kind, size, never))
    assert (got, words in said) == (status, True), said


def test_a_film_in_json_counts_with_the_memory_that_it_takes(app: Any) -> None:
    """As many are let in as have room, and one more is refused while those arrive."""
    size = limits.BYTES_TOGETHER // IN_JSON // 2
    left = {"type": "http.disconnect"}

    async def ask() -> list[tuple[int, str]]:
        arriving, end = asyncio.Semaphore(0), asyncio.Event()

        async def receive() -> Any:
            arriving.release()
            await end.wait()
            return left

        held = [asyncio.ensure_future(answer(app, "report", JSON, size, receive)) for _ in range(2)]
        for _ in held:
            await arriving.acquire()
        refused = await answer(app, "report", JSON, size, never)
        end.set()
        return [refused, *await asyncio.gather(*held)]

    assert [status for status, _ in coroutines.run(ask())] == [503, 499, 499]


@pytest.mark.parametrize("film", [b"{},", b"[],", b'{"a":', b"[", b"0,"])
@pytest.mark.usefixtures("traced")
def test_what_is_no_film_with_options_is_refused_before_it_takes_memory(film: bytes) -> None:
    body = b'{"film":[' + film * (MIB // len(film)) + b"0]}"
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    with pytest.raises(Refused, match="too many lists, objects or commas"):
        with_film("report", JSON, body, ())
    assert tracemalloc.get_traced_memory()[1] - before < MIB // 8


@pytest.mark.usefixtures("traced")
def test_a_film_in_json_takes_no_more_memory_than_the_door_counts() -> None:
    body = json.dumps({"film": base64.b64encode(bytes(3 * MIB)).decode(), "question": "Is it?"}).encode()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0] - len(body)
    film, options = with_film("ask", JSON, body, ("question",))
    assert (len(film), options) == (3 * MIB, {"question": "Is it?"})
    assert tracemalloc.get_traced_memory()[1] - before < 1.01 * IN_JSON * len(body)


def test_the_longest_report_and_escaped_slashes_are_taken() -> None:
    film, report = b"\xff" * MIB, "[{,]}" * (limits.REPORT_LENGTH // 5)
    body = json.dumps({"film": base64.b64encode(film).decode(), "report": report}).replace("/", "\\/").encode()
    assert body.count(b"\\/") > limits.TEXT_BYTES
    assert with_film("findings", JSON, body, ()) == (film, {"report": report})
