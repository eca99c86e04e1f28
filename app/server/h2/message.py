"""Messages of a gRPC stream: five bytes of prefix each, and some of them compressed."""

import struct
import zlib
from collections.abc import Iterator

PREFIX = struct.Struct(">BI")
"""Whether the message is compressed, and its length in bytes."""

_MANY_CHUNKS = 4096
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}

SMALL = 256 * 1024
"""Bytes of inflated text that the loop waits for; what is larger is inflated on another thread."""


class BadMessage(Exception):
    """The bytes are no message of gRPC's."""


class MessageTooLarge(Exception):
    """The message is larger than the server takes."""


class Inbox:
    """Puts messages together from the pieces in which they come.

    Args:
        most: bytes of a message above which it is refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._prefix = b""
        self._compressed = False
        self._left = -1
        """Bytes of the message under way that are still to come; -1 while its prefix is."""
        self._chunks: list[bytes | memoryview] = []
        self._blocks: list[bytes] = []
        self.held = 0
        """Bytes of the message under way that are here."""

    @property
    def empty(self) -> bool:
        """Whether nothing is under way."""
        return self._left < 0 and not self._prefix

    def feed(self, data: memoryview) -> Iterator[tuple[bool, bytes]]:
        """The messages that are complete with this, each with whether it is compressed.

        Raises:
            BadMessage, MessageTooLarge
        """
        at, end = 0, len(data)
        while True:
            if self._left < 0:
                stop = min(at + PREFIX.size - len(self._prefix), end)
                self._prefix += data[at:stop]
                at = stop
                if len(self._prefix) < PREFIX.size:
                    return
                self._begin()
            stop = min(at + self._left, end)
            if stop > at:
                self._keep(data[at:stop], end)
                at = stop
            if self._left:
                return
            yield self._compressed, self._complete()

    def _begin(self) -> None:
        flag, self._left = PREFIX.unpack(self._prefix)
        self._prefix = b""
        if flag > 1:
            raise BadMessage(f"a message's first byte says whether it is compressed: expected 0 or 1, found {flag}")
        self._compressed = bool(flag)
        if self._left > self._most:
            raise MessageTooLarge(f"the message has {self._left} bytes, and the server takes {self._most} at most")

    def _keep(self, piece: memoryview, read: int) -> None:
        self._left -= len(piece)
        self.held += len(piece)
        # A view keeps all of what was read with it in memory.
        self._chunks.append(piece if 2 * len(piece) > read else bytes(piece))
        if len(self._chunks) == _MANY_CHUNKS:
            # Of a message in tiny chunks the objects would take far more memory than the bytes.
            self._blocks.append(b"".join(self._chunks))
            self._chunks = []

    def _complete(self) -> bytes:
        chunks: list[bytes | memoryview] = [*self._blocks, *self._chunks]
        self._chunks, self._blocks = [], []
        self._left, self.held = -1, 0
        return bytes(chunks[0]) if len(chunks) == 1 else b"".join(chunks)


class Inflation:
    """The inflation of one message, which can be done in two parts.

    Args:
        most: bytes of the message above which it is refused.
    """

    def __init__(self, encoding: bytes, data: bytes, most: int) -> None:
        self._known = encoding in _WINDOW_BITS
        self._inflater = zlib.decompressobj(_WINDOW_BITS.get(encoding, 0))
        self._encoding = encoding.decode()
        self._rest = data
        self._most = most
        self._begun = b""

    def begin(self) -> bytes | None:
        """The message if it is a small one; None if there is more of it than the loop should wait for.

        Raises:
            BadMessage, MessageTooLarge
        """
        if not self._known:
            raise BadMessage("the message is marked as compressed, and there is no grpc-encoding that says how")
        most = min(SMALL, self._most + 1)
        self._begun = self._inflate(most)
        if self._inflater.eof or len(self._begun) > self._most:
            return self._whole(self._begun)
        if not self._rest and len(self._begun) < most:
            raise BadMessage(f"the message ends in the middle of its {self._encoding}")
        return None

    def finish(self) -> bytes:
        """The message, after `begin` did not give it. For any thread.

        Raises:
            BadMessage, MessageTooLarge
        """
        rest = self._inflate(max(self._most + 1 - len(self._begun), 1))
        message = b"".join((self._begun, rest))
        if len(message) <= self._most and not self._inflater.eof:
            raise BadMessage(f"the message ends in the middle of its {self._encoding}")
        return self._whole(message)

    def _inflate(self, most: int) -> bytes:
        try:
            text = self._inflater.decompress(self._rest, most)
        except zlib.error as error:
            raise BadMessage(f"the message is not the {self._encoding} that grpc-encoding says: {error}") from error
        self._rest = self._inflater.unconsumed_tail
        return text

    def _whole(self, message: bytes) -> bytes:
        if len(message) > self._most:
            raise MessageTooLarge(f"the message has more than the {self._most} bytes that the server takes, inflated")
        if self._inflater.unused_data:
            raise BadMessage(f"there are bytes behind the {self._encoding} of the message")
        return message
