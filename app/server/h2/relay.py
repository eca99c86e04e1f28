"""The way to the grpc.aio server that has all methods which are not hot: message by message, bytes as they are."""

import asyncio
import logging
import math
from time import monotonic
from typing import Any, Protocol

import grpc
import grpc.aio

from app.server.errors import new_request_id
from app.server.h2 import replies
from app.server.h2.head import Head
from app.server.h2.message import BadMessage, Inflation, MessageTooLarge

log = logging.getLogger(__name__)

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_metadata_size", 1 << 17),
    ("grpc.absolute_max_metadata_size", 1 << 17),
)

TOLD = ("litepool-told", "1")
"""Metadata behind an answer whose status has a text of ours. It goes no further."""

_OF_GRPC = {
    grpc.StatusCode.DEADLINE_EXCEEDED: replies.LATE,
    grpc.StatusCode.CANCELLED: "the call was cancelled",
    grpc.StatusCode.UNAVAILABLE: "the part of the server that answers this call cannot be reached: try again",
}
"""What there is to say of a status that grpc.aio came to by itself. Its own texts are for its developers, and some tell
of the server's files."""

_FAILED = "the server failed on this call; its log has it as request %s"


class Sink(Protocol):
    """The client's side of a call."""

    head: Head

    def inflate(self, message: bytes) -> Inflation: ...
    def passed(self, size: int) -> None:
        """A message of so many bytes, as the client sent it, is with the server."""

    def begin_answer(self, metadata: replies.Metadata) -> None: ...
    async def send(self, message: bytes) -> None:
        """Send a message; done when the client has taken most of it."""

    def finish(self, code: int, message: str, metadata: replies.Metadata = ()) -> None: ...


class Relay:
    """A channel to the server.

    Args:
        target: where it listens, as `unix:/path`; no other may listen there.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel: grpc.aio.Channel | None = None

    def open(self, sink: Sink, seconds: float | None) -> "Passage":
        """Begin the call that a client's headers ask for; it may take so many seconds."""
        if self._channel is None:
            # Not before there is a loop that runs.
            self._channel = grpc.aio.insecure_channel(self._target, options=_OPTIONS)
        return Passage(self._channel, sink, seconds)

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()


class Passage:
    """One call on its way through. It begins when the loop comes to it."""

    def __init__(self, channel: Any, sink: Sink, seconds: float | None) -> None:
        self._channel = channel
        self._sink = sink
        self._seconds = seconds
        self._until = math.inf if seconds is None else monotonic() + seconds
        self._cancelled = False
        self._messages: asyncio.Queue[tuple[bool, bytes] | None] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def put(self, compressed: bool, message: bytes) -> None:
        self._messages.put_nowait((compressed, message))

    def put_end(self) -> None:
        """There is no further message from the client."""
        self._messages.put_nowait(None)

    def cancel(self) -> None:
        """The client does not wait any more."""
        self._cancelled = True
        self._task.cancel()

    async def _run(self) -> None:
        sink = self._sink
        try:
            call = self._channel.stream_stream(sink.head.path)(timeout=self._seconds, metadata=sink.head.metadata)
            writer = asyncio.create_task(self._write(call))
            try:
                await self._read(call)
            finally:
                writer.cancel()
                call.cancel()
        except asyncio.CancelledError:
            if not self._cancelled:
                # So grpc.aio says that the channel is closed.
                sink.finish(replies.UNAVAILABLE, "the server is closing")
            raise
        except grpc.aio.AioRpcError as error:
            self._finish(error.code(), error.details(), error.trailing_metadata())
        except Exception as error:  # As for any request: it is logged, and the caller is told.
            identity = new_request_id()
            log.error("request %s to %s failed", identity, sink.head.path, exc_info=error)
            sink.finish(replies.INTERNAL, _FAILED % identity)

    async def _read(self, call: Any) -> None:
        """Pass on what the server answers."""
        sink = self._sink
        metadata = await call.initial_metadata()
        if not call.done():
            sink.begin_answer(metadata or ())
        while (message := await call.read()) is not grpc.aio.EOF:
            sink.begin_answer(metadata or ())
            await sink.send(message)
        self._finish(await call.code(), await call.details(), await call.trailing_metadata())

    def _finish(self, code: grpc.StatusCode, details: str | None, metadata: Any) -> None:
        """Pass on how the call ended."""
        sink = self._sink
        pairs = tuple(metadata or ())
        if code is grpc.StatusCode.OK or TOLD in pairs:
            sink.finish(code.value[0], details or "", tuple(pair for pair in pairs if pair != TOLD))
            return
        if monotonic() >= self._until:
            # A call that is late before it has begun is an internal error to grpc.aio.
            code = grpc.StatusCode.DEADLINE_EXCEEDED
        text = _OF_GRPC.get(code)
        if text is None:
            identity = new_request_id()
            log.error("request %s to %s failed: %s, %s", identity, sink.head.path, code.name, details)
            code, text = grpc.StatusCode.INTERNAL, _FAILED % identity
        elif code is grpc.StatusCode.UNAVAILABLE:
            log.error("a call of %s could not be passed on: %s", sink.head.path, details)
        sink.finish(code.value[0], text)

    async def _write(self, call: Any) -> None:
        """Pass on what the client sends."""
        sink = self._sink
        try:
            while (item := await self._messages.get()) is not None:
                compressed, message = item
                size = len(message)
                if compressed:
                    inflation = sink.inflate(message)
                    begun = inflation.begin()
                    message = begun if begun is not None else await asyncio.to_thread(inflation.finish)
                await call.write(message)
                sink.passed(size)
            await call.done_writing()
        except MessageTooLarge as error:
            sink.finish(replies.RESOURCE_EXHAUSTED, str(error))
            call.cancel()
        except BadMessage as error:
            sink.finish(replies.INTERNAL, str(error))
            call.cancel()
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The call is over; whoever reads from it is told how it ended.
            return
