"""A call on its stream: what those of hot methods have in common with the others."""

import math
from typing import TYPE_CHECKING

from app.errors import Unavailable
from app.server.h2 import frames, replies
from app.server.h2.frames import ErrorCode, StreamFault
from app.server.h2.head import Head
from app.server.h2.message import BadMessage, Inbox, Inflation, MessageTooLarge
from app.server.h2.sending import Outbox

if TYPE_CHECKING:
    from app.server.h2.roster import Roster

_NEARLY = 0.9
_TICK = 0.002
"""Seconds by which the loop's clock may lag."""


class Stream:
    """What all have in common.

    `window` is what the client takes of data, `taken` what has come since it was last told that there is room.
    """

    # Of the class, until a stream has its own: most never do.
    closed = False
    ended = False
    """Whether the client has sent all that it will."""
    registered = False
    taken = 0
    received = 0
    held = 0
    """Of `waiting`, what the connection has counted."""
    deadline: float | None = None
    """By the loop's clock."""
    patient_until = math.inf
    """When the client may have given up, by its own clock and its own rounding of the deadline."""
    begun = False
    """Whether the head of the answer is sent."""
    outbox: Outbox | None = None
    inbox: Inbox | None = None

    def __init__(self, connection: "Roster", sid: int, head: Head) -> None:
        self.connection = connection
        self.sid = sid
        self.head = head
        self.window = connection.sender.initial

    # The client's side.

    def begin(self) -> None:
        """The headers are here."""

    def receive(self, data: memoryview) -> None:
        """Take a piece of the body.

        Raises:
            StreamFault: it is more than the headers said.
        """
        inbox = self.inbox
        if inbox is None:
            inbox = self.inbox = Inbox(self.connection.lane.max_message)
        self.received += len(data)
        if 0 <= self.head.length < self.received:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR)
        try:
            for compressed, message in inbox.feed(data):
                self.take(compressed, message)
                if self.closed:
                    return
        except MessageTooLarge as error:
            self.end_with(replies.RESOURCE_EXHAUSTED, str(error))
        except BadMessage as error:
            self.end_with(replies.INTERNAL, str(error))
        else:
            self.connection.hold(self)

    def finish_receiving(self) -> None:
        """The client has sent all.

        Raises:
            StreamFault: it is less than the headers said.
        """
        self.ended = True
        if 0 <= self.head.length != self.received:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR)
        if self.inbox is not None and not self.inbox.empty:
            self.end_with(replies.INTERNAL, "the request ends in the middle of a message")
        else:
            self.take_end()

    @property
    def waiting(self) -> int:
        """Bytes of messages that are here and not yet on their way."""
        return self.inbox.held if self.inbox is not None else 0

    @property
    def choked(self) -> bool:
        """Whether the client should not be told of more room."""
        return False

    def take(self, compressed: bool, message: bytes) -> None:
        """A message is complete."""
        raise NotImplementedError

    def take_end(self) -> None:
        """The last message was the last."""
        raise NotImplementedError

    def retire(self) -> None:
        """The connection ends, and waits for this: what would last should not."""

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        raise NotImplementedError

    def inflate(self, message: bytes) -> Inflation:
        return Inflation(self.head.encoding, message, self.connection.lane.max_message)

    def expect(self, timeout: float | None) -> None:
        """The client waits so many seconds from now."""
        if timeout is not None:
            now = self.connection.loop.time()
            self.deadline = now + timeout
            self.patient_until = now + _NEARLY * timeout - _TICK

    @property
    def nearly_late(self) -> bool:
        """Whether the client's time is up, as far as it can be known here."""
        return self.patient_until <= self.connection.loop.time()

    def left(self) -> float | None:
        """The seconds that the client still waits."""
        return None if self.deadline is None else max(self.deadline - self.connection.loop.time(), 0.0)

    # Ours.

    @property
    def unsent(self) -> bool:
        """Whether some of an answer waits for the client to take it."""
        return self.outbox is not None and self.outbox.size > 0

    def sent(self) -> None:
        """All of the outbox is with the transport: if its end was in it, the stream is over."""
        assert self.outbox is not None
        if self.outbox.tail:
            self.close()

    def end_with(self, code: int, message: str, metadata: replies.Metadata = ()) -> None:
        """Answer with nothing but a status, and give up what is under way."""
        self.abandon()
        if not self.closed:
            make = replies.trailers if self.begun else replies.trailers_only
            self.write_headers(make(code, message, metadata), end=True)
            self.close()

    def turn_away(self) -> None:
        """Answer that the server ends, and give up what is under way."""
        ending = Unavailable("the server is shutting down", retry_after=1)
        self.end_with(replies.UNAVAILABLE, ending.message, replies.pushback(ending))

    def write_headers(self, block: bytes, end: bool) -> None:
        sender = self.connection.sender
        sender.write(frames.headers(self.sid, block, end, sender.max_frame))

    def decline(self, refusal: replies.Refusal) -> None:
        """Answer by the headers alone."""
        self.write_headers(refusal.block, end=True)
        self.close()

    def close(self) -> None:
        self.closed = True
        if self.registered:
            self.connection.leave(self)
