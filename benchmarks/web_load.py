"""How long `medvill web` takes to answer 1, 8 and 32 clients, beside predicting the same films one at a time.

    python -m benchmarks.web_load                 the demo's model, 200 films for each row
    python -m benchmarks.web_load --model=EXPORT --requests=500

The server is a process of its own; in the same run the same files are predicted one at a time, by
`model.findings(bytes)` in a loop. Every client sends its next film when it has an answer. Prints
a table.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import medvill_jax
from medvill_jax.commands import Parser
from medvill_jax.web import demo

CLIENTS = (1, 8, 32)
WARM_UP = 10  # films that are not counted


def main() -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--model", default=str(demo.EXPORT), metavar="EXPORT")
    parser.add_argument("--requests", type=int, default=200, help="films for each row")
    args = parser.parse_args()
    films = [example.jpeg for example in demo.examples()]
    work = [films[number % len(films)] for number in range(args.requests)]
    print("| films | p50, ms | p99, ms | films a second | of one at a time |\n|---|---|---|---|---|")
    alone = one_at_a_time(args.model, work)
    base = row("one at a time, `model.findings`", alone, sum(alone), None)
    command = [sys.executable, "-m", "medvill_jax", "web", f"--model={args.model}", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().split()[0].rpartition(":")[2])
        for clients in CLIENTS:
            seconds, total = served(port, work, clients)
            row(f"the page's server, {clients} client{'s' * (clients > 1)}", seconds, total, base)
        server.send_signal(signal.SIGTERM)
    return 0


def one_at_a_time(path: str, work: list[bytes]) -> list[float]:
    """Seconds of every film."""
    model = medvill_jax.load(path)
    seconds = []
    for film in [*work[:WARM_UP], *work]:
        began = time.monotonic()
        model.findings(film)
        seconds.append(time.monotonic() - began)
    return seconds[WARM_UP:]


def served(port: int, work: list[bytes], clients: int) -> tuple[list[float], float]:
    """Seconds of every request, and of all together."""

    def client(films: list[bytes]) -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        seconds = []
        for film in films:
            began = time.monotonic()
            connection.request("POST", "/api/predict/findings", film)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise SystemExit(f"error: the server answered {response.status}")
            seconds.append(time.monotonic() - began)
        return seconds

    client(work[:WARM_UP])
    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        found = [*pool.map(client, [work[first::clients] for first in range(clients)])]
    return [second for part in found for second in part], time.monotonic() - began


def row(name: str, seconds: list[float], total: float, base: float | None) -> float:
    """Prints a row; returns its films a second."""
    p50, p99 = 1000 * np.percentile(seconds, [50, 99])
    rate = len(seconds) / total
    ratio = "1" if base is None else f"{rate / base:.2f}"
    print(f"| {name} | {p50:.0f} | {p99:.0f} | {rate:.1f} | {ratio} |", flush=True)
    return rate


if __name__ == "__main__":
    sys.exit(main())
