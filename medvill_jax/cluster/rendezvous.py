"""Where the processes of one run meet, and how they learn that one of them is gone.

Process 0 listens at the coordinator's address, the others call; once all are there each is told who is where, and the
connections stay open. A kernel closes the connections of a process that dies, however it dies, so the rest hear of it
at once and by name. Messages are short lines of JSON. Nothing here knows JAX.

Whoever calls is a stranger until it has proved, by an HMAC over both sides' nonces, that it knows the run's token; so
has process 0 when it answers. The token itself never travels. A secret one keeps everybody out who can reach the port
but not read the environment of the run; strangers are given little time and room either way, and take no process's
place. Without a secret, only accidents are kept out. No token protects from those who can change packets under way,
nor does it guard the ports that JAX and its collectives open afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import ipaddress
import json
import logging
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from medvill_jax.commands import Exit
from medvill_jax.errors import UserError

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.2
# The whole of what a stranger has to say takes one round trip.
HELLO_SECONDS = 5.0
MOST_STRANGERS = 128
MOST_WARNINGS = 20
# What process 0 is told is short; what it answers holds the names of all hosts.
HELLO_BYTES, ANSWER_BYTES = 1 << 12, 1 << 20
# So much longer the others wait for process 0 to say who is missing.
ANSWER_SECONDS = 5.0
# The exit status of processes that lost another one.
LOST_STATUS = Exit.PROCESSES
# Only a machine that vanishes without a word needs these: its silence ends the connection after about 40 seconds.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}


class StartupError(UserError):
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


def meet(
    address: str, processes: int, process: int, timeout: float, note: Callable[[], str], token: str = ""
) -> tuple[Meeting, Links]:
    """Waits until every process of the run is there.

    Args:
        address: `HOST:PORT` of process 0.
        processes: how many there are.
        process: which one this is.
        timeout: seconds; the process whose time is over first ends the waiting of all.
        note: gives what process 0 tells everyone; called there only, once all have come.
        token: what all processes of this run know, and others should not.

    Raises:
        StartupError: an address that cannot be used, processes that did not come, or that do not fit together.
    """
    host, port = split_address(address)
    deadline = time.monotonic() + timeout
    if process == 0:
        with _listen(host, port) as server:
            return _Reception(processes, timeout, deadline, token).wait(server, note)
    return _join(host, port, processes, process, timeout, deadline, token)


def split_address(address: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPV6]:PORT` in its parts; `StartupError` for anything else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise StartupError(f"{address!r} is no address of a coordinator; write HOST:PORT, e.g. node001:8476")
    return host.strip("[]"), int(port)


def _listen(host: str, port: int) -> socket.socket:
    """On the coordinator's address, or on all where the host does not have it: behind a translated address, say."""
    try:
        own = [(family, str(address)) for family, _, _, _, (address, *_) in socket.getaddrinfo(host, None)]
    except (OSError, UnicodeError):
        own = []
    try:
        for family, address in own:
            # Many a host calls itself 127.0.1.1 by its own name; the others have another address for it.
            if _is_loopback(address) and host != "localhost" and not _is_loopback(host):
                continue
            try:
                return socket.create_server((address, port), family=family, backlog=MOST_STRANGERS)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server(("", port), family=family, backlog=MOST_STRANGERS, dualstack_ipv6=dual)
    except OSError as error:
        raise StartupError(f"process 0 cannot listen on port {port}: {error.strerror}; name another one") from None


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _proof(token: str, *said: Any) -> str:
    """What only somebody who knows the token can add to what is said."""
    return hmac.new(token.encode(errors="surrogateescape"), json.dumps(said).encode(), "sha256").hexdigest()


@dataclass(frozen=True)
class _Hello:
    """What a process says of itself, with its own nonce; `left` are the seconds that it still waits."""

    process: int
    processes: int
    host: str
    left: float
    nonce: str

    @classmethod
    def read(cls, message: dict[str, Any]) -> _Hello | None:
        """None for what no process of a run would say."""
        if message.keys() != {*cls.__dataclass_fields__, "proof"}:
            return None
        kinds = {"process": int, "processes": int, "host": str, "left": float, "nonce": str, "proof": str}
        if any(type(message[name]) is not kind for name, kind in kinds.items()):
            return None
        # Host names are written to logs and terminals.
        texts = [text for text in message.values() if isinstance(text, str)]
        if not all(text.isascii() and text.isprintable() for text in texts) or not message["left"] >= 0:
            return None
        return cls(**{name: message[name] for name in cls.__dataclass_fields__})

    def proof(self, token: str, nonce: str) -> str:
        """To the nonce of process 0."""
        return _proof(token, "hello", nonce, *vars(self).values())


