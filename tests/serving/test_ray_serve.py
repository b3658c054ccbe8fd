"""`serve run` with two replicas of the demo's model, as a process of its own: what it answers, and what a kill costs.

MEDVILL_REQUIRE_RAY=1 makes it a failure that Ray Serve is not installed; without it these tests are skipped.
"""

import base64
import contextlib
import http.client
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import medvill_jax
from medvill_jax.web import demo, limits

ROOT = Path(__file__).parents[2]
RUN = (sys.executable, "-m", "ray.serve.scripts", "run", "--address=local")
REQUIRED = "MEDVILL_REQUIRE_RAY"
PATIENCE = 300  # seconds, on a busy machine that compiles
CLIENTS, REQUESTS = 24, 240
QUESTION = "Is there a pleural effusion?"
JSON = "application/json"
SECRET = "zebra"  # in requests, and so never in a log


@dataclass(frozen=True)
class Running:
    """Ray with the application, which answers."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def request(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, Any]:
        """Status and JSON of an answer."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def replicas(self) -> list[int]:
        """The processes of the replicas of the model."""
        parents: dict[int, int] = {}
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):  # it is no process, or none any more
                number = int(folder.name)
                parents[number] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica:default:Model"):
                    found.append(number)
        return [number for number in found if self.process.pid in _ancestors(number, parents)]

    def logs(self) -> str:
        """All that Ray and its processes have logged."""
        found = []
        for folder, _, names in os.walk(self.folder):
            for path in (Path(folder, name) for name in names):
                with contextlib.suppress(FileNotFoundError):  # Ray removes what it needs no more
                    if path.is_file():
                        found.append(path.read_text(errors="replace"))
        return "\n".join(found)


def _ancestors(number: int, parents: dict[int, int]) -> Iterator[int]:
    while number := parents.get(number, 0):
        yield number


def eventually(holds: Callable[[], Any], what: str) -> Any:
    """What `holds` returns once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def documented() -> dict[str, Any]:
    """The configuration file of docs/serving.md."""
    [block] = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "serving.md").read_text("utf-8"), re.M | re.S)
    return yaml.safe_load(block)


def environment() -> dict[str, str]:
    """Of a program with Ray: pytest's own warnings are errors, those of Ray's packages are theirs."""
    left = {name: value for name, value in os.environ.items() if name not in ("PYTHONWARNINGS", "RAY_ADDRESS")}
    return left | {"JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def ray() -> None:
    """These tests are skipped without Ray."""
    if find_spec("ray") is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"ray is not installed, but {REQUIRED} is set")
        pytest.skip("there is no Ray Serve: pip install 'medvill_jax[ray]'")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """Two replicas of the demo's model, on a Ray of their own."""
    # Names of sockets have at most 107 characters, which pytest's folders take up.
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = documented()
    [application] = config["applications"]
    assert application["args"]["replicas"] == 2
    config["http_options"]["port"] = port
    application["args"]["model"] = str(demo.EXPORT)
    [model] = [one for one in application["deployments"] if one["name"] == "Model"]
    model |= {"health_check_period_s": 1, "ray_actor_options": {"num_cpus": 0.1}}  # whatever the machine has
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    (folder / "token").write_text(secrets.token_hex(32))  # Ray would keep one in the home folder
    own = {"RAY_TMPDIR": str(folder), "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "RAY_DEDUP_LOGS": "0"}
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [*RUN, str(folder / "serve.yaml")], env=environment() | own, stdout=out, stderr=subprocess.STDOUT
        )
    started = Running(process, port, folder)
    try:
        eventually(lambda: _answers(started), "it does not answer")
        yield started
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            print((folder / "out").read_text(errors="replace"))  # which pytest shows if a test failed
        shutil.rmtree(folder, ignore_errors=True)  # Ray's last processes may still write


def _answers(server: Running) -> bool:
    assert server.process.poll() is None, (server.folder / "out").read_text()
    try:
        return server.request("GET", "/api/about")[0] == 200
    except (OSError, ValueError, http.client.HTTPException):  # not yet: its proxy answers in words of its own
        return False


@dataclass(frozen=True)
class Asked:
    """A request, and what is right in its answer."""

    path: str
    body: bytes
    kind: str
    right: Any

    def check(self, server: Running) -> None:
        status, answer = server.request("POST", self.path, self.body, self.kind)
        assert status == 200, answer
        if "findings" in answer:
            found = {row["name"]: row["probability"] for row in answer["findings"]}
            assert found == pytest.approx(self.right, abs=1e-4)
        else:
            assert answer.get("text", answer.get("answer")) == self.right


def with_film(film: bytes, **options: Any) -> bytes:
    return json.dumps({"film": base64.b64encode(film).decode(), **options}).encode()


@pytest.fixture(scope="module")
def questions() -> list[Asked]:
    """Every kind of question about every film of the demo, answered by `medvill_jax.load`."""
    model = medvill_jax.load(demo.EXPORT)
    films = [example.jpeg for example in demo.examples()]
    made = []
    for film in films:
        found = dict(model.findings(film).probabilities)
        made += [
            Asked("/api/predict/findings", film, "image/jpeg", found),
            Asked("/api/predict/findings", with_film(film), JSON, found),
            Asked("/api/predict/report", film, "", model.report(film).text),
            Asked("/api/predict/ask", with_film(film, question=QUESTION), JSON, model.ask(film, QUESTION).answer),
        ]
    assert len({str(asked.right) for asked in made if asked.kind == "image/jpeg"}) == len(films)
    return made


