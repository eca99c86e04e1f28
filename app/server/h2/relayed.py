"""A call of a method that is not hot: it goes to the grpc.aio server and back."""

import asyncio

from app.server.h2 import replies
from app.server.h2.message import PREFIX
from app.server.h2.relay import Passage
from app.server.h2.sending import Outbox
from app.server.h2.streams import Stream

_MOST_QUEUED = 1 << 20
"""Bytes that wait for the server of a call above which the client is not told of more room."""


class Relayed(Stream):
    """A call of any other method, which goes to the grpc.aio server and back."""

    _passage: Passage | None = None
    _queued = 0
    """Bytes of messages that the server has not taken yet."""
    _room: asyncio.Future[None] | None = None

    def begin(self) -> None:
        self._passage = self.connection.lane.relay.open(self, self.left())

    @property
    def waiting(self) -> int:
        return super().waiting + self._queued

    @property
    def choked(self) -> bool:
        return self._queued > _MOST_QUEUED

    def take(self, compressed: bool, message: bytes) -> None:
        if self._passage is not None:
            self._queued += len(message)
            self._passage.put(compressed, message)

    def take_end(self) -> None:
        if self._passage is not None:
            self._passage.put_end()

    def abandon(self) -> None:
        passage, self._passage = self._passage, None
        if passage is not None:
            passage.cancel()

    def passed(self, size: int) -> None:
        self._queued -= size
        if not self.closed:
            self.connection.hold(self)
            self.connection.credit(self)

    def begin_answer(self, metadata: replies.Metadata) -> None:
        if not self.begun and not self.closed:
            self.begun = True
            self.write_headers(replies.head(metadata), end=False)

    async def send(self, message: bytes) -> None:
        if self.closed:
            return
        if self.outbox is None:
            self.outbox = Outbox()
        self.outbox.add((PREFIX.pack(0, len(message)), message))
        self.connection.sender.send(self)
        if self.outbox.size:
            self._room = self.connection.loop.create_future()
            await self._room

    def sent(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def finish(self, code: int, message: str, metadata: replies.Metadata = ()) -> None:
        # It ends by itself.
        self._passage = None
        self.end_with(code, message, metadata)
