"""The server as a process of its own: what it refuses, how it is loaded, and how it ends."""

import base64
import contextlib
import http.client
import json
import re
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medvill_jax.web import limits, routes
from tests.console.broken import write_broken
from tests.web.serving import DEMO, WAIT, Answer, Running, running


def test_files_that_are_no_film_have_one_clear_message(server: Running, tmp_path: Path) -> None:
    names = write_broken(tmp_path)
    for name in names:
        if (path := tmp_path / name).is_symlink():
            continue
        for address in ("/api/films", "/api/predict/findings"):
            answer = server.request("POST", address, path.read_bytes())
            assert answer.status == 422, name
            [(key, message)] = answer.json().items()
            assert key == "error"
            assert message
            assert "\n" not in message
            assert name not in message
    assert server.request("GET", "/healthz").json() == {"status": "ok"}


def test_what_cannot_be_answered_is_refused_before_it_is_read(server: Running) -> None:
    large = limits.FILM_BYTES + 1, 413, b"at most 67,108,864 are taken"
    for path, size, status, words in (
        ("/api/films", *large),
        ("/api/predict/report", *large),
        ("/api/predict/similar", 1000, 404, b"no similar at once"),
        ("/api/predict/ask", 1000, 400, b"ask needs question"),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, words in response.read()) == (status, True)
        connection.close()


