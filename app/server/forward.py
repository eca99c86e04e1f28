"""Sequences between workers: a request of one goes to the worker that keeps it, wherever its connection is.

A sequence is a client's run of requests that share state in the server, and names itself in a header. Each belongs to
one worker by a hash of its name. Every worker listens on a Unix socket in a folder that only this user may enter; a
request comes there as a frame, is served by the same ASGI application, and its answer goes back as a frame: a length of
the head and one of the body, big-endian, then a head in JSON, then the body. A connection carries one request at a time
and is kept for the next; its end before the answer says that the client, or the worker, is gone.
"""

import asyncio
import struct
from collections.abc import Coroutine, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import DeadlineExceeded, LitepoolError, Unavailable
from app.server.errors import error_response
from app.server.incoming import ClientGone, Incoming, refuse_unread
from app.server.sequence import sequence_of

FORWARDED = "litepool.forwarded"
"""In the `extensions` of a scope: another worker has sent the request here."""

_LENGTHS = struct.Struct(">IQ")
_LARGEST_HEAD = 1 << 20
_MOST_IDLE = 32
_MARGIN_SECONDS = 1.0
"""By how much the owner's own answer to a request that waits too long may come later than that."""

_KEPT = ("http_version", "method", "scheme", "path", "root_path", "client", "server")


_Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Reply(NamedTuple):
    """An answer as ASGI has it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Peers:
    """The workers, this one among them, as owners of sequences.

    Args:
        folder: where their sockets are.
        index: this worker's, which one that replaces it takes over.
        workers: how many there are.
        max_body: the largest body of a request, in bytes.
        request_timeout: seconds that a request may wait for its model.
    """

    def __init__(self, folder: Path, index: int, workers: int, max_body: int, request_timeout: float) -> None:
        self._folder = folder
        self._workers = workers
        self._timeout = request_timeout + _MARGIN_SECONDS
        self._idle: dict[int, list[_Link]] = {}
        """Connections on which nothing is awaited, by the worker that they lead to."""
        self.index = index
        self.max_body = max_body

    def socket_of(self, index: int) -> Path:
        return self._folder / f"{index}.sock"

    def owner_of(self, sequence: str) -> int:
        """The index of the worker that keeps a sequence: the same in every worker, and after a replacement."""
        return int.from_bytes(blake2b(sequence.encode(), digest_size=8).digest()) % self._workers

    def is_elsewhere(self, sequence: str) -> bool:
        """Whether another worker keeps a sequence."""
        return self.owner_of(sequence) != self.index

    async def forward(self, owner: int, scope: Scope, body: bytes) -> Reply:
        """Have another worker answer a request, whose connection to us it does not see. To be cancelled if the client
        goes: the other worker then takes the client for gone.

        Raises:
            Unavailable: that worker is gone, and has not answered.
            DeadlineExceeded: it does not answer.
        """
        try:
            async with asyncio.timeout(self._timeout):
                head, answer = await self._exchange(owner, frame(_head_of(scope), body))
        except TimeoutError:
            raise DeadlineExceeded(
                f"the worker that keeps this sequence has not answered within {self._timeout:g} s"
            ) from None
        except (OSError, EOFError):
            raise Unavailable(
                "the worker that kept this sequence is gone, and what it knew of it: begin the sequence again",
                retry_after=1,
            ) from None
        return Reply(head["status"], _headers_from(head["headers"]), answer)

    def close(self) -> None:
        """Close what is kept open; to be called when nothing is passed on any more."""
        for links in self._idle.values():
            for _, writer in links:
                writer.close()
        self._idle.clear()

    async def _exchange(self, owner: int, request: tuple[bytes, bytes]) -> tuple[dict[str, Any], bytes]:
        """Send a frame; the one that comes back."""
        links = self._idle.setdefault(owner, [])
        reader, writer = await self._link(owner, links)
        answer = None
        try:
            writer.writelines(request)
            await writer.drain()
            answer = await read_frame(reader)
        finally:
            if answer is not None and len(links) < _MOST_IDLE:
                links.append((reader, writer))
            else:
                writer.close()
        return answer

    async def _link(self, owner: int, links: list[_Link]) -> _Link:
        """A connection to a worker: one that is idle, or a new one."""
        while links:
            reader, writer = links.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            # Its worker has died, and there may be another by now.
            writer.close()
        return await asyncio.open_unix_connection(self.socket_of(owner))


class Forwarding:
    """An ASGI endpoint for requests that may belong to a sequence: it passes on those that are another worker's."""

    def __init__(self, app: ASGIApp, peers: Peers) -> None:
        self._app = app
        self._peers = peers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(receive)
        try:
            owner = self._elsewhere(scope)
            if owner is None:
                await self._app(scope, receive, send)
                return
            body = await incoming.read(dict(scope["headers"]), self._peers.max_body)
        except LitepoolError as error:
            await refuse_unread(error, incoming, send, self._peers.max_body)
            return
        except ClientGone:
            return
        try:
            reply = await unless_gone(self._peers.forward(owner, scope, body), receive)
        except LitepoolError as error:
            await error_response(error)(scope, receive, send)
            return
        if reply is not None:
            await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            await send({"type": "http.response.body", "body": reply.body})

    def _elsewhere(self, scope: Scope) -> int | None:
        """The worker that the request is to be passed on to; None if it is for this one."""
        sequence = sequence_of(scope["headers"])
        if sequence is None or FORWARDED in scope.get("extensions", {}):
            return None
        owner = self._peers.owner_of(sequence)
        return None if owner == self._peers.index else owner


