"""The least that a server can do with a request of any wire format: read its body, answer as many bytes as it is told.

How many is the path's last part, by HTTP `/answer/400` and by gRPC `/floor.Answer/400`; the latter for `SIZES` only.
gRPC is grpc.aio's, as people use it from Python, with handlers that take the message as it came.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import grpc

from benchmarks.models import MLP

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SIZES = [size * MLP.outputs * 4 for size in (1, *MLP.batches)]
STARTED = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    while (await receive()).get("more_body"):
        pass
    start, body = answer(scope["path"])
    await send(start)
    await send(body)


@functools.cache
def answer(path: str) -> tuple[Message, Message]:
    body = bytes(int(path.rsplit("/", 1)[1]))
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(len(body)).encode())]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    return start, {"type": "http.response.body", "body": body}


async def lifespan(receive: Receive, send: Send) -> None:
    """gRPC beside it, for as long as this worker lives; all workers listen on the same port."""
    await receive()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 1)])
    handlers = {str(size): grpc.unary_unary_rpc_method_handler(answering(size)) for size in SIZES}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("floor.Answer", handlers)])
    server.add_insecure_port(f"127.0.0.1:{os.environ['BENCH_GRPC_PORT']}")
    await server.start()
    await send(STARTED)
    await receive()
    await server.stop(None)
    await send(STOPPED)


def answering(size: int) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]:
    message = bytes(size)

    async def call(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return message

    return call
