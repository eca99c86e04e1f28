"""`POST /predict[/{model}]` as a plain ASGI endpoint: no framework between the bytes and the dataplane."""

import asyncio

from starlette.types import Receive, Scope, Send

from app.dataplane import Answer, DataPlane
from app.errors import LitepoolError, TooLarge
from app.runtime.job import Job
from app.server.errors import error_response


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
        try:
            body = await read_body(receive, headers, self._max_body)
        except LitepoolError as error:
            await error_response(error)(scope, receive, send)
            return
        except ClientGone:
            return
        reply = await self._reply(scope["path_params"].get("model"), body, headers, receive)
        if reply is None:
            return
        if isinstance(reply, LitepoolError):
            await error_response(reply)(scope, receive, send)
            return
        length = str(len(reply.body)).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", reply.media_type.encode()), (b"content-length", length)],
            }
        )
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(
        self, model: str | None, body: bytes, headers: dict[bytes, bytes], receive: Receive
    ) -> Answer | LitepoolError | None:
        """The dataplane's reply; None when the client went away before it came."""
        future: asyncio.Future[Answer | LitepoolError] = asyncio.get_running_loop().create_future()

        def deliver(reply: Answer | LitepoolError) -> None:
            if not future.done():
                future.set_result(reply)

        content_type = headers.get(b"content-type", b"").decode("latin-1")
        accept = headers.get(b"accept", b"").decode("latin-1")
        job = self._dataplane.predict(model, body, content_type, accept, deliver)
        if future.done():
            return future.result()
        assert job is not None
        return await _unless_gone(future, job, receive)


async def _unless_gone(
    future: "asyncio.Future[Answer | LitepoolError]", job: Job, receive: Receive
) -> Answer | LitepoolError | None:
    """Wait for the reply and for the client's going at once; a call that nobody waits for is abandoned."""
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((future, gone), return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        job.abandoned = True
        return None
    finally:
        gone.cancel()


async def read_body(receive: Receive, headers: dict[bytes, bytes], limit: int) -> bytes:
    """Read a request's whole body.

    Raises:
        TooLarge: it is, or says that it is, above `limit` bytes.
        ClientGone: the connection closed first.
    """
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(f"the body has {int(declared)} bytes, and the server takes {limit} at most")
    chunks = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has more than {limit} bytes, the most that the server takes")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
