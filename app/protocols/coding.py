"""Bodies and answers that are compressed on the wire, around the codec of any wire format.

The codings are those of RFC 9110, section 8.4.1. `deflate` is a zlib stream there, and bare deflate from those who took
the name at its word; both are read.
"""

import zlib
from collections.abc import Sequence

from app.errors import InvalidArgument, TooLarge, UnsupportedFormat
from app.protocols.call import SHOWN, Answer, Call, Codec
from app.tensors import Array

_EITHER = 32 + zlib.MAX_WBITS
"""zlib's word for a stream that is gzip or zlib, as its first bytes say."""

_NAMES = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}

_LEVEL = 1
"""Tensors hardly become smaller at a higher one, and take many times as long."""


def coding_of(header: str) -> str:
    """What a Content-Encoding header says: `gzip`, `deflate`, or empty for none.

    Raises:
        UnsupportedFormat: it names something else, or several.
    """
    names = [name for part in header.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if not names:
        return ""
    if len(names) > 1 or names[0] not in _NAMES:
        raise UnsupportedFormat(f"Content-Encoding: expected gzip, deflate or none, found {header[:SHOWN]!r}")
    return _NAMES[names[0]]


def wanted_coding(header: str) -> str:
    """The coding that an Accept-Encoding header asks for: `gzip` or `deflate`, or empty for none.

    Most clients name all that they can read, and mean nothing by it. Who names a single one wants it: that is what
    Triton's client sends when it is told to have answers compressed.
    """
    names = [part.partition(";") for part in header.lower().split(",")]
    wanted = [name.strip() for name, _, weight in names if weight.replace(" ", "") not in ("q=0", "q=0.0")]
    wanted = [name for name in wanted if name not in ("", "identity")]
    return _NAMES.get(wanted[0], "") if len(wanted) == 1 else ""


def inflate(body: bytes, coding: str, most: int) -> bytes:
    """What was compressed.

    Args:
        most: bytes that it may have.

    Raises:
        TooLarge: it has more.
        InvalidArgument: the body is damaged, cut short, or followed by something else.
    """
    try:
        return _inflate(body, _EITHER, most)
    except zlib.error:
        if coding == "deflate":
            try:
                return _inflate(body, -zlib.MAX_WBITS, most)
            except zlib.error:
                pass
        raise InvalidArgument(f"Content-Encoding: {coding}: the body is no {coding} data, or is damaged") from None


def _inflate(body: bytes, kind: int, most: int) -> bytes:
    stream = zlib.decompressobj(kind)
    whole = stream.decompress(body, most + 1)
    if len(whole) > most:
        raise TooLarge(f"the body has more than {most} bytes when it is inflated, the most that the server takes")
    # Of several gzip members, one behind the other, only files are made.
    if not stream.eof or stream.unused_data:
        raise zlib.error
    return whole


def deflate(pieces: Sequence[bytes | memoryview], coding: str) -> bytes:
    """The pieces, compressed as one."""
    stream = zlib.compressobj(_LEVEL, wbits=zlib.MAX_WBITS + (16 if coding == "gzip" else 0))
    return b"".join([*map(stream.compress, pieces), stream.flush()])


class Inflating:
    """Reads compressed bodies.

    Args:
        most: bytes that one may have when it is inflated.
    """

    def __init__(self, codec: Codec, coding: str, most: int) -> None:
        self._codec = codec
        self._coding = coding
        self._most = most

    def decode(self, body: bytes) -> Call:
        """Read a request.

        Raises:
            TooLarge: it is, when inflated.
            InvalidArgument: as the codec does; also for a body that is not what its header says.
        """
        return self._codec.decode(inflate(body, self._coding, self._most))

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes | Answer:
        """Write the answer, as the codec does."""
        return self._codec.encode(call, outputs)


class Deflating:
    """Writes compressed answers.

    Args:
        media_type: of the codec's answers that are bytes.
    """

    def __init__(self, codec: Codec, coding: str, media_type: str) -> None:
        self._codec = codec
        self._coding = coding
        self._media_type = media_type
        self._header = (b"content-encoding", coding.encode())

    def decode(self, body: bytes) -> Call:
        """Read a request, as the codec does."""
        return self._codec.decode(body)

    def encode(self, call: Call, outputs: Sequence[Array]) -> Answer:
        """Write the answer."""
        answer = self._codec.encode(call, outputs)
        if not isinstance(answer, Answer):
            answer = Answer((answer,), self._media_type)
        whole = deflate(answer.pieces, self._coding)
        return answer._replace(pieces=(whole,), headers=(*answer.headers, self._header))
