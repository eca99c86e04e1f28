"""HTTP/2 frames as bytes, and the two ways in which they can be wrong (RFC 9113, sections 4 to 7)."""

import struct
from collections.abc import Iterator
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

FRAME = struct.Struct(">IBI")
"""A frame's head: its length in the upper 24 bits and its kind in the lower 8, its flags, its stream."""

MOST_ID = 2**31 - 1
LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
DEFAULT_MAX_FRAME = 16_384
LARGEST_MAX_FRAME = 2**24 - 1

_SETTING = struct.Struct(">HI")
_WORD = struct.Struct(">I")
_TWO_WORDS = struct.Struct(">II")


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):
    """The client broke the protocol so that the connection has to end (RFC 9113, section 5.4.1)."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class StreamFault(Exception):
    """The client broke the protocol on one stream, which has to end (RFC 9113, section 5.4.2)."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


def frame(kind: int, flags: int, sid: int, payload: bytes = b"") -> bytes:
    return FRAME.pack(len(payload) << 8 | kind, flags, sid) + payload


def settings(values: dict[Setting, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


def window_update(sid: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, sid, _WORD.pack(size))


def rst_stream(sid: int, code: ErrorCode) -> bytes:
    return frame(RST_STREAM, 0, sid, _WORD.pack(code))


def goaway(last: int, code: ErrorCode, message: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, _TWO_WORDS.pack(last, code) + message.encode())


def headers(sid: int, block: bytes, end: bool, max_frame: int) -> bytes:
    """A header block as one HEADERS frame, and as many of CONTINUATION as it needs."""
    flags = END_STREAM if end else 0
    if len(block) <= max_frame:
        return frame(HEADERS, flags | END_HEADERS, sid, block)
    pieces = [block[at : at + max_frame] for at in range(0, len(block), max_frame)]
    first, *middle, last = pieces
    return b"".join(
        (
            frame(HEADERS, flags, sid, first),
            *(frame(CONTINUATION, 0, sid, piece) for piece in middle),
            frame(CONTINUATION, END_HEADERS, sid, last),
        )
    )


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The settings of a SETTINGS frame, also those that nobody knows.

    Raises:
        ConnectionFault: the frame has no whole number of them, or one has a value that it may not have.
    """
    if len(payload) % _SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS has {len(payload)} bytes, and each setting has 6")
    for name, value in _SETTING.iter_unpack(payload):
        if name == Setting.INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}, more than 2^31-1")
        if name == Setting.MAX_FRAME_SIZE and not DEFAULT_MAX_FRAME <= value <= LARGEST_MAX_FRAME:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}, not in 2^14 to 2^24-1")
        if name == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}, neither 0 nor 1")
        yield name, value


def read_word(kind: str, payload: bytes) -> int:
    """The number that is all of a RST_STREAM or WINDOW_UPDATE frame.

    Raises:
        ConnectionFault: the frame has another length.
    """
    if len(payload) != _WORD.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"{kind} has {len(payload)} bytes, not 4")
    (word,) = _WORD.unpack(payload)
    return int(word)


def read_block(flags: int, payload: bytes) -> bytes:
    """The header block, or the first part of one, without padding and priority.

    Raises:
        ConnectionFault: the padding is longer than the frame, or there is no room for the priority.
    """
    start, stop = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded HEADERS frame is empty")
        start, stop = 1, stop - payload[0]
    if flags & HAS_PRIORITY:
        start += 5
    if start > stop:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS is shorter than its padding and priority")
    return payload[start:stop]
