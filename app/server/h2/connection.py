"""One connection of a gRPC client: its transport, its beginning and its end."""

import asyncio
import logging
import socket

from app.server.h2 import frames
from app.server.h2.frames import ConnectionFault, ErrorCode
from app.server.h2.lane import GrpcLane
from app.server.h2.reading import GREETING, Reader
from app.server.h2.sending import Sender

log = logging.getLogger(__name__)

_FIRST_SECONDS = 20.0
"""How long a client may take to begin."""
_ACK_SECONDS = 1.0
"""How long a client may take to say that it knows that the connection will end."""

_FAREWELL = b"drained?"
"""The content of the ping whose answer says that a client has seen the first GOAWAY."""

_HTTP1 = (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"PATC")
_NOT_HTTP1 = b"this port speaks gRPC: HTTP/2 without TLS and without upgrade, and not HTTP/1.1\n"
_REFUSAL = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"


class GrpcProtocol(Reader, asyncio.Protocol):
    """What the transport talks to."""

    def __init__(self, lane: GrpcLane, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(lane, loop)
        self._greeted = False
        self._timer: asyncio.TimerHandle | None = None

    # Called by the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.sender = Sender(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            # A client whose machine is gone says nothing: the kernel asks.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self.lane.access_log:
            # Now, because a socket that is closed does not know.
            peer = transport.get_extra_info("peername")
            self.client = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""
        self._timer = self.loop.call_later(_FIRST_SECONDS, self._end)
        self.lane.joined(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._over = True
        self._stop_timer()
        for stream in list(self.streams.values()):
            stream.abandon()
            stream.close()
        self.lane.left(self)

    def pause_writing(self) -> None:
        self.sender.paused = True
        # A client that does not read its answers is not read from either.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.sender.paused = False
        if not self._transport.is_closing():
            self.sender.pump()
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not self._greeted:
            if len(data) < len(frames.PREFACE) and frames.PREFACE.startswith(data):
                self._rest = data
                return
            if not data.startswith(frames.PREFACE):
                self._refuse(data)
                return
            self._greet()
            data = data[len(frames.PREFACE) :]
        sender = self.sender
        sender.cork()
        try:
            self.read(data)
        except ConnectionFault as fault:
            log.info("ended a connection: %s (%s)", fault.message, fault.code.name)
            sender.write(frames.goaway(self._last, fault.code, fault.message))
            self._end()
        finally:
            sender.uncork()

    # Of the beginning and the end.

    def retire(self) -> None:
        """Take no more calls, and close when those under way are answered."""
        if self._over or self._retiring:
            return
        if not self._greeted:
            self.close()
            return
        self._retiring = True
        # What the client has sent by the time that it answers the ping is still served.
        self.sender.write(
            frames.goaway(frames.MOST_ID, ErrorCode.NO_ERROR) + frames.frame(frames.PING, 0, 0, _FAREWELL)
        )
        self._timer = self.loop.call_later(_ACK_SECONDS, self._take_no_more)

    def close(self) -> None:
        """Close now; what is under way is given up, and its callers are told."""
        if not self._over and self._greeted:
            self.sender.cork()
            for stream in list(self.streams.values()):
                # What ends in the middle of a message the end of the connection tells of.
                if not stream.unsent:
                    stream.turn_away()
            self.sender.write(frames.goaway(self._last, ErrorCode.NO_ERROR))
        self._end()

    def abort(self) -> None:
        """Close without a word more."""
        self._over = True
        self._transport.abort()

    def _end(self) -> None:
        self._over = True
        self.sender.uncork()
        self._transport.close()

    def _greet(self) -> None:
        self._greeted = True
        self._stop_timer()
        self.sender.write(GREETING)
        if self.lane.draining:
            self.retire()

    def _take_no_more(self) -> None:
        if self._final is None and not self._over:
            self._stop_timer()
            self._final = self._last
            self.sender.write(frames.goaway(self._final, ErrorCode.NO_ERROR))
            for stream in list(self.streams.values()):
                stream.retire()
            self.emptied()

    def answered(self, content: bytes) -> None:
        if content == _FAREWELL and self._retiring:
            self._take_no_more()

    def emptied(self) -> None:
        if self._final is not None and not self.streams and not self._over:
            self._end()

    def _refuse(self, data: bytes) -> None:
        """Close a connection that does not begin as HTTP/2 does."""
        log.info("refused a connection that is not HTTP/2: it begins with %r", data[:24])
        if data.startswith(_HTTP1):
            self.sender.write(_REFUSAL % (len(_NOT_HTTP1), _NOT_HTTP1))
        self._end()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