async def unless_gone(forwarding: Coroutine[Any, Any, Reply], receive: Receive) -> Reply | None:
    """Wait for the reply and for the client's going at once; None when the client went first.

    Raises:
        LitepoolError: as `Peers.forward`.
    """
    reply = asyncio.ensure_future(forwarding)
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((reply, gone), return_when=asyncio.FIRST_COMPLETED)
        return reply.result() if reply.done() else None
    finally:
        for task in (reply, gone):
            task.cancel()


def frame(head: dict[str, Any], body: bytes) -> tuple[bytes, bytes]:
    """A frame in two pieces, so that a large body is not copied."""
    text = orjson.dumps(head)
    return _LENGTHS.pack(len(text), len(body)) + text, body


async def read_frame(reader: asyncio.StreamReader, most: int | None = None) -> tuple[dict[str, Any], bytes]:
    """A frame's head and body.

    Args:
        most: bytes that the body may have.

    Raises:
        EOFError: the other side has closed the connection, or has sent what is no frame.
    """
    head_length, length = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    if head_length > _LARGEST_HEAD or (most is not None and length > most):
        raise EOFError
    text = await reader.readexactly(head_length)
    body = await reader.readexactly(length)
    try:
        return orjson.loads(text), body
    except orjson.JSONDecodeError:
        raise EOFError from None


def _head_of(scope: Scope) -> dict[str, Any]:
    head = {name: scope[name] for name in _KEPT}
    head["raw_path"] = scope["raw_path"].decode("latin-1")
    head["query_string"] = scope["query_string"].decode("latin-1")
    head["headers"] = headers_to(scope["headers"])
    return head


def scope_of(head: dict[str, Any]) -> Scope:
    """The scope of a request that another worker has passed on."""
    return {
        **{name: head[name] for name in _KEPT},
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "client": head["client"] and tuple(head["client"]),
        "server": head["server"] and tuple(head["server"]),
        "raw_path": head["raw_path"].encode("latin-1"),
        "query_string": head["query_string"].encode("latin-1"),
        "headers": _headers_from(head["headers"]),
        "state": {},
        "extensions": {FORWARDED: {}},
    }


def headers_to(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Headers for a frame's head."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _headers_from(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
