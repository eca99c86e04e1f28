"""The access log: a line for each call, as HTTP's requests have theirs, in the same log.

A connection makes its streams of these classes where there is to be one, so that it costs nothing where there is none.
"""

import logging
from time import perf_counter
from typing import TYPE_CHECKING

import grpc

from app.server.h2 import replies
from app.server.h2.head import Body, Head
from app.server.h2.relayed import Relayed
from app.server.h2.streaming import Streaming
from app.server.h2.streams import Stream
from app.server.h2.unary import Unary

if TYPE_CHECKING:
    from app.server.h2.roster import Roster

log = logging.getLogger("uvicorn.access")

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

_SHOWN = 256
"""Characters of a path."""


class _Noted(Stream):
    """A call that is noted when it is over."""

    code = replies.CANCELLED
    """What the client is told; it stays so if the call ends before that."""

    def __init__(self, connection: "Roster", sid: int, head: Head) -> None:
        super().__init__(connection, sid, head)
        self._began = perf_counter()

    def decline(self, refusal: replies.Refusal) -> None:
        self.code = refusal.code
        super().decline(refusal)

    def end_with(self, code: int, message: str, metadata: replies.Metadata = ()) -> None:
        self.code = code
        super().end_with(code, message, metadata)

    def close(self) -> None:
        if not self.closed:
            took = 1000 * (perf_counter() - self._began)
            status = _NAMES.get(self.code, str(self.code))
            path = self.head.path[:_SHOWN]
            log.info('%s - "POST %s HTTP/2" %s %.3f ms', self.connection.client, path, status, took)
        super().close()


class NotedUnary(_Noted, Unary):
    """A call of a hot method."""

    def answer(self, body: Body, media_type: str) -> None:
        self.code = replies.OK
        super().answer(body, media_type)
        if not self.closed:
            # The client has still to take it.
            self.code = replies.CANCELLED

    def sent(self) -> None:
        self.code = replies.OK
        super().sent()


class NotedRelayed(_Noted, Relayed):
    """A call of any other method."""


class NotedStreaming(_Noted, Streaming):
    """A call of a hot method that takes many requests."""
