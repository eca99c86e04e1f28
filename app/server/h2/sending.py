"""What a connection sends: at once where the client's windows allow it, else when they do (RFC 9113, section 5.2)."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Protocol

from app.server.h2 import frames
from app.server.h2.frames import ConnectionFault, ErrorCode, StreamFault

_TURN_BYTES = 1 << 20
"""Bytes of one stream's data before those of another that waits."""

_SMALL = 1 << 16
"""Bytes that are copied into one buffer rather than handed to the transport as several."""


class Outlet(Protocol):
    """A stream, to the sender."""

    sid: int
    window: int
    outbox: "Outbox | None"

    def sent(self) -> None:
        """All of the outbox is with the transport."""


class Outbox:
    """What a stream still has to send: data, and perhaps the frames that end it."""

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()
        self.size = 0
        self.tail = b""

    def add(self, pieces: Iterable[bytes | memoryview]) -> None:
        for piece in pieces:
            view = memoryview(piece)
            if view.nbytes:
                self._pieces.append(view.cast("B"))
                self.size += view.nbytes

    def take(self, sid: int, room: int, max_frame: int) -> list[bytes | memoryview]:
        """Frames with the next bytes of data, at most `room`."""
        taken: list[bytes | memoryview] = []
        pieces = self._pieces
        room = min(room, self.size)
        self.size -= room
        while room:
            left = min(room, max_frame)
            room -= left
            taken.append(frames.FRAME.pack(left << 8, 0, sid))
            while left:
                piece = pieces[0]
                if len(piece) > left:
                    taken.append(piece[:left])
                    pieces[0] = piece[left:]
                    break
                taken.append(pieces.popleft())
                left -= len(piece)
        return taken


class Sender:
    """The way to the client, with its windows and the streams that wait for them."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self.window = frames.DEFAULT_WINDOW
        """Bytes of data that the client takes now, on all streams together."""
        self.initial = frames.DEFAULT_WINDOW
        """The same for a stream that is new."""
        self.max_frame = frames.DEFAULT_MAX_FRAME
        self.small = frames.DEFAULT_MAX_FRAME
        """Bytes of a message that may go out in one piece with all that is around it."""
        self.paused = False
        self.held = 0
        """Bytes of answers that wait for the client to take them."""
        self.turns = 0
        """How often some of them went."""
        self._ready: OrderedDict[Outlet, None] = OrderedDict()
        """The streams that wait, those not that wait for their own window."""
        self._corked: list[bytes | memoryview] | None = None

    # Bytes.

    def cork(self) -> None:
        """Gather what is written until `uncork`, to write it at once."""
        self._corked = []

    def uncork(self) -> None:
        corked, self._corked = self._corked, None
        if corked:
            self._write(corked)

    def write(self, data: bytes) -> None:
        if self._corked is not None:
            self._corked.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def _write_all(self, pieces: list[bytes | memoryview]) -> None:
        if self._corked is not None:
            self._corked += pieces
        else:
            self._write(pieces)

    def _write(self, pieces: list[bytes | memoryview]) -> None:
        if self._transport.is_closing():
            return
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        elif sum(map(len, pieces)) <= _SMALL:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)

    # Data.

    def send(self, outlet: Outlet) -> None:
        """Send what is in a stream's outbox, all of it new, now or as the windows open."""
        assert outlet.outbox is not None
        self.held += outlet.outbox.size
        self._ready[outlet] = None
        self.pump()

    def forget(self, outlet: Outlet) -> None:
        """A stream has ended: what it still had to send is dropped."""
        assert outlet.outbox is not None
        self._ready.pop(outlet, None)
        self.held -= outlet.outbox.size

    def pump(self) -> None:
        """Send as much as may go, one stream after the other."""
        while self._ready and self.window > 0 and not self.paused:
            self._turn(self._ready.popitem(last=False)[0])

    def _turn(self, outlet: Outlet) -> None:
        outbox = outlet.outbox
        assert outbox is not None
        room = min(outlet.window, self.window, outbox.size, _TURN_BYTES)
        if room <= 0:
            return
        outlet.window -= room
        self.window -= room
        self.held -= room
        self.turns += 1
        self._write_all(outbox.take(outlet.sid, room, self.max_frame))
        if not outbox.size:
            if outbox.tail:
                self.write(outbox.tail)
            outlet.sent()
        elif outlet.window > 0:
            self._ready[outlet] = None

    # Windows.

    def widen(self, size: int) -> None:
        """The client takes this many bytes more on all streams together.

        Raises:
            ConnectionFault: they are none, or too many.
        """
        if not size:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        self.window += size
        if self.window > frames.LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is more than 2^31-1")
        self.pump()

    def widen_stream(self, outlet: Outlet, size: int) -> None:
        """The same on one stream.

        Raises:
            StreamFault: they are none, or too many.
        """
        if not size:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR)
        if outlet.window + size > frames.LARGEST_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR)
        self._move(outlet, size)
        self.pump()

    def begin_with(self, initial: int, outlets: Iterable[Outlet]) -> None:
        """The client changes what its streams begin with, which moves the windows of those that are open.

        Raises:
            ConnectionFault: one becomes too large.
        """
        by = initial - self.initial
        for outlet in outlets:
            if outlet.window + by > frames.LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is more than 2^31-1")
            self._move(outlet, by)
        self.initial = initial

    def _move(self, outlet: Outlet, size: int) -> None:
        outlet.window += size
        if outlet.window > 0 and outlet.outbox is not None and outlet.outbox.size:
            self._ready[outlet] = None

    def resize(self, max_frame: int) -> None:
        self.max_frame = max_frame
        self.small = min(max_frame, _SMALL)
