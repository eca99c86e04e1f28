"""Triton's `ModelStreamInfer`: requests one after another on one call, each answered in its turn.

Those that follow are begun before the first is answered, up to a number, and the answers come in the order of the
requests, as Triton's do for models that give one answer to a request. One that fails says so in the answer's
`error_message`, and the stream goes on.
"""

import asyncio
from collections.abc import AsyncIterator

from app.errors import InvalidArgument, LitepoolError, Unavailable
from app.protocols import protobuf
from app.runtime.job import Job
from app.server.predict import Caller
from app.server.rpc.calls import Left, Stream, joined
from app.server.rpc.hot import Start

_AHEAD = 32
"""Requests of one stream that are under way at a time."""

_ERROR_MESSAGE, _INFER_RESPONSE = 1, 2
_ID, _PARAMETERS = 3, 4
"""Fields of the answer's message, and of the one within."""

_FINAL = protobuf.write_bytes(
    _PARAMETERS,
    protobuf.write_bytes(1, b"triton_final_response") + protobuf.write_bytes(2, b"\x08\x01"),
)
"""The parameter by which clients know the last answer to a request, which here is the only one."""


class _Turn:
    """One request's, in the order of the answers."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.caller = Caller()
        self.job: Job | None = None

    async def answer(self) -> bytes:
        told = await self.caller.reply
        if isinstance(told, LitepoolError):
            within = protobuf.write_bytes(_ID, _identity(self.message)) + _FINAL
            return protobuf.write_bytes(_ERROR_MESSAGE, told.message.encode()) + protobuf.write_bytes(
                _INFER_RESPONSE, within
            )
        return protobuf.write_bytes(_INFER_RESPONSE, joined(told[0]) + _FINAL)


def streaming(start: Start, ending: asyncio.Event) -> Stream:
    """A hot call as one of many requests.

    Args:
        ending: set when the server takes no more requests, also not on streams that are open.
    """

    async def stream(messages: AsyncIterator[bytes], left: Left) -> AsyncIterator[bytes]:
        turns: asyncio.Queue[_Turn | None] = asyncio.Queue()
        room = asyncio.Semaphore(_AHEAD)
        under_way: set[_Turn] = set()

        async def read() -> None:
            async for message in until(ending, messages):
                await room.acquire()
                turn = _Turn(message)
                turn.job = start(message, left(), turn.caller)
                under_way.add(turn)
                turns.put_nowait(turn)

        reading = asyncio.ensure_future(read())
        reading.add_done_callback(lambda _: turns.put_nowait(None))
        try:
            while (turn := await turns.get()) is not None:
                yield await turn.answer()
                under_way.discard(turn)
                room.release()
            await reading
            if ending.is_set():
                raise Unavailable("the server is shutting down", retry_after=1)
        finally:
            reading.cancel()
            for turn in under_way:
                if turn.job is not None:
                    turn.job.abandoned = True

    return stream


async def until(ending: asyncio.Event, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The messages that come before the end."""
    end = asyncio.ensure_future(ending.wait())
    upcoming = None
    try:
        while not ending.is_set():
            upcoming = asyncio.ensure_future(_next(messages))
            await asyncio.wait((upcoming, end), return_when=asyncio.FIRST_COMPLETED)
            if not upcoming.done():
                return
            message = upcoming.result()
            if message is None:
                return
            yield message
    finally:
        end.cancel()
        if upcoming is not None:
            upcoming.cancel()


async def _next(messages: AsyncIterator[bytes]) -> bytes | None:
    return await anext(messages, None)


def _identity(message: bytes) -> bytes:
    """A request's own name, by which its caller knows the answer; empty where there is none to be found."""
    found = b""
    try:
        for number, _, value in protobuf.fields(memoryview(message)):
            if number == _ID and isinstance(value, memoryview):
                found = bytes(value)
        protobuf.text(memoryview(found), "id")
    except InvalidArgument:
        return b""
    return found
