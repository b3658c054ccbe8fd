"""How the processes of one run meet over sockets, and how they learn that one of them has died.

Process 0 listens at the coordinator's address and the others connect. Once all have connected, process 0 sends the host
names of all, and the connections stay open. The kernel closes the connections of a process that dies, however it dies,
so the others notice at once and can name it. Messages are short lines of JSON. This module does not use JAX.

Each side proves by an HMAC over both nonces that it knows the run's token, which itself is never sent. Until then a
connection is a stranger: it has little time and memory, and takes no process's place. A secret token keeps out all who
can reach the port but cannot read the environment of the run; without one only accidents are prevented. The token does
not protect from an attacker who can change packets, nor does it guard the ports that JAX and its collectives open
afterwards.
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
# How long a stranger may take to prove itself, which takes one round trip.
HELLO_SECONDS = 5.0
MOST_STRANGERS = 128
MOST_WARNINGS = 20
# Longest messages to process 0, which are short, and from it, which hold the names of all hosts.
HELLO_BYTES, ANSWER_BYTES = 1 << 12, 1 << 20
# How much longer the others wait for process 0 to say which processes are missing.
ANSWER_SECONDS = 5.0
# The exit status of a process when another one has died.
LOST_STATUS = Exit.PROCESSES
# For a host that vanishes without closing its connections: they end after about 40 seconds.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6}


class StartupError(UserError):
    """The processes of a run did not come together; the message names those that are missing."""


@dataclass(frozen=True)
class Meeting:
    """Attributes:
    hosts: the host name of every process, by process number.
    note: a text that process 0 sends to all.
    """

    hosts: tuple[str, ...]
    note: str

    def name(self, process: int) -> str:
        """The name of a process in messages."""
        return f"process {process} on {self.hosts[process]}"


def meet(
    address: str, processes: int, process: int, timeout: float, note: Callable[[], str], token: str = ""
) -> tuple[Meeting, Links]:
    """Waits until all processes of the run have connected.

    Args:
        address: `HOST:PORT` of process 0.
        processes: how many processes the run has.
        process: the number of this one.
        timeout: seconds; the process whose timeout ends first ends the wait of all.
        note: makes the `Meeting.note`; called in process 0 only, once all have connected.
        token: which all processes of this run know, and others should not.

    Returns:
        The meeting, and the open connections of this process.

    Raises:
        StartupError: the address cannot be used, processes did not connect, or their flags contradict each other.
    """
    host, port = split_address(address)
    deadline = time.monotonic() + timeout
    if process == 0:
        with _listen(host, port) as server:
            return _Reception(processes, timeout, deadline, token).wait(server, note)
    return _join(host, port, processes, process, timeout, deadline, token)


def split_address(address: str) -> tuple[str, int]:
    """The host and port of `HOST:PORT` or `[IPV6]:PORT`; raises `StartupError` for anything else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise StartupError(f"{address!r} is not the address of a coordinator; write HOST:PORT, e.g. node001:8476")
    return host.strip("[]"), int(port)


def _listen(host: str, port: int) -> socket.socket:
    """Listens on the coordinator's address, or on all if this host does not have it, such as behind NAT."""
    try:
        addresses = [(family, str(address)) for family, _, _, _, (address, *_) in socket.getaddrinfo(host, None)]
    except (OSError, UnicodeError):
        addresses = []
    try:
        for family, address in addresses:
            # Many hosts resolve their own name to 127.0.1.1, which other hosts cannot reach.
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
        raise StartupError(f"process 0 cannot listen on port {port}: {error.strerror}; choose another port") from None


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _proof(token: str, *said: Any) -> str:
    """The HMAC of a message, which only somebody who knows the token can compute."""
    return hmac.new(token.encode(errors="surrogateescape"), json.dumps(said).encode(), "sha256").hexdigest()


@dataclass(frozen=True)
class _Hello:
    """How a process introduces itself to process 0; `left` is how many seconds it still waits."""

    process: int
    processes: int
    host: str
    left: float
    nonce: str

    @classmethod
    def read(cls, message: dict[str, Any]) -> _Hello | None:
        """The message as a hello; None if it is malformed."""
        if message.keys() != {*cls.__dataclass_fields__, "proof"}:
            return None
        kinds = {"process": int, "processes": int, "host": str, "left": float, "nonce": str, "proof": str}
        if any(type(message[name]) is not kind for name, kind in kinds.items()):
            return None
        # Printable ASCII only: host names are written to logs and terminals.
        texts = [text for text in message.values() if isinstance(text, str)]
        if not all(text.isascii() and text.isprintable() for text in texts) or not message["left"] >= 0:
            return None
        return cls(**{name: message[name] for name in cls.__dataclass_fields__})

    def proof(self, token: str, nonce: str) -> str:
        """The proof that answers the nonce of process 0."""
        return _proof(token, "hello", nonce, *vars(self).values())


