"""`medvill web` as a process of its own, and plain requests to it."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DEMO = ("--demo",)
WAIT = 300  # seconds, on a busy machine that compiles


@dataclass(frozen=True)
class Answer:
    """What a request brought back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A dict is sent as JSON; names of headers are written with underscores."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        if method == "POST" and body is None:
            body = b""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )

    def open(self, film: bytes) -> str:
        """The name of a film that is now kept."""
        kept = self.request("POST", "/api/films", film)
        assert kept.status == 201, kept.body
        return kept.json()["film"]

    def resident(self) -> int:
        """Memory of the process, KiB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal, and waits for the exit status."""
        self.process.send_signal(number)
        return self.process.wait(WAIT)


@contextlib.contextmanager
def running(*words: str) -> Iterator[Running]:
    """A server with these flags on a free port; it must end by SIGTERM, and have said nothing more."""
    command = [sys.executable, "-m", "medvill_jax", "web", *words, "--port=0"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), process.communicate(timeout=WAIT)
        server = Running(process, int(line.split()[0].rpartition(":")[2]))
        yield server
        if process.poll() is None:
            assert server.end() == 0
        out, err = process.communicate(timeout=WAIT)
        assert (out, err) == ("", ""), f"it said {out}{err}"
    finally:
        process.kill()
        process.communicate()
