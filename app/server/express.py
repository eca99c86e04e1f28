"""The express lane: predictions straight from uvicorn's HTTP parser to the dataplane and back to the socket.

A subclass of uvicorn's httptools protocol. For a POST to a known prediction path it gathers the body, hands it to the
dataplane when the message is complete, and writes the answer to the transport: no ASGI scope, no task, no messages.
Everything else, and whatever is unusual about a request, goes the way that uvicorn would take it.

A request under a head that was parsed before, which comes in one piece or in two, head and body, does not go through
the parser at all: the bytes mean what they meant then.

Order on a connection: express requests run as they come and their answers are held back until it is their turn. A
request for the ASGI application waits in uvicorn's own pipeline until the express requests before it are answered, and
while that pipeline is not empty no request is express.

`Upgrade` is ignored, as RFC 9110 allows: what follows such a head is the request's body, and never another protocol.
"""

import asyncio
import logging
from collections import deque
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.utils import get_client_addr
from uvicorn.server import ServerState

from app.errors import Internal, TooLarge
from app.server.errors import new_request_id
from app.server.lane import Head, Lane, Turn

log = logging.getLogger(__name__)

_LARGEST_HEAD = 1 << 16
"""Bytes of a request's line and headers above which it is refused, give or take what arrives at once."""

_MOST_PENDING = 64
"""Unanswered express requests of one connection above which no more is read from it."""

_MANY_CHUNKS = 4096

_FIRST_SECONDS = 5.0
"""How long a request may take to begin on a new connection, and to go on once begun, if keep-alive is shorter."""

_CLOSE = b"connection: close\r\n"

_TOLD = "the server failed on this request; its log has it as request %s"

_UPGRADE = (b"upgrade", b"http2-settings")


class _Busy:
    """Stands for a cycle that is not complete, so that uvicorn queues the next behind it."""

    response_complete = False