@dataclass(eq=False)
class _Caller:
    """A connection to process 0; a stranger until `hello` is set."""

    line: _Line
    address: str
    nonce: str
    until: float
    hello: _Hello | None = None

    def answer(self, token: str, kind: str, *said: Any) -> None:
        """Sends a message with a proof, to a process that has introduced itself."""
        assert self.hello is not None
        self.line.send(kind=kind, said=said, proof=_proof(token, "answer", self.nonce, self.hello.nonce, kind, *said))


class _Reception:
    """What process 0 does until all others have connected."""

    def __init__(self, processes: int, timeout: float, deadline: float, token: str):
        self._processes, self._timeout, self._deadline, self._token = processes, timeout, deadline, token
        self._strangers: list[_Caller] = []  # oldest first
        self._members: dict[int, _Caller] = {}
        self._turned_away: list[str] = []
        self._warned: set[tuple[str, str]] = set()
        self._selector = selectors.DefaultSelector()

    def wait(self, server: socket.socket, note: Callable[[], str]) -> tuple[Meeting, Links]:
        """Accepts connections until all have come; raises `StartupError` with the missing processes."""
        server.setblocking(False)
        with self._selector:
            self._selector.register(server, selectors.EVENT_READ)
            try:
                while len(self._members) < self._processes - 1:
                    self._check_time()
                    ends = [caller.until for caller in self._strangers]
                    for key, _ in self._selector.select(max(0.0, min([self._deadline, *ends]) - time.monotonic())):
                        self._accept(server) if key.data is None else self._hear(key.data)
            finally:
                for caller in self._strangers:
                    caller.line.close()
        names = {number: caller.hello.host for number, caller in self._members.items() if caller.hello}
        meeting = Meeting((socket.gethostname(), *(names[number] for number in range(1, self._processes))), note())
        for caller in self._members.values():
            caller.answer(self._token, "meeting", meeting.hosts, meeting.note)
        return meeting, Links(meeting, {number: caller.line for number, caller in self._members.items()})

    def _check_time(self) -> None:
        now = time.monotonic()
        for caller in [caller for caller in self._strangers if caller.until <= now]:
            self._drop(caller, f"it did not say within {HELLO_SECONDS:g} s who it is")
        if now < self._deadline:
            return
        missing = sorted(set(range(1, self._processes)) - self._members.keys())
        message = f"{_processes(missing)} of {self._processes} did not start within {self._timeout:g} s"
        message += "".join(f"; turned away: {problem}" for problem in self._turned_away)
        for caller in self._members.values():
            caller.answer(self._token, "error", message)
            caller.line.close()
        raise StartupError(message)

    def _accept(self, server: socket.socket) -> None:
        try:
            connection, (address, *_) = server.accept()
        except OSError:  # closed already, or too many open files
            return
        line = _Line(connection, HELLO_BYTES)
        caller = _Caller(line, str(address), secrets.token_hex(16), time.monotonic() + HELLO_SECONDS)
        line.send(nonce=caller.nonce)
        self._strangers.append(caller)
        self._selector.register(line.socket, selectors.EVENT_READ, caller)
        most = MOST_STRANGERS + self._processes  # processes of the run may all connect at once
        if len(self._strangers) > most:
            self._drop(self._strangers[0], f"more than {most} connections have not said who they are")

    def _hear(self, caller: _Caller) -> None:
        if caller not in self._strangers and caller not in self._members.values():
            return  # dropped since `select` returned
        message = caller.line.take(0.0)
        if message is None:
            return
        if caller.hello is not None:
            # The process gave up or died; it may be started again.
            del self._members[caller.hello.process]
            self._hang_up(caller)
            return
        hello = _Hello.read(message)
        if hello is None:
            self._drop(caller, "it does not speak the protocol of a run")
        elif not hmac.compare_digest(message["proof"].encode(), hello.proof(self._token, caller.nonce).encode()):
            caller.line.send(kind="stranger")
            self._drop(caller, "it does not know this run's MEDVILL_TOKEN, or belongs to another job")
        else:
            self._strangers.remove(caller)
            caller.hello = hello
            caller.line.socket.settimeout(ANSWER_SECONDS)
            problem = self._problem(hello)
            if problem is None:
                self._members[hello.process] = caller
                self._deadline = min(self._deadline, time.monotonic() + hello.left)
                return
            caller.answer(self._token, "error", problem)
            self._hang_up(caller)
            if problem not in self._turned_away and len(self._turned_away) < MOST_WARNINGS:
                self._turned_away.append(problem)

    def _problem(self, hello: _Hello) -> str | None:
        process, count, host = hello.process, hello.processes, hello.host
        if count != self._processes:
            return f"process {process} on {host} was started as one of {count}, process 0 as one of {self._processes}"
        if not 0 <= process < count:
            return f"there is no process {process} among {count}"
        first = self._members.get(process)
        if process == 0 or first is not None:
            first_host = first.hello.host if first and first.hello else socket.gethostname()
            return f"process {process} was started twice, on {first_host} and on {host}"
        return None

    def _drop(self, caller: _Caller, why: str) -> None:
        """Closes the connection of a stranger, and warns once for each address and reason."""
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
            # Process 0 times out no later than this process, and then says which processes are missing.
            answer = line.receive(deadline + ANSWER_SECONDS)
            kind, said = answer.get("kind"), answer.get("said")
            if kind == "stranger":
                stranger = "; the process that answers there has another MEDVILL_TOKEN, or belongs to another job"
            elif isinstance(said, list):
                believable = answer.get("proof") == _proof(token, "answer", nonce, hello.nonce, kind, *said)
                match kind, said:
                    case "error", [str(message)] if believable:
                        line.close()
                        raise StartupError(message)
                    case "meeting", [list(hosts), str(told)] if believable and len(hosts) == processes:
                        return (meeting := Meeting(tuple(hosts), told)), Links(meeting, {0: line})
        # The other side hung up or did not prove itself: another program on this port, or a process 0 that has failed.
        line.close()
        time.sleep(RETRY_SECONDS)
    raise StartupError(absent + stranger)


