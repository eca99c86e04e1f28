"""A lane on a real port, with a grpc.aio server behind it, on an event loop of its own."""

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from app.errors import LitepoolError
from app.protocols.call import Answer
from app.runtime.job import Job
from app.server.h2.connection import GrpcProtocol
from app.server.h2.head import Body, Caller, Hot, Streamed
from app.server.h2.lane import GrpcLane
from app.server.h2.relay import TOLD, Relay
from tests.loops import PATIENCE

T = TypeVar("T")
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def as_it_is(body: Body) -> tuple[bytes | memoryview, ...]:
    return body.pieces if isinstance(body, Answer) else (body,)


class Waiting(Job):
    """A call that a test answers; `gone` is set when its client has left."""

    def __init__(self, message: bytes, seconds: float | None, caller: Caller) -> None:
        self.message = message
        self.seconds = seconds
        self.caller = caller
        self.gone = asyncio.Event()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "abandoned":
            self.gone.set()


class Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    """What is behind the relay: `/cold.Service/*`.

    They read before they answer: grpc.aio's client takes a call that ends before it was written to for broken.
    """

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        name = details.method.rpartition("/")[2]
        method = getattr(self, name, None) if details.method.startswith("/cold.Service/") else None
        return grpc.stream_stream_rpc_method_handler(method) if method is not None else None

    async def echo(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata(context.invocation_metadata())
        async for request in requests:
            yield request
        context.set_trailing_metadata((("trailing", "yes"), ("trailing-bin", b"\0\xff")))

    async def refuse(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await anext(requests)
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: 5 % ☃", (("why", "because"), TOLD))
        yield b""

    async def cancel(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await anext(requests)
        await context.abort(grpc.StatusCode.CANCELLED, "changed my mind", (TOLD,))
        yield b""

    async def fail(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
            raise ValueError("a secret")

    async def remaining(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await anext(requests)
        left = context.time_remaining()
        yield b"none" if left is None else b"%d" % left

    async def wait(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield b"begun"
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def patient(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("ready", "yes"),))
        async for request in requests:
            yield request

    async def many(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            for number in range(int(request)):
                yield b"%d" % number + bytes(1 << 18)


class Served:
    """Hot are `/hot.Service/Echo`, `Wait` and `Refuse`, and of many requests `Echoes` and `Waits`."""

    def __enter__(self) -> "Served":
        self.folder = tempfile.TemporaryDirectory()
        self._started = threading.Event()
        self.thread = threading.Thread(target=uvloop.run, args=(self._main(),))
        self.thread.start()
        assert self._started.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.folder.cleanup()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a test's coroutine on the server's loop, as grpc.aio wants one loop for all."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(2 * PATIENCE)

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.address, options=(*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)))

    def new_lane(self) -> GrpcLane:
        hot: dict[bytes, Hot] = {
            b"/hot.Service/Echo": self.echo,
            b"/hot.Service/Wait": self.wait,
            b"/hot.Service/Refuse": self.refuse,
            b"/hot.Service/Echoes": Streamed(self.echo, as_it_is, lambda message, error: message),
            b"/hot.Service/Waits": Streamed(self.wait, as_it_is, lambda message, error: message),
        }
        self.lanes.append(GrpcLane(hot, self.relay, 128 << 20, lambda error: (9, error.message)))
        return self.lanes[-1]

    def new_relay(self) -> Relay:
        return Relay(self.target)

    async def listen(self, lane: GrpcLane) -> str:
        server = await self.loop.create_server(lambda: GrpcProtocol(lane, self.loop), "127.0.0.1", 0)
        self.servers.append(server)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.lanes: list[GrpcLane] = []
        self.servers: list[asyncio.Server] = []
        self.jobs: asyncio.Queue[Waiting] = asyncio.Queue()
        self.methods = Methods()
        target = f"unix:{Path(self.folder.name) / 'grpc'}"
        server = grpc.aio.server(options=UNLIMITED)
        server.add_generic_rpc_handlers((self.methods,))
        self.health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        await self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        server.add_insecure_port(target)
        await server.start()
        self.target = target
        self.relay = self.new_relay()
        self.lane = self.new_lane()
        self.address = await self.listen(self.lane)
        self._started.set()
        await self._stop.wait()
        for listening in self.servers:
            listening.close()
        for lane in self.lanes:
            await lane.drain(PATIENCE)
        await self.relay.close()
        await server.stop(None)

    def echo(self, message: bytes, seconds: float | None, caller: Caller) -> Job | None:
        caller.answer(message, "")
        return None

    def wait(self, message: bytes, seconds: float | None, caller: Caller) -> Job | None:
        job = Waiting(message, seconds, caller)
        self.jobs.put_nowait(job)
        return job

    def refuse(self, message: bytes, seconds: float | None, caller: Caller) -> Job | None:
        caller.refuse(LitepoolError("no: 5 % ☃\n"))
        return None