@dataclass(eq=False)
class _Caller:
    """A connection to process 0, and who it has proved to be."""

    line: _Line
    address: str
    nonce: str
    until: float
    hello: _Hello | None = None

    def answer(self, token: str, kind: str, *said: Any) -> None:
        """Says something that a process which has said who it is can believe."""
        assert self.hello is not None
        self.line.send(kind=kind, said=said, proof=_proof(token, "answer", self.nonce, self.hello.nonce, kind, *said))


class _Reception:
    """Process 0, until all the others have come."""

    def __init__(self, processes: int, timeout: float, deadline: float, token: str):
        self._processes, self._timeout, self._deadline, self._token = processes, timeout, deadline, token
        self._strangers: list[_Caller] = []  # oldest first
        self._there: dict[int, _Caller] = {}
        self._turned_away: list[str] = []
        self._warned: set[tuple[str, str]] = set()
        self._selector = selectors.DefaultSelector()

    def wait(self, server: socket.socket, note: Callable[[], str]) -> tuple[Meeting, Links]:
        """The meeting; `StartupError` names those that did not come."""
        server.setblocking(False)
        with self._selector:
            self._selector.register(server, selectors.EVENT_READ)
            try:
                while len(self._there) < self._processes - 1:
                    self._check_time()
                    ends = [caller.until for caller in self._strangers]
                    for key, _ in self._selector.select(max(0.0, min([self._deadline, *ends]) - time.monotonic())):
                        self._accept(server) if key.data is None else self._hear(key.data)
            finally:
                for caller in self._strangers:
                    caller.line.close()
        names = {number: caller.hello.host for number, caller in self._there.items() if caller.hello}
        meeting = Meeting((socket.gethostname(), *(names[number] for number in range(1, self._processes))), note())
        for caller in self._there.values():
            caller.answer(self._token, "meeting", meeting.hosts, meeting.note)
        return meeting, Links(meeting, {number: caller.line for number, caller in self._there.items()})

    def _check_time(self) -> None:
        now = time.monotonic()
        for caller in [caller for caller in self._strangers if caller.until <= now]:
            self._drop(caller, f"it did not say within {HELLO_SECONDS:g} s who it is")
        if now < self._deadline:
            return
        missing = sorted(set(range(1, self._processes)) - self._there.keys())
        message = f"{_processes(missing)} of {self._processes} did not start within {self._timeout:g} s"
        message += "".join(f"; turned away: {problem}" for problem in self._turned_away)
        for caller in self._there.values():
            caller.answer(self._token, "error", message)
            caller.line.close()
        raise StartupError(message)

    def _accept(self, server: socket.socket) -> None:
        try:
            connection, (address, *_) = server.accept()
        except OSError:  # gone already, or as many files are open as may be
            return
        line = _Line(connection, HELLO_BYTES)
        caller = _Caller(line, str(address), secrets.token_hex(16), time.monotonic() + HELLO_SECONDS)
        line.send(nonce=caller.nonce)
        self._strangers.append(caller)
        self._selector.register(line.socket, selectors.EVENT_READ, caller)
        most = MOST_STRANGERS + self._processes  # which may all come at once
        if len(self._strangers) > most:
            self._drop(self._strangers[0], f"more than {most} connections have not said who they are")

    def _hear(self, caller: _Caller) -> None:
        if caller not in self._strangers and caller not in self._there.values():
            return  # dropped since the selector looked
        message = caller.line.take(0.0)
        if message is None:
            return
        if caller.hello is not None:
            # It gave up, or died: it may be started again.
            del self._there[caller.hello.process]
            self._hang_up(caller)
            return
        hello = _Hello.read(message)
        if hello is None:
            self._drop(caller, "it does not speak as a process of a run does")
        elif not hmac.compare_digest(message["proof"].encode(), hello.proof(self._token, caller.nonce).encode()):
            caller.line.send(kind="stranger")
            self._drop(caller, "it does not know this run's MEDVILL_TOKEN, or belongs to another job")
        else:
            self._strangers.remove(caller)
            caller.hello = hello
            caller.line.socket.settimeout(ANSWER_SECONDS)
            problem = self._problem(hello)
            if problem is None:
                self._there[hello.process] = caller
                self._deadline = min(self._deadline, time.monotonic() + hello.left)
                return
            caller.answer(self._token, "error", problem)
            self._hang_up(caller)
            if problem not in self._turned_away and len(self._turned_away) < MOST_WARNINGS:
                self._turned_away.append(problem)

    def _problem(self, hello: _Hello) -> str | None:
        process, of, host = hello.process, hello.processes, hello.host
        if of != self._processes:
            return f"process {process} on {host} was started as one of {of}, process 0 as one of {self._processes}"
        if not 0 <= process < of:
            return f"there is no process {process} among {of}"
        first = self._there.get(process)
        if process == 0 or first is not None:
            there = first.hello.host if first and first.hello else socket.gethostname()
            return f"process {process} was started twice, on {there} and on {host}"
        return None

    def _drop(self, caller: _Caller, why: str) -> None:
        """Of a stranger."""
        self._strangers.remove(caller)
        if (caller.address, why) not in self._warned and len(self._warned) < MOST_WARNINGS:
            self._warned.add((caller.address, why))
            log.warning("a connection from %s was closed: %s", caller.address, why)
        self._hang_up(caller)

    def _hang_up(self, caller: _Caller) -> None:
        self._selector.unregister(caller.line.socket)
        caller.line.close()


