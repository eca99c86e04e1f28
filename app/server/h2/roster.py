"""The streams of one connection: which are open, which have ended before the client can know, and what they hold."""

import asyncio

from app.server.h2 import frames, replies
from app.server.h2.frames import ErrorCode
from app.server.h2.lane import GrpcLane
from app.server.h2.patience import Patience
from app.server.h2.sending import Sender
from app.server.h2.streams import Stream

STREAM_WINDOW = 4 << 20
"""Bytes that a client may send on a stream before it is told that there is room for more."""

_MOST_EARLY = 1024


class Roster:
    """What a connection is to its streams."""

    sender: Sender
    client = ""
    """Who it is, for the access log."""

    def __init__(self, lane: GrpcLane, loop: asyncio.AbstractEventLoop) -> None:
        self.lane = lane
        self.loop = loop
        self.streams: dict[int, Stream] = {}
        self._patience = Patience()
        self._over = False
        self._last = 0
        """The highest that the client has begun."""
        self._final: int | None = None
        """The highest that is served: there was a GOAWAY."""
        self._early: dict[int, None] = {}
        """Those that ended before the client had sent all, which it may not know yet."""
        self._held = 0
        """Bytes of messages that wait."""

    def emptied(self) -> None:
        """The last stream has ended."""

    def register(self, stream: Stream) -> None:
        self.streams[stream.sid] = stream
        stream.registered = True

    def leave(self, stream: Stream) -> None:
        """A stream has ended: forget it."""
        if self.streams.pop(stream.sid, None) is None:
            return
        self._held -= stream.held
        if stream.outbox is not None:
            self.sender.forget(stream)
        if not stream.ended and not self._over:
            # What it sends in vain is not asked for any more (RFC 9113, section 8.1).
            self._reset(stream.sid, ErrorCode.NO_ERROR)
            self._expect_more(stream.sid)
        if not self.streams:
            self.emptied()

    def credit(self, stream: Stream) -> None:
        """Tell the client that there is room for more on a stream, if much has come since it was last told."""
        if stream.taken >= STREAM_WINDOW // 2 and not stream.ended and not stream.choked:
            self.sender.write(frames.window_update(stream.sid, stream.taken))
            stream.taken = 0

    def hold(self, stream: Stream) -> None:
        """Count the bytes that wait on a stream for what is to come; above what one connection may hold it is ended."""
        waiting = stream.waiting
        self._held += waiting - stream.held
        stream.held = waiting
        most = 4 * self.lane.max_message
        if self._held > most and not stream.closed:
            message = f"the calls of this connection have sent {self._held} bytes that wait, and {most} is the most"
            stream.end_with(replies.RESOURCE_EXHAUSTED, message)

    def _reset(self, sid: int, code: ErrorCode) -> None:
        self.sender.write(frames.rst_stream(sid, code))

    def _fail_stream(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream on which the client broke the protocol."""
        self._count_reset()
        self._reset(stream.sid, code)
        if not stream.ended:
            self._expect_more(stream.sid)
        stream.ended = True
        stream.abandon()
        stream.close()

    def _expect_more(self, sid: int) -> None:
        """There may be frames on the way of a stream that is closed."""
        self._early[sid] = None
        if len(self._early) > _MOST_EARLY:
            del self._early[next(iter(self._early))]

    def _count_reset(self) -> None:
        self._patience.count_reset(self.loop.time(), self._last)

    def _tire(self, weight: int = 1) -> None:
        self._patience.tire(self.loop.time(), self.sender.turns, weight)