class Express(HttpToolsProtocol):
    """One connection."""

    lane: Lane

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._turns: deque[Turn] = deque()
        self._express: Turn | None = None
        self._head: Head | None = None
        self._known: bytes | None = None
        """A head that was seen before, whose body is still to come."""
        self._chunks: list[bytes] = []
        self._blocks: list[bytes] = []
        self._size = 0
        self._in_message = False
        self._in_head = False
        self._head_size = 0
        self._heard = 0.0
        self._served = False
        self._deaf = False
        self._to_drop: int | None = None

    # What the server asks of a connection when it drains.

    def is_idle(self) -> bool:
        """Whether there is no request on the connection, not even a part of one."""
        return not self._in_message and not self._turns and (self.cycle is None or self.cycle.response_complete)

    def close_after_answer(self) -> None:
        """Close after the last request received so far; express requests see to that when they are answered."""
        if self.pipeline:
            self.pipeline[0][0].keep_alive = False
        elif self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    # Called by the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._arm(self.timeout_keep_alive or _FIRST_SECONDS)

    def data_received(self, data: bytes) -> None:
        if self._known is not None:
            self._hear_body(self._known, data)
            return
        cycle = self.cycle
        rests = not (self._in_message or self._deaf) and (
            cycle is None or (cycle.response_complete and not self.pipeline)
        )
        end = data.find(b"\r\n\r\n") + 4 if rests else 0
        if end:
            text = data[:end]
            head = self.lane.heads.get(text)
            if head is None:
                self._head = None
                self._hear(data)
                self._learn(text, len(data) - end)
                return
            if len(data) - end == head.length:
                self._run_known(head, data[end:])
                return
            if len(data) == end:
                # Most clients send the body by itself.
                self._known = text
                self._in_message = True
                self._heard = self.loop.time()
                return
        self._hear(data)

    def _hear_body(self, text: bytes, data: bytes) -> None:
        """Go on behind a known head that came alone."""
        self._known = None
        self._in_message = False
        head = self.lane.heads.get(text)
        if head is not None and len(data) == head.length:
            self._run_known(head, data)
        else:
            self._hear(text)
            self._hear(data)

    def _run_known(self, head: Head, body: bytes) -> None:
        self._served = True
        # As with the parser: nothing behind a request that asks for the close is one.
        last = self._deaf = not head.keep_alive
        line = self._access_line(head) if self.access_log else None
        turn = Turn(self._advance, last, line, head.statuses)
        self._turns.append(turn)
        self._run(turn, head, body)

    def _hear(self, data: bytes) -> None:
        """Have uvicorn's parser go on with what has come."""
        if not self._deaf:
            self._heard = self.loop.time()
        elif self._to_drop is None:
            return
        else:
            self._to_drop -= len(data)
            if self._to_drop < 0:
                self.transport.close()
                return
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > _LARGEST_HEAD:
                self._refuse(431, f"the request's head is larger than the {_LARGEST_HEAD} bytes that it may be")
                return
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            if self._deaf:
                self.transport.close()
            elif isinstance(error, httptools.HttpParserCallbackError):
                identity = new_request_id()
                log.error("request %s failed as it was read", identity, exc_info=error)
                self._refuse(500, _TOLD % identity)
            else:
                self._refuse(400, "the request is not valid HTTP/1.1")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for turn in self._turns:
            if turn.job is not None:
                turn.job.abandoned = True
        self._turns.clear()
        if self.lane.closed is not None:
            self.lane.closed()

    def pause_writing(self) -> None:
        super().pause_writing()
        # A client that does not read its answers is not read from either.
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._resume_reading()

    # Called by the parser.

    def on_message_begin(self) -> None:
        if self._deaf:
            raise ConnectionAbortedError("nothing behind the last answer is looked at")
        # uvicorn builds the ASGI scope here; ours is built once it is known that one is needed.
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_message = self._in_head = True
        self._head_size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        # Behind the body come trailers, which nobody here reads.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        parser = self.parser
        if parser.should_upgrade():
            return  # The parser stops here, and `_parse` goes on.
        self._in_head = False
        if (
            self.url in self.lane.paths
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and not any(name in self.lane.aside for name, _ in self.headers)
            and not self.expect_100_continue
            and not self.pipeline
            and (self.cycle is None or self.cycle.response_complete)
        ):
            self._begin_express()
            return
        self._express = self._head = None
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        if self._turns:
            self.cycle = _Busy()  # type: ignore[assignment]
        super().on_headers_complete()
        if not self.timeout_keep_alive:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if self._express is None:
            super().on_body(body)
            return
        self._size += len(body)
        if self._express.body is not None:
            return
        if self._size <= self.lane.max_body:
            self._chunks.append(body)
            if len(self._chunks) == _MANY_CHUNKS:
                # Of a body in tiny chunks the objects would take far more memory than the bytes.
                self._blocks.append(b"".join(self._chunks))
                self._chunks = []
        else:
            self._refuse_body(self._express, f"more than {self.lane.max_body}")

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_message = False
        self._served = True
        turn, self._express = self._express, None
        if turn is None:
            super().on_message_complete()
            return
        if turn.last and not self.parser.should_keep_alive():
            # What comes behind it is no request; the parser looks at none of it either.
            self._deaf = True
        if self._to_drop is not None:
            self.transport.close()
        if turn.body is not None or self.transport.is_closing():
            return
        chunks = [*self._blocks, *self._chunks]
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks, self._blocks = [], []
        assert self._head is not None
        self._run(turn, self._head, body)

    # Ours.

    def _parse(self, data: bytes) -> None:
        """Feed the parser; at a head that asks for an upgrade, where it stops, let a new one go on without that."""
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as stop:
                rest = memoryview(rest)[stop.args[0] :]
            else:
                return
            method = self.parser.get_method()
            if method == b"CONNECT":
                self._refuse(501, "CONNECT is not supported: this is not a proxy")
                return
            line = b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())
            lines = [b"%b: %b" % header for header in self.headers if header[0] not in _UPGRADE]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(b"\r\n".join((line, *lines, b"\r\n")))

    def _begin_express(self) -> None:
        keep_alive = self.timeout_keep_alive > 0 and self.parser.should_keep_alive()
        head = self._head = self.lane.head(self.url, self.headers, keep_alive)
        self._chunks, self._blocks = [], []
        self._size = 0
        line = self._access_line(head) if self.access_log else None
        turn = self._express = Turn(self._advance, not keep_alive, line, head.statuses)
        self._turns.append(turn)
        if head.refusal is not None:
            turn.refuse(head.refusal)
        elif head.length > self.lane.max_body:
            self._refuse_body(turn, str(head.length))

    def _learn(self, text: bytes, length: int) -> None:
        """Keep a head, if what was just parsed was one express request: it, and `length` bytes of body, to the end."""
        head = self._head
        if head is not None and head.length == length and self._size == length and not self._in_message:
            self.lane.keep(text, head)

    def _run(self, turn: Turn, head: Head, body: bytes) -> None:
        try:
            if head.route is not None:
                job = self.lane.dataplane.run(head.route, body, turn)
            else:
                job = self.lane.dataplane.predict(head.target, head.wants, body, turn)
            if turn.body is None:
                turn.job = job
        except Exception as error:  # noqa: BLE001  As for any request: it is logged, and the caller is told.
            turn.refuse(_fault(head, error))
        if len(self._turns) >= _MOST_PENDING:
            self.flow.pause_reading()

    def _refuse_body(self, turn: Turn, size: str) -> None:
        """Answer 413 before the body has come; the rest of it is read and dropped."""
        self._chunks, self._blocks = [], []
        turn.refuse(TooLarge(f"the body has {size} bytes, and the server takes {self.lane.max_body} at most"))

    def _advance(self) -> None:
        """Write the answers whose turn it is."""
        turns = self._turns
        while turns and turns[0].body is not None:
            if self.transport.is_closing():
                return
            self._write(turns.popleft())
        if (self.pipeline or self.flow.read_paused) and not self.transport.is_closing():
            self._go_on()

    def _write(self, turn: Turn) -> None:
        """Write one answer, and close the connection if it is the last."""
        lane, state = self.lane, self.server_state
        if lane.headers is not state.default_headers:
            lane.take(state.default_headers)
        last = turn.last or (lane.closing and not self._turns and not self._in_message)
        if turn.status == 200 and not last:
            head = lane.begins.get(turn.kind) or lane.good + turn.kind
        else:
            head = b"".join((STATUS_LINE[turn.status], lane.lines, _CLOSE if last else b"", turn.kind))
        turn.write(self.transport, head)
        state.total_requests += 1
        if turn.line is not None:
            self.access_logger.info("%s %d", turn.line, turn.status)
        self._heard = self.loop.time()
        if last:
            self._close_behind(turn)

    def _close_behind(self, turn: Turn) -> None:
        """Close; when a part of the turn's body is still to come, drop that first, for the keep-alive time at most.

        A body of more than twice what the server takes is not waited for.
        A close with unread data is a reset, which takes the answer from a client that is still sending.
        """
        self._deaf = True
        if turn is self._express:
            self._to_drop = 2 * self.lane.max_body - self._size
        else:
            self.transport.close()

    def _go_on(self) -> None:
        """After answers: begin the request that waited behind them, or read on."""
        if self.pipeline and not self._turns:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._resume_reading()

    def _resume_reading(self) -> None:
        if not self.flow.write_paused and not self.pipeline and len(self._turns) < _MOST_PENDING:
            self.flow.resume_reading()

    def _arm(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing was heard for long; look again later at one that was in use.

        One timer a connection, not one a request.
        """
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        # A turn whose body is still to come waits for its client, and not the client for it.
        awaited = [turn for turn in self._turns if turn.body is None and turn is not self._express]
        answered = not awaited and (self.cycle is None or self.cycle.response_complete)
        patience: float = self.timeout_keep_alive
        if self._in_message or not self._served:
            patience = max(patience, _FIRST_SECONDS)
        left = self._heard + patience - self.loop.time()
        if answered and left <= 0:
            self.transport.close()
        else:
            self._arm(max(min(left if left > 0 else patience, self.timeout_keep_alive), 0.1))

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is not a request, after the express requests before it, and close."""
        self.logger.info("refused a request from %s: %s", self._client_address(), message)
        if self.transport.is_closing():
            return
        # Nothing that comes after it is looked at.
        self._deaf = True
        self.flow.pause_reading()
        turn, self._express = self._express, None
        if turn is None:
            turn = Turn(self._advance, last=True, line=None)
            self._turns.append(turn)
        turn.last = True
        begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if turn.body is not None or begun:
            # It is this request that was answered, or is being answered: a second answer would be taken for another's.
            self.transport.close()
            return
        turn.set_error(status, message)
        if self.pipeline and len(self._turns) > 1:
            # The application's request waits for express ones and has not begun: this is answered in its place.
            self.pipeline.clear()
            self.cycle = None  # type: ignore[assignment]
        if self.cycle is not None and not self.cycle.response_complete:
            # As uvicorn does: the application is told that the client is gone.
            self._write(turn)
        else:
            self._advance()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _access_line(self, head: Head) -> str:
        return f'{self._client_address()} - "POST {head.url.decode("latin-1")} HTTP/1.1"'

    def _client_address(self) -> str:
        scope: Any = {"client": self.client}
        return get_client_addr(scope)


def _fault(head: Head, error: Exception) -> Internal:
    identity = new_request_id()
    log.error("request %s to %s failed", identity, head.url.decode("latin-1"), exc_info=error)
    return Internal(_TOLD % identity)
