"""A request's body on its way in, and the answer to one that is not wanted whole."""

import asyncio
from contextlib import suppress

from starlette.types import Receive, Send

from app.errors import LitepoolError, TooLarge
from app.server.errors import error_response

_DROP_SECONDS = 30.0
"""How long the rest of a refused body may take to come."""


class ClientGone(Exception):
    """The connection closed before the request was whole."""


class Incoming:
    """A request's body as it comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False
        self._size = 0

    async def read(self, headers: dict[bytes, bytes], limit: int) -> bytes:
        """Read the whole body.

        Raises:
            TooLarge: it is, or says that it is, above `limit` bytes.
            ClientGone: the connection closed first.
        """
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise TooLarge(f"the body has {int(declared)} bytes, and the server takes {limit} at most")
        chunks = []
        while not self._ended:
            chunk = await self._chunk()
            if self._size > limit:
                raise TooLarge(f"the body has more than {limit} bytes, the most that the server takes")
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def drop(self, limit: int) -> None:
        """Read what is left of the body, which is not waited for once it is above `limit` bytes.

        Raises:
            ClientGone: the connection closed first.
        """
        while not self._ended and self._size <= limit:
            await self._chunk()

    async def _chunk(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._ended = not message.get("more_body", False)
        chunk = message.get("body", b"")
        assert isinstance(chunk, bytes)
        self._size += len(chunk)
        return chunk


async def refuse_unread(error: LitepoolError, incoming: Incoming, send: Send, max_body: int) -> None:
    """Answer before the body is whole; the answer is not over for the server until the rest of it is dropped.

    If the connection closes then, it does so with nothing unread: that would be a reset, which takes the answer from a
    client that is still sending.
    """
    response = error_response(error)
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
    with suppress(ClientGone, TimeoutError):
        async with asyncio.timeout(_DROP_SECONDS):
            await incoming.drop(2 * max_body)
    await send({"type": "http.response.body", "body": b""})
