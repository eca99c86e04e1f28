"""`POST` to a prediction path as a plain ASGI endpoint: no framework between the bytes and the dataplane."""

import asyncio
from collections.abc import Sequence

from starlette.types import Receive, Scope, Send

from app.bound import Wants
from app.dataplane import DataPlane, Limits, NotHere
from app.errors import LitepoolError, UnsupportedFormat
from app.protocols.call import SHOWN, Answer, Wire
from app.protocols.coding import coding_of
from app.repository.manager import Target
from app.runtime.job import Job, Step
from app.server.errors import error_response
from app.server.forward import FORWARDED, Peers, Reply, unless_gone
from app.server.incoming import ClientGone, Incoming, refuse_unread
from app.server.paths import target_of
from app.server.sequence import step_of

_CHARSETS = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})


Told = tuple[bytes | Answer, str]
"""A body and its media type, as the dataplane gives them."""


class Predict:
    """The ASGI edge of the dataplane, for one wire format.

    Args:
        max_body: the largest body taken, in bytes.
        peers: of a worker that is not alone.
    """

    def __init__(
        self, dataplane: DataPlane, max_body: int, wire: Wire = Wire.PREDICT, peers: Peers | None = None
    ) -> None:
        self._dataplane = dataplane
        self._max_body = max_body
        self._wire = wire
        self._peers = peers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        incoming = Incoming(receive)
        try:
            coding, content_type = headers.get(b"content-encoding", b""), headers.get(b"content-type", b"")
            refusal = unsupported(coding, content_type, self._wire)
            if refusal is not None:
                raise refusal
            body = await incoming.read(headers, self._max_body)
        except LitepoolError as error:
            await refuse_unread(error, incoming, send, self._max_body)
            return
        except ClientGone:
            return
        try:
            target, step = target_of(scope["path_params"], self._wire), step_of(scope["headers"])
            wants = wants_of([headers.get(name, b"") for name in WANTS], self._wire)
            reply = await self._reply(target, step, wants, body, scope, receive)
        except LitepoolError as error:
            await error_response(error, self._wire)(scope, receive, send)
            return
        if reply is not None:
            await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            await send({"type": "http.response.body", "body": reply.body})

    async def _reply(
        self, target: Target, step: Step | None, wants: Wants, body: bytes, scope: Scope, receive: Receive
    ) -> Reply | None:
        """The dataplane's reply; None when the client went away before it came.

        Raises:
            LitepoolError: the request is refused.
        """
        caller = Caller()
        peers = self._peers
        here = peers is None or FORWARDED in scope.get("extensions", {})
        limits = Limits(elsewhere=None if here or peers is None else peers.is_elsewhere)
        try:
            job = self._dataplane.predict(target, wants, body, caller, step, limits)
        except NotHere as stranger:
            assert peers is not None
            return await unless_gone(peers.forward(peers.owner_of(stranger.sequence), scope, body), receive)
        if not caller.reply.done():
            assert job is not None
            if not await is_answered(caller.reply, job, receive):
                return None
        told = caller.reply.result()
        if isinstance(told, LitepoolError):
            raise told
        return _reply_of(*told)


def _reply_of(body: bytes | Answer, media_type: str) -> Reply:
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(body, Answer):
        headers += body.headers
        media_type = body.media_type
        body = b"".join(body.pieces)
    headers += [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body))]
    return Reply(200, headers, body)


WANTS = (
    b"content-type",
    b"accept",
    b"litepool-signature",
    b"litepool-numbers",
    b"content-encoding",
    b"accept-encoding",
    b"inference-header-content-length",
)
"""The headers that `wants_of` takes, in its order."""


def wants_of(headers: Sequence[bytes], wire: Wire) -> Wants:
    """What a request's headers ask for. Names of signatures, which may be any text, are sent as UTF-8."""
    content_type, accept, signature, numbers, coding, accept_coding, head_length = headers
    return Wants(
        content_type.decode("latin-1"),
        accept.decode("latin-1"),
        signature.decode("utf-8", "replace"),
        numbers.decode("latin-1"),
        coding.decode("latin-1"),
        accept_coding.decode("latin-1"),
        head_length.decode("latin-1"),
        wire,
    )


class Caller:
    """What the dataplane answers, as a future; what comes when nobody waits any more is dropped."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[Told | LitepoolError] = asyncio.get_running_loop().create_future()

    def answer(self, body: bytes | Answer, media_type: str) -> None:
        if not self.reply.done():
            self.reply.set_result((body, media_type))

    def refuse(self, error: LitepoolError) -> None:
        if not self.reply.done():
            self.reply.set_result(error)


async def is_answered(reply: "asyncio.Future[Told | LitepoolError]", job: Job, receive: Receive) -> bool:
    """Wait for the reply and for the client's going at once; a call that nobody waits for is abandoned."""
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((reply, gone), return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            job.abandoned = True
        return reply.done()
    finally:
        gone.cancel()


def unsupported(coding: bytes, content_type: bytes, wire: Wire = Wire.PREDICT) -> UnsupportedFormat | None:
    """Why a body cannot be read as it is, going by its Content-Encoding and the charset of its Content-Type.

    The servers whose formats the other wires are never look at a Content-Type, and some clients send none that fits.
    """
    try:
        coding_of(coding.decode("latin-1"))
    except UnsupportedFormat as error:
        return error
    parameters = content_type.decode("latin-1").split(";")[1:] if wire is Wire.PREDICT else []
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _CHARSETS:
            return UnsupportedFormat(f"Content-Type: charset {value.strip()[:SHOWN]!r} is not supported; use utf-8")
    return None
