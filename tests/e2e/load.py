"""Clients that keep a server busy until it takes no more, and what became of each of their requests."""

import select
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import orjson

from tests.e2e.process import PATIENCE


@dataclass(frozen=True)
class Exchange:
    """A request of `/predict`, and the one right answer to it."""

    model: str
    request: bytes
    answer: bytes

    def head(self, keep_alive: bool) -> bytes:
        lines = [
            f"POST /predict/{self.model} HTTP/1.1",
            "Host: litepool",
            "Content-Type: application/json",
            f"Content-Length: {len(self.request)}",
            "Connection: " + ("keep-alive" if keep_alive else "close"),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"


@dataclass
class Tally:
    """What clients saw. A request counts as sent once all of it was written to a connection not yet closed."""

    sent: int = 0
    answered: int = 0
    after_signal: int = 0
    faults: list[str] = field(default_factory=list)
    refused: int = 0
    """Clients that the server no longer let in: every client ends so."""


class Load:
    """Clients in threads, as a context that ends them.

    Args:
        exchanges: client number i sends the i-th of them over and over.
        keep_alive: whether a client keeps its connection, or opens one for each request.
    """

    def __init__(self, url: str, exchanges: Sequence[Exchange], keep_alive: bool) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self._address = (address.hostname, address.port)
        self._keep_alive = keep_alive
        self._condition = threading.Condition()
        self._signalled = False
        self._stop = False
        self.tally = Tally()
        self._threads = [threading.Thread(target=self._client, args=(exchange,)) for exchange in exchanges]

    def wait_answered(self, count: int) -> None:
        """Wait until so many requests have been answered."""
        with self._condition:
            assert self._condition.wait_for(lambda: self.tally.answered >= count, PATIENCE), self.tally

    def signalled(self) -> None:
        """What is answered from now on counts as answered after the signal, which is about to be sent."""
        with self._condition:
            self._signalled = True

    def wait_refused(self) -> Tally:
        """Wait until no client is let in any more."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a client still waits for an answer"
        return self.tally

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop = True
        self.wait_refused()

    def _client(self, exchange: Exchange) -> None:
        connection: socket.socket | None = None
        try:
            while not self._stop:
                if connection is None:
                    connection = self._connect()
                    if connection is None:
                        return
                elif closed(connection):
                    connection.close()
                    connection = None
                    continue
                if not self._exchange(connection, exchange):
                    connection.close()
                    connection = None
        finally:
            if connection is not None:
                connection.close()

    def _connect(self) -> socket.socket | None:
        try:
            return socket.create_connection(self._address, PATIENCE)
        except ConnectionError:
            with self._condition:
                self.tally.refused += 1
            return None

    def _exchange(self, connection: socket.socket, exchange: Exchange) -> bool:
        """Send a request and read its answer; whether the connection may be used again."""
        try:
            connection.sendall(exchange.head(self._keep_alive) + exchange.request)
        except ConnectionError:
            return False
        with self._condition:
            self.tally.sent += 1
        fault, reusable = read_answer(connection, exchange.answer)
        with self._condition:
            if fault:
                self.tally.faults.append(fault)
            else:
                self.tally.answered += 1
                self.tally.after_signal += self._signalled
            self._condition.notify_all()
        return reusable and self._keep_alive


def closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection on which nothing is awaited."""
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable)


def read_answer(connection: socket.socket, wanted: bytes) -> tuple[str, bool]:
    """What is wrong with an answer, and whether its connection stays open."""
    received = b""
    try:
        while b"\r\n\r\n" not in received:
            chunk = connection.recv(1 << 16)
            if not chunk:
                return f"closed after {len(received)} bytes of the answer", False
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        while len(body) < int(headers["content-length"]):
            chunk = connection.recv(1 << 16)
            if not chunk:
                return f"closed after {len(body)} bytes of the body", False
            body += chunk
    except ConnectionError as error:
        return f"{type(error).__name__} after {len(received)} bytes of the answer", False
    reusable = headers.get("connection") != "close"
    if " 200 " not in lines[0]:
        return f"{lines[0]}: {body.decode()[:200]}", reusable
    return "" if orjson.loads(body) == orjson.loads(wanted) else "another answer", reusable
