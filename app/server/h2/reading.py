"""The frames that a client sends, and what becomes of them (RFC 9113).

A call of a hot method that comes in one piece goes straight from the bytes that were read to its callback: no stream is
kept for it unless it is still under way afterwards. All else takes the long way, a frame at a time.
"""

import asyncio
import logging
import struct

from app.server.h2 import frames, replies
from app.server.h2.frames import FRAME, ConnectionFault, ErrorCode, Setting, StreamFault
from app.server.h2.heads import LARGEST_LIST, Heads, Known
from app.server.h2.hpack import Field
from app.server.h2.lane import GrpcLane
from app.server.h2.roster import STREAM_WINDOW, Roster

log = logging.getLogger(__name__)

_MOST_STREAMS = 1024
_WINDOW = 16 << 20
_MAX_FRAME = 1 << 20
_LARGEST_BLOCK = 1 << 16
"""Bytes of a header block above which the connection ends."""

_SETTINGS_WEIGHT = 20
"""As how many idle frames SETTINGS counts, which can move the windows of all streams."""

_CALL = struct.Struct(">IBIBI")
"""The heads of a DATA frame and of the message that begins it."""

_UPDATE = struct.Struct(">9xI")
"""A WINDOW_UPDATE, of which only the size is looked at."""
_UPDATE_WORD = 4 << 8 | frames.WINDOW_UPDATE

GREETING = frames.settings(
    {
        Setting.MAX_CONCURRENT_STREAMS: _MOST_STREAMS,
        Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        Setting.MAX_FRAME_SIZE: _MAX_FRAME,
        Setting.MAX_HEADER_LIST_SIZE: LARGEST_LIST,
    }
) + frames.window_update(0, _WINDOW - frames.DEFAULT_WINDOW)
_SETTINGS_ACK = frames.frame(frames.SETTINGS, frames.ACK, 0)


