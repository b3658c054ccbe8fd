"""Where the processes of one run meet, and how they learn that one of them is gone.

Process 0 listens, the others call; once all are there each is told who is where, and the connections stay open. A
kernel closes the connections of a process that dies, however it dies, so the rest hear of it at once and by name.
Messages are lines of JSON. Nothing here knows JAX.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

RETRY_SECONDS = 0.2
# The exit status of processes that lost another one.
LOST_STATUS = 3
# Only a machine that vanishes without a word needs these: its silence ends the connection after about 40 seconds.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}


class StartupError(Exception):
    """The processes of a run did not come together; the message names those that are missing."""


@dataclass(frozen=True)
class Meeting:
    """Attributes:
    hosts: the host name of every process, by its number.
    note: what process 0 told everyone.
    """

    hosts: tuple[str, ...]
    note: str

    def name(self, process: int) -> str:
        """A process as messages name it."""
        return f"process {process} on {self.hosts[process]}"


def meet(address: str, processes: int, process: int, timeout: float, note: Callable[[], str]) -> tuple[Meeting, Links]:
    """Waits until every process of the run is there.

    Args:
        address: `HOST:PORT` of process 0.
        processes: how many there are.
        process: which one this is.
        timeout: seconds.
        note: gives what process 0 tells everyone; called there only, once all have come.

    Raises:
        StartupError: an address that cannot be used, processes that did not come, or that do not fit together.
    """
    host, port = split_address(address)
    deadline = time.monotonic() + timeout
    if process == 0:
        return _host(port, processes, timeout, deadline, note)
    return _join(host, port, processes, process, timeout, deadline)


def split_address(address: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPV6]:PORT` in its parts; `StartupError` for anything else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise StartupError(f"{address!r} is no address of a coordinator; write HOST:PORT, e.g. node001:8476")
    return host.strip("[]"), int(port)


def _host(port: int, processes: int, timeout: float, deadline: float, note: Callable[[], str]) -> tuple[Meeting, Links]:
    try:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        server = socket.create_server(("", port), family=family, backlog=processes, dualstack_ipv6=dual)
    except OSError as error:
        raise StartupError(f"process 0 cannot listen on port {port}: {error.strerror}; name another one") from None
    lines: dict[int, _Line] = {}
    hosts = {0: socket.gethostname()}
    turned_away: list[str] = []
    with server:
        while len(hosts) < processes:
            server.settimeout(max(0.0, deadline - time.monotonic()))
            try:
                line = _Line(server.accept()[0])
            except (TimeoutError, BlockingIOError):
                missing = sorted(set(range(processes)) - hosts.keys())
                message = f"{_processes(missing)} of {processes} did not start within {timeout:g} s"
                message += "".join(f"; turned away: {problem}" for problem in turned_away)
                for there in lines.values():
                    there.send(error=message)
                    there.close()
                raise StartupError(message) from None
            hello = line.receive(min(5.0, max(0.1, deadline - time.monotonic())))
            problem = _problem(hello, processes, hosts)
            if problem:
                line.send(error=problem)
                line.close()
                turned_away.append(problem)
                continue
            lines[hello["process"]] = line
            hosts[hello["process"]] = hello["host"]
    meeting = Meeting(tuple(hosts[process] for process in range(processes)), note())
    for line in lines.values():
        line.send(hosts=meeting.hosts, note=meeting.note)
    return meeting, Links(meeting, lines)


def _problem(hello: dict[str, Any], processes: int, hosts: dict[int, str]) -> str | None:
    process, of, host = hello.get("process"), hello.get("processes"), hello.get("host")
    if not isinstance(process, int) or not isinstance(host, str):
        return "this port is taken by a run that is starting"
    if of != processes:
        return f"process {process} on {host} was started as one of {of}, process 0 as one of {processes}"
    if not 0 <= process < processes:
        return f"there is no process {process} among {processes}"
    if process in hosts:
        return f"process {process} was started twice, on {hosts[process]} and on {host}"
    return None


def _join(host: str, port: int, processes: int, process: int, timeout: float, deadline: float) -> tuple[Meeting, Links]:
    absent = f"process 0 of {processes}, the coordinator at {host}:{port}, did not start within {timeout:g} s"
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise StartupError(absent)
        try:
            line = _Line(socket.create_connection((host, port), timeout=left))
        except OSError:
            time.sleep(min(RETRY_SECONDS, max(0.0, left)))
            continue
        line.send(process=process, processes=processes, host=socket.gethostname())
        # Process 0 started earlier or later than this one: it must be let to say who is missing.
        answer = line.receive(timeout + 5.0)
        if "error" in answer:
            line.close()
            raise StartupError(answer["error"])
        if "hosts" in answer:
            meeting = Meeting(tuple(answer["hosts"]), answer["note"])
            return meeting, Links(meeting, {0: line})
        # Whoever answered hung up: process 0 before its own start failed, or a stranger on its port.
        line.close()
        time.sleep(RETRY_SECONDS)


def _processes(numbers: Iterable[int]) -> str:
    names = [str(number) for number in numbers]
    return f"process {names[0]}" if len(names) == 1 else f"processes {', '.join(names)}"


class Links:
    """The open connections of one process: of process 0 to all others, of any other to process 0."""

    def __init__(self, meeting: Meeting, lines: dict[int, _Line]):
        self._meeting, self._lines = meeting, lines
        self._over = False

    def watch(self, lost: Callable[[str, int], None]) -> None:
        """Calls `lost(message, status)` in a thread of its own, once, when a process fails or vanishes."""
        threading.Thread(target=self._watch, args=(lost,), name="watch", daemon=True).start()

    def finish(self) -> None:
        """Says that this process is done; from here on nobody is missed."""
        self._over = True
        self._tell(done=True)

    def fail(self, status: int) -> None:
        """Says that this process gives up, and that all others should."""
        self._over = True
        self._tell(failed=status)

    def close(self) -> None:
        """Hangs up; only once nobody watches."""
        for line in self._lines.values():
            line.close()

    def _tell(self, **message: Any) -> None:
        for line in list(self._lines.values()):
            line.send(**message)

    def _watch(self, lost: Callable[[str, int], None]) -> None:
        with selectors.DefaultSelector() as selector:
            for process, line in self._lines.items():
                selector.register(line.socket, selectors.EVENT_READ, process)
            while selector.get_map():
                for key, _ in selector.select():
                    process = key.data
                    message = self._lines[process].receive(None)
                    if "done" not in message and not self._over:
                        self._over = True
                        text, status = self._what(process, message)
                        self._tell(lost=text, status=status)
                        lost(text, status)
                        return
                    selector.unregister(key.fileobj)

    def _what(self, process: int, message: dict[str, Any]) -> tuple[str, int]:
        if "lost" in message:
            return message["lost"], message["status"]
        if "failed" in message:
            return f"{self._meeting.name(process)} stopped with an error, which its log tells", message["failed"]
        return f"{self._meeting.name(process)} is gone", LOST_STATUS


class _Line:
    """One connection, over which objects travel as lines."""

    def __init__(self, connection: socket.socket):
        self.socket = connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._lock = threading.Lock()
        self._rest = b""

    def send(self, **message: Any) -> None:
        """Sends, if there is still somebody."""
        with self._lock, contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float | None) -> dict[str, Any]:
        """The next object; empty if the other side hung up, speaks another language, or says nothing in time."""
        try:
            self.socket.settimeout(timeout)
            while b"\n" not in self._rest:
                part = self.socket.recv(1 << 16)
                if not part or len(self._rest) > 1 << 20:
                    return {}
                self._rest += part
            line, _, self._rest = self._rest.partition(b"\n")
            message = json.loads(line)
        except (OSError, ValueError):
            return {}
        return message if isinstance(message, dict) else {}

    def close(self) -> None:
        """Hangs up."""
        self.socket.close()
