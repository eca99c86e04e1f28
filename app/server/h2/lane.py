"""What the gRPC connections of a worker share."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from app.errors import LitepoolError
from app.server.h2.access import NotedRelayed, NotedStreaming, NotedUnary
from app.server.h2.head import Head, Hot, read_head
from app.server.h2.hpack import Field
from app.server.h2.relay import Relay
from app.server.h2.relayed import Relayed
from app.server.h2.streaming import Streaming
from app.server.h2.unary import Unary

if TYPE_CHECKING:
    from app.server.h2.connection import GrpcProtocol

log = logging.getLogger(__name__)

_MOST_HEADS = 256
_LARGEST_HEAD = 4096

_LAST_SECONDS = 1.0
"""How long a client may take to read the last that is said to it."""


class GrpcLane:
    """Which methods are hot, where the others go, and the connections that are open.

    Args:
        hot: what runs the calls of a path, as `b"/package.Service/Method"`.
        relay: the way to the server of all other methods.
        max_message: bytes of a message above which it is refused, also when it is inflated.
        status: the canonical number and the text of an error.
        unknown: what there is to say of a path that is neither hot nor the server's; None of others.
        access_log: whether each call is noted.
    """

    def __init__(
        self,
        hot: Mapping[bytes, Hot],
        relay: Relay,
        max_message: int,
        status: Callable[[LitepoolError], tuple[int, str]],
        unknown: Callable[[str], str | None] = lambda _: None,
        access_log: bool = False,
    ) -> None:
        self.relay = relay
        self.max_message = max_message
        self.status = status
        self.access_log = access_log
        self.unary: type[Unary] = NotedUnary if access_log else Unary
        self.streaming: type[Streaming] = NotedStreaming if access_log else Streaming
        self.relayed: type[Relayed] = NotedRelayed if access_log else Relayed
        self.connections: set[GrpcProtocol] = set()
        self.draining = False
        self._hot = hot
        self._unknown = unknown
        self._heads: dict[tuple[Field, ...], Head] = {}
        self._empty: asyncio.Event | None = None

    def head(self, fields: list[Field]) -> Head:
        """What a request's headers mean, all but `grpc-timeout`.

        Raises:
            Malformed
        """
        key = tuple(fields)
        head = self._heads.get(key)
        if head is None:
            head = read_head(fields, self._hot, self._unknown)
            if sum(len(name) + len(value) for name, value in fields) <= _LARGEST_HEAD:
                if len(self._heads) >= _MOST_HEADS:
                    self._heads.clear()
                self._heads[key] = head
        return head

    def joined(self, connection: "GrpcProtocol") -> None:
        self.connections.add(connection)

    def left(self, connection: "GrpcProtocol") -> None:
        self.connections.discard(connection)
        if self._empty is not None and not self.connections:
            self._empty.set()

    async def drain(self, seconds: float) -> None:
        """Take no more calls, answer those under way, and close all connections.

        What is not answered after so many seconds is given up, and its callers are told.
        """
        self.draining = True
        if self._empty is None:
            self._empty = asyncio.Event()
        for connection in list(self.connections):
            connection.retire()
        if await self._emptied(seconds):
            return
        if late := sum(len(connection.streams) for connection in self.connections):
            log.warning("%d gRPC calls were cut off: the drain took too long", late)
        for connection in list(self.connections):
            connection.close()
        if await self._emptied(_LAST_SECONDS):
            return
        for connection in list(self.connections):
            connection.abort()
        await self._emptied(_LAST_SECONDS)

    async def _emptied(self, seconds: float) -> bool:
        """Wait so long for the last connection to go; whether it has."""
        assert self._empty is not None
        with suppress(TimeoutError):
            if self.connections:
                await asyncio.wait_for(self._empty.wait(), seconds)
        return not self.connections