class Reader(Roster):
    """The client's side of one connection, from behind its preface."""

    def __init__(self, lane: GrpcLane, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(lane, loop)
        self._unary = lane.unary
        self._heads = Heads(lane.head)
        self._known = self._heads.known
        self._settled = False
        self._rest = b""
        """What has come of a frame that is not complete, and no data."""
        self._retiring = False
        self._taken = 0
        """Bytes of data that have come since the client was last told that there is room."""
        # Of a header block that is not complete.
        self._block: list[bytes] | None = None
        self._block_id = self._block_flags = self._block_size = 0
        # Of a DATA frame that is not complete.
        self._in_data = False
        self._data_id = self._data_left = self._data_padding = 0
        self._data_ends = False

    # For whoever has the transport.

    def answered(self, content: bytes) -> None:
        """The client has answered a ping."""

    # Frames.

    def read(self, data: bytes) -> None:
        at, end = 0, len(data)
        if self._in_data:
            at = self._take_data(data, at)
        while end - at >= 9 and not self._over:
            word, flags, sid = FRAME.unpack_from(data, at)
            kind, size = word & 0xFF, word >> 8
            start = at + 9
            stop = start + size
            if kind == frames.HEADERS and flags == frames.END_HEADERS and stop <= end and self._is_new(sid, size):
                at = self._open(data, start, stop, sid)
                continue
            sid &= frames.MOST_ID
            self._check(kind, sid, size)
            if kind == frames.DATA and self._settled:
                if flags & frames.PADDED and size and start == end:
                    break
                at = self._take_data(data, self._begin_data(data, start, size, flags, sid))
                continue
            if stop > end:
                break
            self._take_frame(kind, flags, sid, data[start:stop])
            at = stop
        if at < end:
            self._rest = data[at:]

    def _check(self, kind: int, sid: int, size: int) -> None:
        if size > _MAX_FRAME:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame has {size} bytes, more than {_MAX_FRAME}")
        if self._block is not None and (kind != frames.CONTINUATION or sid != self._block_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "another frame comes between those of a header block")
        if kind != frames.DATA and size > 2 * _LARGEST_BLOCK:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a frame that is no data has {size} bytes")

    def _is_new(self, sid: int, size: int) -> bool:
        """Whether a block of headers of this size begins a stream, and nothing is unusual about that."""
        return (
            self._last < sid <= frames.MOST_ID
            and sid & 1 == 1
            and size <= _LARGEST_BLOCK
            and self._block is None
            and self._settled
        )

    def _open(self, data: bytes, start: int, stop: int, sid: int) -> int:
        """Begin a stream with a block of headers, which is all of a frame; where what is done with it ends."""
        block = data[start:stop]
        known = self._known.get(block) or self._heads.learn(block)
        if known is None:
            self._refuse_malformed(sid, ends=False)
            return stop
        behind = self._run(data, stop, sid, known)
        if not behind:
            self._begin(sid, known, ends=False)
        return behind or stop

    def _run(self, data: bytes, at: int, sid: int, known: Known) -> int:
        """Run the call whose message begins at a place, if it is a hot one and all of it is there.

        Returns:
            Where it ends; 0 if it has to go the long way.
        """
        head, timeout = known
        if (
            head.start is None
            or len(data) - at < _CALL.size
            or len(self.streams) >= _MOST_STREAMS
            or self._retiring
            or self.sender.held
        ):
            return 0
        word, flags, same, compressed, size = _CALL.unpack_from(data, at)
        more = 0
        if word == _UPDATE_WORD and same == sid and len(data) - at >= _UPDATE.size + _CALL.size:
            # Google's clients put one between the headers and the message.
            more = _UPDATE.unpack_from(data, at)[0]
            at += _UPDATE.size
            word, flags, same, compressed, size = _CALL.unpack_from(data, at)
            if not 0 < more <= frames.LARGEST_WINDOW - self.sender.initial:
                return 0
        room: int = word >> 8
        stop = at + 9 + room
        if (
            flags != frames.END_STREAM
            or word & 0xFF
            or same != sid
            or compressed
            or size + 5 != room
            or stop > len(data)
            or size > self.lane.max_message
            or 0 <= head.length != room
            or room > _MAX_FRAME
        ):
            return 0
        self._last = sid
        self._patience.idle = 0
        self._taken += room
        if self._taken >= _WINDOW // 2:
            self._credit()
        stream = self._unary(self, sid, head)
        stream.ended = True
        stream.window += more
        stream.run(data[at + _CALL.size : stop], timeout)
        if not stream.closed:
            stream.expect(timeout)
            self.register(stream)
        return stop

    def _take_frame(self, kind: int, flags: int, sid: int, payload: bytes) -> None:
        if not self._settled and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if kind == frames.HEADERS:
            self._on_headers(flags, sid, payload)
        elif kind == frames.CONTINUATION:
            self._on_continuation(flags, payload)
        elif kind == frames.SETTINGS:
            self._on_settings(flags, sid, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._on_window_update(sid, frames.read_word("WINDOW_UPDATE", payload))
        elif kind == frames.RST_STREAM:
            self._on_reset(sid, frames.read_word("RST_STREAM", payload))
        elif kind == frames.PING:
            self._on_ping(flags, sid, payload)
        elif kind == frames.GOAWAY:
            self._on_goaway(sid, payload)
        elif kind == frames.PRIORITY:
            self._on_priority(sid, payload)
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client may not send PUSH_PROMISE")
        else:
            self._tire()

    # Data.

    def _begin_data(self, data: bytes, at: int, size: int, flags: int, sid: int) -> int:
        """Begin with a DATA frame; where its content is."""
        padding = 0
        content = size
        if flags & frames.PADDED:
            padding = data[at] if size else 0
            at += 1
            content -= 1 + padding
            if content < 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA is shorter than its padding")
        if not sid or sid > self._last:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"DATA on stream {sid}, which has not begun")
        ends = bool(flags & frames.END_STREAM)
        if not content and not ends:
            self._tire()
        self._taken += size
        if self._taken >= _WINDOW // 2:
            self._credit()
        self._in_data = True
        self._data_id, self._data_left, self._data_padding, self._data_ends = sid, content, padding, ends
        stream = self.streams.get(sid)
        if stream is None:
            if sid not in self._early and (self._final is None or sid <= self._final):
                self._count_reset()
                self._reset(sid, ErrorCode.STREAM_CLOSED)
        elif stream.ended:
            self._fail_stream(stream, ErrorCode.STREAM_CLOSED)
        else:
            stream.taken += size
            if stream.taken > STREAM_WINDOW:
                self._fail_stream(stream, ErrorCode.FLOW_CONTROL_ERROR)
        return at

    def _take_data(self, data: bytes, at: int) -> int:
        """Hand on what is there of the DATA frame under way; where it ends."""
        stream = self.streams.get(self._data_id)
        try:
            stop = min(at + self._data_left, len(data))
            if stop > at:
                self._data_left -= stop - at
                if stream is not None:
                    stream.receive(memoryview(data)[at:stop])
                    if not stream.closed:
                        self.credit(stream)
                at = stop
            if self._data_left:
                return at
            stop = min(at + self._data_padding, len(data))
            self._data_padding -= stop - at
            if not self._data_padding:
                self._in_data = False
                if self._data_ends:
                    self._early.pop(self._data_id, None)
                    if stream is not None and not stream.closed:
                        stream.finish_receiving()
        except StreamFault as fault:
            assert stream is not None
            self._fail_stream(stream, fault.code)
        return stop

    def _credit(self) -> None:
        self.sender.write(frames.window_update(0, self._taken))
        self._taken = 0

    # Headers.

    def _on_headers(self, flags: int, sid: int, payload: bytes) -> None:
        if not sid & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {sid}, which no client can begin")
        block = frames.read_block(flags, payload)
        if flags & frames.END_HEADERS:
            self._take_block(sid, flags, block)
        else:
            self._block = [block]
            self._block_id, self._block_flags, self._block_size = sid, flags, len(block)

    def _on_continuation(self, flags: int, payload: bytes) -> None:
        blocks = self._block
        if blocks is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._tire()
        blocks.append(payload)
        self._block_size += len(payload)
        if self._block_size > _LARGEST_BLOCK:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a header block has more than {_LARGEST_BLOCK} bytes")
        if flags & frames.END_HEADERS:
            self._block = None
            self._take_block(self._block_id, self._block_flags, b"".join(blocks))

    def _take_block(self, sid: int, flags: int, block: bytes) -> None:
        if len(block) > _LARGEST_BLOCK:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a header block has more than {_LARGEST_BLOCK} bytes")
        ends = bool(flags & frames.END_STREAM)
        if sid <= self._last:
            self._take_trailers(sid, ends, self._heads.skip(block) or [])
            return
        known = self._known.get(block) or self._heads.learn(block)
        if known is None:
            self._refuse_malformed(sid, ends)
        else:
            self._begin(sid, known, ends)

    def _refuse_malformed(self, sid: int, ends: bool) -> None:
        self._last = sid
        self._count_reset()
        self._reset(sid, ErrorCode.PROTOCOL_ERROR)
        if not ends:
            self._expect_more(sid)

    def _take_trailers(self, sid: int, ends: bool, fields: list[Field]) -> None:
        """Headers behind the body, which nobody here reads."""
        stream = self.streams.get(sid)
        if stream is None:
            if sid in self._early:
                if ends:
                    del self._early[sid]
            elif self._final is None or sid <= self._final:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {sid}, which is closed")
        elif stream.ended:
            self._fail_stream(stream, ErrorCode.STREAM_CLOSED)
        elif not ends or any(name.startswith(b":") for name, _ in fields):
            self._fail_stream(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            try:
                stream.finish_receiving()
            except StreamFault as fault:
                self._fail_stream(stream, fault.code)

    def _begin(self, sid: int, known: Known, ends: bool) -> None:
        """Begin a stream."""
        self._last = sid
        head, timeout = known
        if self._final is not None:
            # It came behind the GOAWAY, and the client sends it elsewhere.
            return
        if len(self.streams) >= _MOST_STREAMS:
            self._reset(sid, ErrorCode.REFUSED_STREAM)
            if not ends:
                self._expect_more(sid)
            return
        self._patience.idle = 0
        lane = self.lane
        kind = self._unary if head.start is not None else lane.streaming if head.streamed is not None else lane.relayed
        stream = kind(self, sid, head)
        self.register(stream)
        stream.expect(timeout)
        stream.ended = ends
        held = self.sender.held
        if head.refusal is not None:
            stream.decline(head.refusal)
        elif held > 4 * self.lane.max_message:
            message = f"{held} bytes of answers wait for the client to take them"
            stream.end_with(replies.RESOURCE_EXHAUSTED, message)
        else:
            stream.begin()
            if ends and not stream.closed:
                try:
                    stream.finish_receiving()
                except StreamFault as fault:
                    self._fail_stream(stream, fault.code)

    # The other frames.

    def _on_settings(self, flags: int, sid: int, payload: bytes) -> None:
        if sid:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS is not on stream 0")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "the ACK of SETTINGS is not empty")
            return
        if self._settled:
            self._tire(_SETTINGS_WEIGHT)
        self._settled = True
        sender = self.sender
        for name, value in frames.read_settings(payload):
            if name == Setting.INITIAL_WINDOW_SIZE:
                sender.begin_with(value, self.streams.values())
            elif name == Setting.MAX_FRAME_SIZE:
                sender.resize(value)
        sender.write(_SETTINGS_ACK)
        sender.pump()

    def _on_window_update(self, sid: int, size: int) -> None:
        # The highest bit is reserved.
        size &= frames.LARGEST_WINDOW
        if not sid:
            self.sender.widen(size)
            return
        if sid > self._last or not sid & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE on stream {sid}, which has not begun")
        stream = self.streams.get(sid)
        if stream is not None:
            try:
                self.sender.widen_stream(stream, size)
            except StreamFault as fault:
                self._fail_stream(stream, fault.code)

    def _on_reset(self, sid: int, code: int) -> None:
        if not sid & 1 or sid > self._last:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM on stream {sid}, which has not begun")
        log.debug("the client reset stream %d with code %d", sid, code)
        self._early.pop(sid, None)
        stream = self.streams.get(sid)
        if stream is not None:
            if not stream.nearly_late:
                self._count_reset()
            stream.ended = True
            stream.abandon()
            stream.close()

    def _on_ping(self, flags: int, sid: int, payload: bytes) -> None:
        if sid:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING is not on stream 0")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"PING has {len(payload)} bytes, not 8")
        self._tire()
        if not flags & frames.ACK:
            self.sender.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        else:
            self.answered(payload)

    def _on_goaway(self, sid: int, payload: bytes) -> None:
        if sid:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY is not on stream 0")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY has {len(payload)} bytes, less than 8")
        log.debug("the client ends a connection: %r", payload[8:200])
        # It goes when it has its answers.
        self._tire()

    def _on_priority(self, sid: int, payload: bytes) -> None:
        self._tire()
        if not sid:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            self._reset(sid, ErrorCode.FRAME_SIZE_ERROR)