def _processes(numbers: Iterable[int]) -> str:
    names = [str(number) for number in numbers]
    return f"process {names[0]}" if len(names) == 1 else f"processes {', '.join(names)}"


class Links:
    """The open connections of one process: in process 0 those to all others, in any other that to process 0."""

    def __init__(self, meeting: Meeting, lines: dict[int, _Line]):
        self._meeting, self._lines = meeting, lines
        self._over = False

    def watch(self, lost: Callable[[str, int], None]) -> None:
        """Calls `lost(message, status)` once, from another thread, when a process fails or dies."""
        threading.Thread(target=self._watch, args=(lost,), name="watch", daemon=True).start()

    def finish(self) -> None:
        """Tells the others that this process is done; from here on no death is reported."""
        self._over = True
        self._tell(done=True)

    def fail(self, status: int) -> None:
        """Tells the others that this process has failed, so that they end with `status`."""
        self._over = True
        self._tell(failed=status)

    def close(self) -> None:
        """Closes the connections; not to be called while `watch` runs."""
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
            return f"{self._meeting.name(process)} stopped with an error; see its log", message["failed"]
        return f"{self._meeting.name(process)} is gone", LOST_STATUS


class _Line:
    """A connection that carries JSON objects as lines of limited length."""

    def __init__(self, connection: socket.socket, most_bytes: int):
        self.socket = connection
        with contextlib.suppress(OSError):  # some systems refuse these once the other side has hung up
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE.items():
                if hasattr(socket, option):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._lock = threading.Lock()
        self._most_bytes = most_bytes
        self._rest = b""

    def send(self, **message: Any) -> None:
        """Sends a message; does nothing if the other side has hung up."""
        with self._lock, contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, deadline: float) -> dict[str, Any]:
        """The next message; empty if the other side hung up, sent no JSON object, or missed the deadline."""
        while (message := self.take(max(0.001, deadline - time.monotonic()))) is None:
            pass
        return message

    def take(self, timeout: float | None) -> dict[str, Any] | None:
        """The next message, after waiting up to `timeout` for data: None if incomplete, empty as in `receive`."""
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
        """Closes the connection."""
        self.socket.close()
