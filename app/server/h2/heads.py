"""What the header blocks of one connection mean, as long as its table stays as it is."""

from collections.abc import Callable
from typing import TypeAlias

from app.server.h2 import replies
from app.server.h2.head import Head, Malformed, read_timeout
from app.server.h2.hpack import Decoder, Field

LARGEST_LIST = 1 << 16
"""Bytes of a list of headers, as HPACK counts them, above which it is refused."""

_MOST_KNOWN = 64
_LARGEST_KNOWN = 1024

Known: TypeAlias = tuple[Head, float | None]
"""What headers mean, and the seconds that the client waits."""


class Heads:
    """Reads blocks in the order in which they come, and keeps those that moved nothing in the table.

    Args:
        read: gives the meaning of a list of headers without `grpc-timeout`, or raises `Malformed`.
    """

    def __init__(self, read: Callable[[list[Field]], Head]) -> None:
        self._read = read
        self._decoder = Decoder(LARGEST_LIST)
        self.known: dict[bytes, Known] = {}
        """Blocks that need no look."""

    def learn(self, block: bytes) -> Known | None:
        """The meaning of a block that is not known; None if it is no request.

        Raises:
            ConnectionFault: it cannot be read.
        """
        changes = self._decoder.changes
        fields = self.skip(block)
        if fields is None:
            message = f"the headers have more than {LARGEST_LIST} bytes"
            return Head("", refusal=replies.refusal(replies.RESOURCE_EXHAUSTED, message)), None
        timeout = None
        timeouts = [field for field in fields if field[0] == b"grpc-timeout"]
        if timeouts:
            fields.remove(timeouts[0])
            timeout = read_timeout(timeouts[0][1])
        try:
            head = self._read(fields)
        except Malformed:
            return None
        if len(timeouts) > 1 or (timeouts and timeout is None and head.refusal is None):
            message = "grpc-timeout: expected up to 8 digits and one of H, M, S, m, u and n"
            head = head._replace(start=None, refusal=replies.refusal(replies.INTERNAL, message))
        if self._decoder.changes == changes and len(block) <= _LARGEST_KNOWN:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[block] = head, timeout
        return head, timeout

    def skip(self, block: bytes) -> list[Field] | None:
        """The fields of a block, for the table's sake; None if they are too many.

        Raises:
            ConnectionFault: it cannot be read.
        """
        changes = self._decoder.changes
        fields = self._decoder.decode(block)
        if self._decoder.changes != changes:
            # What other blocks mean is another thing now.
            self.known.clear()
        return fields