def test_a_film_is_answered_as_without_ray(server: Running, questions: list[Asked]) -> None:
    for asked in questions:
        asked.check(server)


@pytest.mark.parametrize(
    ("task", "body", "kind", "status", "words"),
    [
        ("findings", b"no film " + SECRET.encode(), "", 422, "not an image of a known format"),
        ("findings", b"", "", 422, "empty"),
        ("report", with_film(b"no film"), JSON, 422, "not an image of a known format"),
        ("ask", b"no film", "", 400, "ask needs question"),
        ("ask", with_film(b"no film"), JSON, 400, "ask needs question"),
        ("ask", with_film(b"no film", question="x" * 501), JSON, 400, "at most 500"),
        ("ask", b'{"question": "' + SECRET.encode(), JSON, 400, "not JSON"),
        ("report", b'{"film": "%"}', JSON, 400, "not in base64"),
        ("findings", with_film(b"no film", report=SECRET), JSON, 400, "leave report out"),
        ("explain", b"no film", "", 404, "no explain at once"),
    ],
)
def test_what_cannot_be_answered_has_one_clear_sentence(
    server: Running, task: str, body: bytes, kind: str, status: int, words: str
) -> None:
    got, answer = server.request("POST", f"/api/predict/{task}?{SECRET}", body, kind)
    assert (got, [*answer]) == (status, ["error"]), answer
    assert words in answer["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize(
    ("task", "size", "status", "words"),
    [
        ("report", limits.FILM_BYTES + 1, 413, b"at most 67,108,864 are taken"),
        ("explain", 1000, 404, b"no explain at once"),
        ("ask", 1000, 400, b"ask needs question"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_it_is_read(
    server: Running, task: str, size: int, status: int, words: bytes
) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.putrequest("POST", f"/api/predict/{task}")
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, words in response.read()) == (status, True)


def test_a_film_may_be_as_large_as_is_said(server: Running) -> None:
    status, answer = server.request("POST", "/api/predict/report", bytes(limits.FILM_BYTES))
    assert (status, [*answer]) == (422, ["error"])


def test_it_says_what_can_be_asked(server: Running) -> None:
    status, about = server.request("GET", "/api/about")
    assert (status, about["tasks"], about["needed"]) == (200, ["report", "findings", "ask"], {"ask": ["question"]})
    paths = server.request("GET", "/openapi.json")[1]["paths"]
    predicted = {f"/api/predict/{task}" for task in about["tasks"]}
    assert {*paths} == {"/api/about", "/openapi.json"} | predicted
    assert [*paths["/api/predict/ask"]["post"]["requestBody"]["content"]] == [JSON]


def test_a_replica_killed_under_load_loses_no_request(server: Running, questions: list[Asked]) -> None:
    """It is stopped first, so that requests are in it when it is killed."""
    before = eventually(lambda: len(found := server.replicas()) == 2 and found, "there are not two replicas")
    done, counted, killed = 0, threading.Condition(), threading.Event()

    def client(first: int) -> None:
        nonlocal done
        for number in itertools.count(first, CLIENTS):
            if killed.is_set() and number >= REQUESTS:
                return
            questions[number % len(questions)].check(server)
            with counted:
                done += 1
                counted.notify_all()

    def wait(requests: int) -> None:
        with counted:
            assert counted.wait_for(lambda: done >= requests, PATIENCE)

    with ThreadPoolExecutor(CLIENTS) as pool:
        jobs = [pool.submit(client, number) for number in range(CLIENTS)]
        try:
            wait(CLIENTS)
            os.kill(before[0], signal.SIGSTOP)
            wait(done + CLIENTS)  # the other one goes on
            with contextlib.suppress(ProcessLookupError):  # Ray may have ended it, as it no longer said that it lives
                os.kill(before[0], signal.SIGKILL)
        finally:
            killed.set()
        for job in jobs:
            job.result()
    assert done >= REQUESTS
    eventually(lambda: "ended with a request that it had" in server.logs(), "the replica had no request")
    after = eventually(lambda: len(found := server.replicas()) == 2 and before[0] not in found and found, "one is left")
    assert before[1] in after
    for asked in questions:
        asked.check(server)


def test_requests_wait_for_a_replica_if_all_are_killed(server: Running, questions: list[Asked]) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        before = eventually(lambda: len(found := server.replicas()) == 2 and found, "there are not two replicas")
        jobs = [pool.submit(asked.check, server) for asked in questions]
        for number in before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for job in jobs:
            job.result()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("model=/nowhere",), "there is no export folder /nowhere"),
        (("models=EXPORT", "replicas=none"), "model: Field required; replicas: Input should be a valid integer"),
    ],
    ids=["no export", "wrong arguments"],
)
def test_a_wrong_argument_is_one_line_before_ray_starts(arguments: tuple[str, ...], words: str) -> None:
    command = [*RUN, "medvill_jax.serving.ray_serve:app", *arguments]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 1
    said = [line for line in ended.stderr.splitlines() if "INFO" not in line]
    assert len(said) == 1, ended.stderr
    assert said[0].startswith(f"Error: {words}")


def test_nothing_of_a_request_is_logged_or_sent(server: Running, questions: list[Asked]) -> None:
    logged = server.logs()
    assert "Finished initializing replica" in logged
    for words in (SECRET, QUESTION, *(asked.right for asked in questions if asked.path.endswith("report"))):
        assert words not in logged
    assert "RAY_USAGE_STATS_ENABLED=0" in _environment(server.replicas()[0])


def _environment(process: int) -> list[str]:
    return Path(f"/proc/{process}/environ").read_text().split("\0")
