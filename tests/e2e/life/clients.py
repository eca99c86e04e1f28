"""Clients in a process of their own that keep a server as busy as it can be, and judge each of its answers.

Each connection sends its next request as soon as it has the answer. A process of their own, because what the scenario
does meanwhile in Python would hold the clients up, and look like latency.
"""

import contextlib
import ctypes
import multiprocessing
import selectors
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from time import monotonic, perf_counter_ns
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import numpy as np

from app.tensors import Array
from benchmarks.connection import AnswerParser, BrokenAnswerError
from tests.e2e.process import PATIENCE, poll

MOST_FAULTS = 20
"""Faults kept; all are counted."""


def post(path: str, body: bytes, content_type: str = "application/json", **headers: str) -> bytes:
    """A whole request; headers by their names with underscores."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: litepool",
        f"Content-Type: {content_type}",
        f"Accept: {content_type}",
        f"Content-Length: {len(body)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Judge(Protocol):
    """What clients send, and whether the answers are right. It is pickled into their process, and returned from it."""

    def request(self, connection: int) -> bytes:
        """The next one of a connection that waits for no answer."""

    def fault(self, connection: int, good: bool, body: bytes) -> str:
        """What is wrong with the answer to it; empty when it is right. `good`: its status is a 2xx."""


@dataclass
class Seen:
    """What became of all requests, in the order of the answers.

    Args:
        at: seconds of `time.monotonic` when each was answered.
        took_us: how long each took.
        judge: as it has become.
    """

    at: Array
    took_us: Array
    judge: Any
    faults: list[str] = field(default_factory=list)
    fault_count: int = 0

    @property
    def answered(self) -> int:
        return len(self.at)

    def between(self, start: float, end: float) -> Array:
        """How long those took that were answered in a time."""
        return self.took_us[(self.at >= start) & (self.at < end)]


class Clients:
    """As a context: they are at work inside it, and `seen` is there once it is left.

    Args:
        connections: how many.
        most: requests after which they end by themselves; None for no limit.
    """

    def __init__(self, url: str, judge: Judge, connections: int, most: int | None = None) -> None:
        address = urlsplit(url)
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        self._count = context.Value(ctypes.c_longlong, 0, lock=False)
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_main,
            args=((address.hostname, address.port), judge, connections, most, self._stop, self._count, theirs),
            daemon=True,
        )
        self._theirs: Any = theirs
        self.seen: Seen

    def answered(self) -> int:
        """How many requests have been, right or wrong."""
        return int(self._count.value)

    def wait_answered(self, more: int) -> None:
        """Wait until so many more have been."""
        wanted = self.answered() + more
        poll(f"{more} more answers", lambda: self.answered() >= wanted or not self._process.is_alive())
        assert self.answered() >= wanted, "the clients have ended"

    def wait_end(self, patience: float) -> None:
        """Wait until they have sent as many as they should."""
        self._process.join(0)
        assert self._pipe.poll(patience), f"after {patience} s there are {self.answered()} answers"

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()
        self.wait_answered(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        try:
            if self._pipe.poll(PATIENCE):
                self.seen = self._pipe.recv()
        except EOFError:
            assert error is not None, "the clients' process has died"
        finally:
            self._process.join(PATIENCE)
            if self._process.is_alive():
                self._process.kill()
        assert error is not None or hasattr(self, "seen"), "the clients do not end"


class _Connection:
    """One, with the request on it."""

    def __init__(self, address: tuple[str, int], number: int) -> None:
        self.number = number
        self.socket = socket.create_connection(address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parser = AnswerParser()
        self.answer = bytearray()
        self.started = 0

    def send(self, request: bytes) -> None:
        self.answer.clear()
        self.started = perf_counter_ns()
        # Whatever the size: the server reads while it is sent.
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Take what has come; whether the answer is whole."""
        part = self.socket.recv(1 << 20)
        if not part:
            raise BrokenAnswerError(f"closed after {len(self.answer)} bytes of an answer")
        self.answer += part
        return self.parser.whole(self.answer)


class _Loop:
    def __init__(self, address: tuple[str, int], judge: Judge, most: int | None) -> None:
        self._address = address
        self._judge = judge
        self._left = most
        self._selector = selectors.DefaultSelector()
        self._faults: list[str] = []
        self._fault_count = 0
        self._at: list[float] = []
        self._took: list[int] = []
        self._open = 0

    def run(self, connections: int, stop: Any, count: Any) -> Seen:
        for number in range(connections):
            self._connect(number)
        while self._open:
            for key, _ in self._selector.select(1.0):
                self._hear(key.data)
            count.value = len(self._at)
            if stop.is_set():
                self._left = 0
        took = np.array(self._took, np.float64) / 1000
        return Seen(np.array(self._at), took, self._judge, self._faults, self._fault_count)

    def _connect(self, number: int) -> None:
        connection = _Connection(self._address, number)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._open += 1
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        if self._left is not None:
            if self._left <= 0:
                self._close(connection)
                return
            self._left -= 1
        connection.send(self._judge.request(connection.number))

    def _close(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._open -= 1

    def _hear(self, connection: _Connection) -> None:
        try:
            if not connection.receive():
                return
            took = perf_counter_ns() - connection.started
            body = connection.parser.body(connection.answer)
            fault = self._judge.fault(connection.number, connection.parser.good, body)
        except (OSError, BrokenAnswerError) as error:
            self._fault(f"{type(error).__name__}: {error}")
            self._close(connection)
            self._connect(connection.number)
            return
        self._at.append(monotonic())
        self._took.append(took)
        if fault:
            self._fault(fault)
        self._send(connection)

    def _fault(self, fault: str) -> None:
        self._fault_count += 1
        if len(self._faults) < MOST_FAULTS:
            self._faults.append(fault)


def _main(
    address: tuple[str, int], judge: Judge, connections: int, most: int | None, stop: Any, count: Any, pipe: Pipe
) -> None:
    # The one who presses Ctrl-C ends the scenario, which ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seen = _Loop(address, judge, most).run(connections, stop, count)
    with contextlib.suppress(BrokenPipeError):
        pipe.send(seen)


def shown(faults: Sequence[str], count: int) -> str:
    """For a failed test: how many there were, and the first."""
    return f"{count} faults, the first {faults[:5]}"
