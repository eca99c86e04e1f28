"""A keep-alive HTTP/1.1 client connection that costs next to nothing: prebuilt request, answer cut by its length."""

from __future__ import annotations

import socket

END = b"\r\n\r\n"


class BrokenAnswerError(Exception):
    """The server closed the connection, or what it sent is no HTTP answer."""


class AnswerParser:
    """Says when an answer is whole. One connection's; owned by the thread that reads it.

    An answer whose headers and length are byte for byte those of the one before takes the short road: two compares.
    """

    def __init__(self) -> None:
        self._head = b""
        self._total = 0
        self._good = False

    def whole(self, data: bytes | bytearray) -> bool:
        if self._total and len(data) == self._total and data.startswith(self._head):
            return True
        end = data.find(END)
        if end < 0:
            return False
        head = bytes(data[: end + 4])
        self._good = head[9:10] == b"2"
        length = content_length(head)
        self._head, self._total = head, end + 4 + length if length is not None else 0
        return len(data) >= self._total if length is not None else bytes(data[-7:]) == b"\r\n0" + END

    @property
    def good(self) -> bool:
        """The last whole answer's status is a 2xx."""
        return self._good

    def body(self, data: bytes | bytearray) -> bytes:
        """The body of a whole answer."""
        raw = bytes(data[len(self._head) :])
        return raw if self._total else unchunk(raw)


def content_length(head: bytes) -> int | None:
    """None for a chunked answer."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    if b"chunked" in head.lower():
        return None
    raise BrokenAnswerError(f"neither a length nor chunks: {head!r}")


def unchunk(raw: bytes) -> bytes:
    parts, rest = [], raw
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size.split(b";")[0], 16)
        if not count:
            break
        parts.append(rest[:count])
        rest = rest[count + 2 :]
    return b"".join(parts)


class Connection:
    """One blocking socket, one request at a time. For one thread."""

    def __init__(self, port: int, timeout: float = 60) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = AnswerParser()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> bytearray:
        """Send a whole request, return the whole answer with its headers."""
        self._socket.sendall(request)
        answer = bytearray()
        while not answer or not self._parser.whole(answer):
            part = self._socket.recv(1 << 20)
            if not part:
                raise BrokenAnswerError(f"closed after {len(answer)} bytes")
            answer += part
        return answer

    def fetch(self, request: bytes) -> tuple[bool, bytes]:
        """Whether the answer is a 2xx, and its body."""
        answer = self.ask(request)
        return self._parser.good, self._parser.body(answer)

    @property
    def good(self) -> bool:
        return self._parser.good
