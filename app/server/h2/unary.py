"""A call of a hot method: it goes to a callback, and the answer comes back in one write."""

import asyncio
import logging
import struct
from collections.abc import Callable

from app.errors import Internal, LitepoolError
from app.protocols.call import Answer
from app.runtime.job import Job
from app.server.errors import new_request_id
from app.server.h2 import frames, replies
from app.server.h2.frames import END_HEADERS, END_STREAM
from app.server.h2.head import Body
from app.server.h2.message import PREFIX, BadMessage, MessageTooLarge
from app.server.h2.sending import Outbox
from app.server.h2.streams import Stream

log = logging.getLogger(__name__)

_BEGIN = struct.Struct(f">IBI{len(replies.ANSWER_HEAD)}sIBIBI")
"""HEADERS, and the heads of the DATA frame and of the message behind it."""
_END = struct.Struct(f">IBI{len(replies.ANSWER_TRAILERS)}s")
_HEAD_WORD = len(replies.ANSWER_HEAD) << 8 | frames.HEADERS
_TRAILERS_WORD = len(replies.ANSWER_TRAILERS) << 8 | frames.HEADERS


class Unary(Stream):
    """A call of a hot method: one message, one answer. It is the caller that gets the answer."""

    job: Job | None = None
    _message: tuple[bool, bytes] | None = None
    _inflating: asyncio.Future[bytes] | None = None

    @property
    def waiting(self) -> int:
        return super().waiting + (len(self._message[1]) if self._message is not None else 0)

    def take(self, compressed: bool, message: bytes) -> None:
        if self._message is not None:
            self.end_with(replies.UNIMPLEMENTED, "expected one request message, found a second")
            return
        self._message = compressed, message

    def take_end(self) -> None:
        if self._message is None:
            self.end_with(replies.UNIMPLEMENTED, "expected one request message, found none")
            return
        compressed, message = self._message
        if not compressed:
            self._run_late(message)
            return
        inflation = self.inflate(message)
        begun = self._try(inflation.begin)
        if begun is not None:
            self._run_late(begun)
        elif not self.closed:
            self._inflating = self.connection.loop.run_in_executor(None, inflation.finish)
            self._inflating.add_done_callback(self._inflated)

    def run(self, message: bytes, seconds: float | None) -> None:
        """Run the call; the client waits for it so many seconds more."""
        start = self.head.start
        assert start is not None
        try:
            job = start(message, seconds, self)
        except Exception as error:  # As for any request: it is logged, and the caller is told.
            identity = new_request_id()
            log.error("request %s to %s failed", identity, self.head.path, exc_info=error)
            self.refuse(Internal(f"the server failed on this request; its log has it as request {identity}"))
            return
        if not self.closed:
            self.job = job

    def answer(self, body: Body, media_type: str) -> None:  # noqa: ARG002  It is always the same.
        if self.closed:
            return
        self.job = None
        sender = self.connection.sender
        if isinstance(body, Answer):
            pieces = body.pieces
            if sum(memoryview(piece).nbytes for piece in pieces) > sender.small:
                self._answer_long(pieces)
                return
            body = b"".join(pieces)
        size = len(body) + PREFIX.size
        if size > sender.small or size > self.window or size > sender.window:
            self._answer_long((body,))
            return
        sender.window -= size
        sid = self.sid
        begin = _BEGIN.pack(_HEAD_WORD, END_HEADERS, sid, replies.ANSWER_HEAD, size << 8, 0, sid, 0, len(body))
        end = _END.pack(_TRAILERS_WORD, END_HEADERS | END_STREAM, sid, replies.ANSWER_TRAILERS)
        sender.write(b"%b%b%b" % (begin, body, end))
        self.close()

    def _answer_long(self, pieces: tuple[bytes | memoryview, ...]) -> None:
        self.write_headers(replies.ANSWER_HEAD, end=False)
        self.begun = True
        outbox = self.outbox = Outbox()
        outbox.add((PREFIX.pack(0, sum(memoryview(piece).nbytes for piece in pieces)), *pieces))
        sender = self.connection.sender
        outbox.tail = frames.headers(self.sid, replies.ANSWER_TRAILERS, True, sender.max_frame)
        self.connection.register(self)
        sender.send(self)

    def refuse(self, error: LitepoolError) -> None:
        if not self.closed:
            self.job = None
            code, message = self.connection.lane.status(error)
            self.end_with(code, message, replies.pushback(error))

    def abandon(self) -> None:
        job, self.job = self.job, None
        if job is not None:
            job.abandoned = True
        if self._inflating is not None:
            self._inflating.cancel()

    def _run_late(self, message: bytes) -> None:
        """Run the call some time after its headers came."""
        self._message = None
        self.connection.hold(self)
        self.run(message, self.left())

    def _inflated(self, future: asyncio.Future[bytes]) -> None:
        self._inflating = None
        if self.closed:
            if not future.cancelled():
                future.exception()
            return
        message = self._try(future.result)
        if message is not None:
            self._run_late(message)

    def _try(self, inflate: Callable[[], bytes | None]) -> bytes | None:
        try:
            return inflate()
        except MessageTooLarge as error:
            self.end_with(replies.RESOURCE_EXHAUSTED, str(error))
        except BadMessage as error:
            self.end_with(replies.INTERNAL, str(error))
        return None
