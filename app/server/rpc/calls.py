"""What a call is to whoever carries it: bytes to bytes, with the time that the caller still waits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from app.errors import LitepoolError
from app.protocols.call import Answer
from app.server.predict import Caller
from app.server.rpc.hot import Start

if TYPE_CHECKING:
    from app.server.rpc.messages import Method

Left = Callable[[], float | None]
"""Seconds that the caller still waits; None: for ever."""

Unary = Callable[[bytes, Left], Awaitable[bytes]]
"""A message to a message. It may raise LitepoolError or Refused; it is cancelled when the caller goes."""

Stream = Callable[[AsyncIterator[bytes], Left], AsyncIterator[bytes]]
"""Messages to messages; likewise."""


def joined(body: bytes | Answer) -> bytes:
    return b"".join(body.pieces) if isinstance(body, Answer) else body


def awaited(start: Start) -> Unary:
    """A hot call as one that can be awaited."""

    async def call(message: bytes, left: Left) -> bytes:
        caller = Caller()
        job = start(message, left(), caller)
        try:
            told = await caller.reply
        except asyncio.CancelledError:
            if job is not None:
                job.abandoned = True
            raise
        if isinstance(told, LitepoolError):
            raise told
        return joined(told[0])

    return call


def described(method: "Method", answer: Callable[[Any], Awaitable[Any]]) -> Unary:
    """A call whose request is read, and whose answer is written, by the messages of its service.

    Args:
        answer: from the request's message to the answer's, or to that in its form as JSON.
    """

    async def call(message: bytes, _: Left) -> bytes:
        return method.write(await answer(method.read(message)))

    return call
