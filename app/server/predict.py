"""`POST /predict[/{model}]` as a plain ASGI endpoint: no framework between the bytes and the dataplane."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress

from starlette.types import Receive, Scope, Send

from app.dataplane import DataPlane, Wants
from app.errors import LitepoolError, NotFound, TooLarge, UnsupportedFormat
from app.repository.manager import Target
from app.runtime.job import Job, Step
from app.server.errors import error_response
from app.server.sequence import step_of

_DROP_SECONDS = 30.0
"""How long the rest of a refused body may take to come."""

_VERSION = re.compile(r"[0-9]{1,18}")

_CHARSETS = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})


Answer = tuple[bytes, str]
"""A body and its media type."""


class ClientGone(Exception):
    """The connection closed before the request was whole."""


class Predict:
    """The ASGI edge of the dataplane.

    Args:
        max_body: the largest body taken, in bytes.
    """

    def __init__(self, dataplane: DataPlane, max_body: int) -> None:
        self._dataplane = dataplane
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        incoming = Incoming(receive)
        try:
            refusal = unsupported(headers.get(b"content-encoding", b""), headers.get(b"content-type", b""))
            if refusal is not None:
                raise refusal
            body = await incoming.read(headers, self._max_body)
        except LitepoolError as error:
            await refuse_unread(error, incoming, send, self._max_body)
            return
        except ClientGone:
            return
        try:
            target, step = target_of(scope["path_params"]), step_of(scope["headers"])
        except LitepoolError as error:
            await error_response(error)(scope, receive, send)
            return
        reply = await self._reply(target, step, body, headers, receive)
        if reply is None:
            return
        if isinstance(reply, LitepoolError):
            await error_response(reply)(scope, receive, send)
            return
        answer, media_type = reply
        length = str(len(answer)).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", media_type.encode()), (b"content-length", length)],
            }
        )
        await send({"type": "http.response.body", "body": answer})

    async def _reply(
        self, target: Target, step: Step | None, body: bytes, headers: dict[bytes, bytes], receive: Receive
    ) -> Answer | LitepoolError | None:
        """The dataplane's reply; None when the client went away before it came."""
        caller = Caller()
        wants = wants_of(*(headers.get(name, b"") for name in WANTS))
        job = self._dataplane.predict(target, wants, body, caller, step)
        if caller.reply.done():
            return caller.reply.result()
        assert job is not None
        return await _unless_gone(caller.reply, job, receive)


WANTS = (b"content-type", b"accept", b"litepool-signature", b"litepool-numbers")
"""The headers that `wants_of` takes, in its order."""


def wants_of(content_type: bytes, accept: bytes, signature: bytes, numbers: bytes) -> Wants:
    """What a request's headers ask for. Names of signatures, which may be any text, are sent as UTF-8."""
    return Wants(
        content_type.decode("latin-1"),
        accept.decode("latin-1"),
        signature.decode("utf-8", "replace"),
        numbers.decode("latin-1"),
    )


def target_of(parameters: Mapping[str, str]) -> Target:
    """What a path asks for.

    Raises:
        NotFound: a version that is no number.
    """
    version = parameters.get("version")
    if version is not None and not _VERSION.fullmatch(version):
        raise NotFound(f"no version {version[:80]!r}: versions are positive integers")
    return Target(parameters.get("model"), int(version) if version else None, parameters.get("label"))


def path_of(target: Target) -> bytes:
    """The path by which requests ask for it."""
    path = "/predict"
    if target.model is not None:
        path += f"/{target.model}"
    if target.version is not None:
        path += f"/versions/{target.version}"
    if target.label is not None:
        path += f"/labels/{target.label}"
    return path.encode()


class Caller:
    """What the dataplane answers, as a future; what comes when nobody waits any more is dropped."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[Answer | LitepoolError] = asyncio.get_running_loop().create_future()

    def answer(self, body: bytes, media_type: str) -> None:
        if not self.reply.done():
            self.reply.set_result((body, media_type))

    def refuse(self, error: LitepoolError) -> None:
        if not self.reply.done():
            self.reply.set_result(error)


async def _unless_gone(
    reply: "asyncio.Future[Answer | LitepoolError]", job: Job, receive: Receive
) -> Answer | LitepoolError | None:
    """Wait for the reply and for the client's going at once; a call that nobody waits for is abandoned."""
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((reply, gone), return_when=asyncio.FIRST_COMPLETED)
        if reply.done():
            return reply.result()
        job.abandoned = True
        return None
    finally:
        gone.cancel()


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


def unsupported(coding: bytes, content_type: bytes) -> UnsupportedFormat | None:
    """Why a body cannot be read as it is, going by its Content-Encoding and the charset of its Content-Type."""
    found = coding.decode("latin-1")
    if any(part.strip().lower() not in ("", "identity") for part in found.split(",")):
        return UnsupportedFormat(f"Content-Encoding: {found[:80]!r} is not supported; send the body as it is")
    for parameter in content_type.decode("latin-1").split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _CHARSETS:
            return UnsupportedFormat(f"Content-Type: charset {value.strip()[:80]!r} is not supported; use utf-8")
    return None