def _join(
    host: str, port: int, processes: int, process: int, timeout: float, deadline: float, token: str
) -> tuple[Meeting, Links]:
    absent = f"process 0 of {processes}, the coordinator at {host}:{port}, did not start within {timeout:g} s"
    stranger = ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            line = _Line(socket.create_connection((host, port), timeout=left), ANSWER_BYTES)
        except OSError:
            time.sleep(min(RETRY_SECONDS, left))
            continue
        nonce = line.receive(min(deadline, time.monotonic() + HELLO_SECONDS)).get("nonce")
        if isinstance(nonce, str):
            left = max(0.0, deadline - time.monotonic())
            hello = _Hello(process, processes, socket.gethostname(), left, secrets.token_hex(16))
            line.send(**vars(hello), proof=hello.proof(token, nonce))
            # Process 0, whose time is over no later than this one's, must be let to say who is missing.
            answer = line.receive(deadline + ANSWER_SECONDS)
            kind, said = answer.get("kind"), answer.get("said")
            if kind == "stranger":
                stranger = "; who answers there has another MEDVILL_TOKEN, or belongs to another job"
            elif isinstance(said, list):
                believable = answer.get("proof") == _proof(token, "answer", nonce, hello.nonce, kind, *said)
                match kind, said:
                    case "error", [str(message)] if believable:
                        line.close()
                        raise StartupError(message)
                    case "meeting", [list(hosts), str(told)] if believable and len(hosts) == processes:
                        return (meeting := Meeting(tuple(hosts), told)), Links(meeting, {0: line})
        # Whoever answered hung up or proved nothing: process 0 before its own start failed, or a stranger on its port.
        line.close()
        time.sleep(RETRY_SECONDS)
    raise StartupError(absent + stranger)


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
                    message = self._lines[process].take(None)
                    if message is None:
                        continue
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
    """One connection, over which objects travel as lines of limited length."""

    def __init__(self, connection: socket.socket, most_bytes: int):
        self.socket = connection
        with contextlib.suppress(OSError):  # some systems refuse it where the other side has hung up already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE.items():
                if hasattr(socket, option):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._lock = threading.Lock()
        self._most_bytes = most_bytes
        self._rest = b""

    def send(self, **message: Any) -> None:
        """Sends, if there is still somebody."""
        with self._lock, contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, deadline: float) -> dict[str, Any]:
        """The next object; empty if the other side hung up, speaks another language, or has not said it in time."""
        while (message := self.take(max(0.001, deadline - time.monotonic()))) is None:
            pass
        return message

    def take(self, timeout: float | None) -> dict[str, Any] | None:
        """Reads what is there, or comes within some seconds; None while a line is not complete, else as `receive`."""
        if b"\n" not in self._rest:
            try:
                self.socket.settimeout(timeout)
                part = self.socket.recv(1 << 16)
            except BlockingIOError:
                return None
            except OSError:
                return {}
            self._rest += part
            if b"\n" not in self._rest:
                return None if part and len(self._rest) <= self._most_bytes else {}
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            message = json.loads(line) if len(line) <= self._most_bytes else {}
        except (ValueError, RecursionError):
            return {}
        return message if isinstance(message, dict) else {}

    def close(self) -> None:
        """Hangs up."""
        self.socket.close()