def test_a_request_must_say_how_long_it_is(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(
        "POST", "/api/films", iter([b"abc"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    assert connection.getresponse().status == 411
    connection.close()


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("nobody/report", {}, 404, "not kept any more"),
        ("FILM/diagnose", {}, 404, "there are report, findings, ask, similar, explain"),
        ("FILM/ask", {}, 400, "ask needs question"),
        ("FILM/ask", {"question": 3}, 400, "wrong type"),
        ("FILM/ask", {"question": "  ?! "}, 400, "question"),
        ("FILM/ask", {"question": "x" * 501}, 400, "at most 500"),
        ("FILM/ask", b"{", 400, "not JSON"),
        ("FILM/ask", b"[]", 400, "no JSON object"),
        ("FILM/ask", {"question": "Is it?", "beam": 3}, 400, "has no beam"),
        ("FILM/explain", {}, 400, "name one of"),
        ("FILM/explain", {"finding": "Gout"}, 400, "knows no finding 'Gout'"),
        ("FILM/explain", {"word": True, "report": "No edema."}, 400, "wrong type"),
        ("FILM/explain", {"word": 99, "report": "No edema."}, 400, "has 2 words"),
        ("FILM/report", b"x" * (limits.TEXT_BYTES + 1), 413, "the question has"),
    ],
)
def test_questions_that_do_not_fit_say_what_does(
    server: Running, films: list[bytes], path: str, body: object, status: int, words: str
) -> None:
    answer = server.request("POST", f"/api/films/{path.replace('FILM', server.open(films[0]))}", body)
    assert (answer.status, words in answer.json()["error"]) == (status, True), answer.body


def at_once_with(server: Running, task: str, film: bytes, **options: object) -> Answer:
    """What is asked with a film in the same JSON."""
    body = {"film": base64.b64encode(film).decode(), **options}
    return server.request("POST", f"/api/predict/{task}", body, Content_Type="application/json; charset=utf-8")


def test_a_film_and_a_question_may_come_together(server: Running, films: list[bytes]) -> None:
    question = {"question": "Is there a pleural effusion?"}
    for film in films[:3]:
        kept = server.request("POST", f"/api/films/{server.open(film)}/ask", question)
        assert (kept.status, at_once_with(server, "ask", film, **question).body) == (200, kept.body)
    alone = server.request("POST", "/api/predict/findings", films[0])
    assert at_once_with(server, "findings", films[0]).body == alone.body


@pytest.mark.parametrize(
    ("task", "body", "status", "words"),
    [
        ("ask", "{", 400, "not JSON"),
        ("ask", "[" * 100_000, 400, "too many lists"),
        ("ask", "[" * 30_000, 400, "not JSON"),
        ("ask", "7", 400, "no JSON object"),
        ("ask", "{}", 400, 'ask needs question: send {"film": ..., "question": ...}'),
        ("ask", '{"question": "Is it?"}', 400, "there is no film"),
        ("report", '{"film": 7}', 400, "not in base64"),
        ("report", '{"film": "a-b_"}', 400, "not in base64"),
        ("report", '{"film": "abc"}', 400, "not in base64"),
        ("ask", '{"film": "AAAA", "question": " "}', 400, "the question is empty"),
        ("ask", '{"film": "AAAA", "question": "Is it?"}', 422, "not an image"),
        ("report", '{"film": "AAAA", "beam_size": 3}', 400, "report has no beam_size"),
        ("findings", '{"film": ""}', 422, "empty"),
        ("similar", '{"film": "AAAA"}', 404, "there are report, findings, ask"),
    ],
    ids=range(14),
)
def test_a_film_in_json_that_does_not_fit_says_what_does(
    server: Running, task: str, body: str, status: int, words: str
) -> None:
    answer = server.request("POST", f"/api/predict/{task}", body.encode(), Content_Type="application/json")
    assert (answer.status, words in answer.json()["error"]) == (status, True), answer.body


def test_a_film_in_json_may_be_as_large_as_one_without(server: Running) -> None:
    for size, status in ((limits.FILM_BYTES, 422), (limits.FILM_BYTES + 1, 413)):
        assert at_once_with(server, "report", bytes(size)).status == status


def test_a_film_is_forgotten_when_asked(server: Running, films: list[bytes]) -> None:
    name = server.open(films[0])
    assert server.request("GET", f"/api/films/{name}/picture").body.startswith(b"\x89PNG")
    assert server.request("DELETE", f"/api/films/{name}").status == 204
    assert server.request("POST", f"/api/films/{name}/report").status == 404


def test_a_map_tells_how_much_of_it_is_done(server: Running, films: list[bytes]) -> None:
    path = f"/api/films/{server.open(films[1])}/explain"
    answer = server.request("POST", path, {"finding": "Edema"}, Accept="application/x-ndjson")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    *steps, given = [json.loads(line) for line in answer.body.splitlines()]
    assert steps
    assert {step["of"] for step in steps} == {10}  # of 32 predictions each
    assert [step["done"] for step in steps] == sorted({step["done"] for step in steps})
    assert given == server.request("POST", path, {"finding": "Edema"}).json()
    at_once = server.request("POST", path, {"finding": "Edema"}, Accept="application/x-ndjson")
    assert json.loads(at_once.body) == given
    document = server.request("GET", "/openapi.json").json()
    explained = document["paths"]["/api/films/{film}/explain"]["post"]["responses"]["200"]["content"]
    assert {*explained} == {"application/json", "application/x-ndjson"}
    refused = server.request("POST", path, {"finding": "Gout"}, Accept="application/x-ndjson")
    assert (refused.status, "Gout" in refused.json()["error"]) == (400, True)


def test_a_map_that_nobody_waits_for_is_not_made(server: Running, films: list[bytes]) -> None:
    def maps() -> float:
        text = server.request("GET", "/metrics").body.decode()
        return float(re.findall(r'^medvill_batch_films_count\{task="explain"\} (\S+)$', text, re.MULTILINE)[0])

    path = f"/api/films/{server.open(films[2])}/explain"
    assert server.request("POST", path, {"finding": "Edema"}).status == 200
    before, left = maps(), []
    for finding in (
        "Atelectasis", "Cardiomegaly", "Consolidation", "Fracture", "Lung Opacity", "Pleural Effusion", "Pleural Other",
        "Pneumonia", "Pneumothorax", "Support Devices",
    ):  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        body = json.dumps({"finding": finding}).encode()
        connection.request("POST", path, body, {"Accept": "application/x-ndjson"})
        left.append(connection)
    time.sleep(0.2)
    for connection in left:
        connection.close()
    time.sleep(2)
    assert server.request("POST", path, {"finding": "Lung Lesion"}).status == 200
    assert maps() <= before + 5  # on a fast machine some were at their end


def test_a_model_that_reads_reports_is_given_one(reader: Running, films: list[bytes]) -> None:
    assert reader.request("GET", "/api/about").json()["needed"]["findings"] == ["report"]
    path = f"/api/films/{reader.open(films[0])}/findings"
    found = {
        report: reader.request("POST", path, {"report": report}).json()
        for report in ("No acute findings.", "Large left pleural effusion. The heart is large.")
    }
    first, second = ([row["probability"] for row in answer["findings"]] for answer in found.values())
    assert first != second, "the report is not read"
    assert "has read the report" in found["No acute findings."]["means"][0]
    for body, words in (
        ({}, "findings needs report"),
        ({"report": ""}, "the report is empty"),
        ({"report": " \n "}, "the report is empty"),
        ({"report": "?!"}, "the report has no word"),
        ({"report": "x" * 5001}, "the report has 5,001 characters; at most 5,000 are taken"),
        ({"report": ["No edema."]}, "wrong type"),
    ):
        answer = reader.request("POST", path, body)
        assert (answer.status, words in answer.json()["error"]) == (400, True), answer.body
    at_once = reader.request("POST", "/api/predict/findings", films[0])
    assert (at_once.status, 'send {"film": ..., "report": ...}' in at_once.json()["error"]) == (400, True)
    for report, answer in found.items():
        assert at_once_with(reader, "findings", films[0], report=report).json()["findings"] == answer["findings"]
    paths = reader.request("GET", "/openapi.json").json()["paths"]
    for path, required in (("/api/films/{film}/findings", ["report"]), ("/api/predict/findings", ["film", "report"])):
        content = paths[path]["post"]["requestBody"]["content"]
        assert [*content] == ["application/json"]
        assert content["application/json"]["schema"]["required"] == required


def test_a_report_is_refused_where_none_is_read(server: Running, films: list[bytes]) -> None:
    answer = server.request("POST", f"/api/films/{server.open(films[0])}/findings", {"report": "No edema."})
    assert (answer.status, "leave report out" in answer.json()["error"]) == (400, True)


def test_other_sites_are_kept_out(server: Running) -> None:
    for host in ("evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        assert server.request("GET", "/", Host=host).status == 421, host
    for host in ("localhost", f"127.0.0.1:{server.port}", "[::1]:80", "LOCALHOST:7860"):
        assert server.request("GET", "/", Host=host).status == 200, host
    assert server.request("POST", "/api/films", b"x", Sec_Fetch_Site="cross-site").status == 403
    assert server.request("POST", "/api/films", b"x", Sec_Fetch_Site="same-origin").status == 422


def test_answers_forbid_what_the_page_does_not_need(server: Running) -> None:
    for path in ("/", "/app.js", "/healthz", "/nothing"):
        headers = server.request("GET", path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
        assert headers["cache-control"] == "no-store"


def test_the_document_has_every_address(server: Running) -> None:
    document = server.request("GET", "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    served = {
        (method.lower(), route.path.replace(":int", ""))
        for route in routes.Server(None, None, None).routes()  # pyright: ignore
        for method in (route.methods or set()) - {"HEAD"}
        if route.path not in routes.PAGE
    }
    tasks = ["report", "findings", "ask", "explain"]
    told = {(method, path) for path, methods in document["paths"].items() for method in methods}
    spread = {(m, p.replace("{task}", task)) for m, p in served for task in tasks}
    assert told == spread - {("post", "/api/predict/explain")}
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert max(Counter(names).values()) == 1


def test_counters_are_those_of_prometheus(server: Running, films: list[bytes]) -> None:
    def value(name: str) -> float:
        text = server.request("GET", "/metrics").body.decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    name = 'medvill_requests_total{endpoint="predict",status="200"}'
    before = value(name)
    server.request("POST", "/api/predict/findings", films[0])
    assert value(name) == before + 1
    assert value("process_resident_memory_bytes") > 1 << 20
    assert value('medvill_batch_films_count{task="findings"}') >= 1


def test_too_many_requests_are_refused_and_told_when_to_come_back(server: Running, films: list[bytes]) -> None:
    held = []
    for _ in range(limits.REQUESTS):  # each has begun, and takes its time
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(b"POST /api/films HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx")
        held.append(connection)
    deadline = time.monotonic() + 60
    while (answer := server.request("POST", "/api/predict/findings", films[0])).status == 200:
        assert time.monotonic() < deadline
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "try again" in answer.json()["error"]
    assert server.request("GET", "/healthz").status == 200
    for connection in held:
        connection.close()
    while server.request("POST", "/api/predict/findings", films[0]).status == 503:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_fifty_requests_at_once_lose_nothing(server: Running, films: list[bytes]) -> None:
    """Each has the answer for its own film, whichever batch it was in."""
    tasks = ("findings", "report")
    alone = {(n, task): ask(server, films[n], task) for n in range(len(films)) for task in tasks}
    jobs = [(n % len(films), tasks[n % 3 == 0]) for n in range(50)]
    with ThreadPoolExecutor(50) as pool:
        together = [*pool.map(lambda job: ask(server, films[job[0]], job[1]), jobs)]
    assert len({str(alone[n, "findings"]) for n in range(len(films))}) == len(films)
    for job, answer in zip(jobs, together, strict=True):
        assert answer == alone[job]


def ask(server: Running, film: bytes, task: str) -> object:
    answer = server.request("POST", f"/api/predict/{task}", film)
    assert answer.status == 200, answer.body
    found = answer.json()
    return (
        found["text"] if task == "report" else {row["name"]: round(row["probability"], 3) for row in found["findings"]}
    )


@pytest.mark.slow
def test_memory_does_not_grow(films: list[bytes]) -> None:
    def step(number: int) -> None:
        film = films[number % len(films)]
        if number % 5:
            ask(server, film, "findings")
        else:  # more films than are kept
            name = server.open(film)
            server.request("POST", f"/api/films/{name}/report")

    with running(*DEMO) as server:
        for number in range(50):
            step(number)
        before = server.resident()
        for number in range(50, 500):
            step(number)
        assert server.resident() <= 1.05 * before


def test_sigterm_answers_what_was_asked_and_ends(films: list[bytes]) -> None:
    with running(*DEMO) as server, ThreadPoolExecutor(12) as pool:
        name = server.open(films[0])
        names = [row["name"] for row in server.request("POST", f"/api/films/{name}/findings").json()["findings"]]
        jobs = [
            pool.submit(server.request, "POST", f"/api/films/{name}/explain", {"finding": finding})
            for finding in names[:3]
        ]
        jobs += [pool.submit(server.request, "POST", "/api/predict/report", film) for film in films]
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)) as slow:
            slow.putrequest("POST", "/api/predict/report")
            slow.putheader("Content-Length", str(len(films[0])))
            slow.endheaders(films[0][:1000])  # this one is under way, however fast the others are
            time.sleep(1)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(1)
            assert server.process.poll() is None
            slow.send(films[0][1000:])
            assert slow.getresponse().status == 200
        assert server.process.wait(WAIT) == 0
        assert [job.result().status for job in jobs] == [200] * len(jobs)
        with pytest.raises(ConnectionRefusedError):
            server.request("GET", "/healthz")


def test_ctrl_c_is_said(films: list[bytes]) -> None:
    with pytest.raises(AssertionError, match="interrupted"), running(*DEMO) as server:
        assert server.end(signal.SIGINT) == 130
