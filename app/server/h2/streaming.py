"""A call of many requests: each goes to a callback, and is answered in its turn.

Those that follow are begun before the first is answered, up to a number. What a client sends faster than that waits
here, and when much of it does, the client is not told of more room; nor is more begun while it does not take answers.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.errors import Internal, LitepoolError
from app.runtime.job import Job
from app.server.errors import new_request_id
from app.server.h2 import frames, replies
from app.server.h2.head import Body, Head
from app.server.h2.message import PREFIX, BadMessage, MessageTooLarge
from app.server.h2.sending import Outbox
from app.server.h2.streams import Stream

if TYPE_CHECKING:
    from app.server.h2.roster import Roster

log = logging.getLogger(__name__)

_AHEAD = 32
"""Requests of one call that are under way at a time."""

_MOST_QUEUED = 1 << 20
"""Bytes that wait to be begun above which the client is not told of more room."""


class _Turn:
    """One request of a call; the caller of what runs it."""

    __slots__ = ("_stream", "job", "message", "said")

    def __init__(self, stream: "Streaming", message: bytes) -> None:
        self._stream = stream
        self.message = message
        self.job: Job | None = None
        self.said: tuple[bytes | memoryview, ...] | None = None

    def answer(self, body: Body, media_type: str) -> None:  # noqa: ARG002  It is always the same.
        if not self._stream.closed:
            self.said = self._stream.form.wrap(body)
            # It may wait for its turn, and what it was asked is not needed for that.
            self.message = b""
            self._stream.go_on()

    def refuse(self, error: LitepoolError) -> None:
        if not self._stream.closed:
            self.said = (self._stream.form.tell(self.message, error),)
            self._stream.go_on()


class Streaming(Stream):
    """A call of a hot method that takes many requests."""

    _inflating: asyncio.Future[bytes] | None = None
    _timer: asyncio.TimerHandle | None = None
    _queued = 0
    """Bytes of messages that wait to be begun."""
    _complete = False
    """Whether the last request is here."""
    _retired = False
    _busy = False

    def __init__(self, connection: "Roster", sid: int, head: Head) -> None:
        super().__init__(connection, sid, head)
        assert head.streamed is not None
        self.form = head.streamed
        self._queue: deque[tuple[bool, bytes]] = deque()
        self._turns: deque[_Turn] = deque()

    def begin(self) -> None:
        if self.deadline is not None:
            self._timer = self.connection.loop.call_at(self.deadline, self._expire)

    @property
    def waiting(self) -> int:
        return super().waiting + self._queued

    @property
    def choked(self) -> bool:
        return self._queued > _MOST_QUEUED

    def take(self, compressed: bool, message: bytes) -> None:
        if self._retired:
            return
        self._queue.append((compressed, message))
        self._queued += len(message)
        self.go_on()

    def take_end(self) -> None:
        self._complete = True
        self.go_on()

    def retire(self) -> None:
        self._retired = True
        self.go_on()

    def abandon(self) -> None:
        turns, self._turns = self._turns, deque()
        for turn in turns:
            if turn.job is not None:
                turn.job.abandoned = True
        self._queue.clear()
        if self._inflating is not None:
            self._inflating.cancel()

    def close(self) -> None:
        super().close()
        if self._timer is not None:
            self._timer.cancel()

    def sent(self) -> None:
        self.go_on()

    def go_on(self) -> None:
        """Send the answers whose turn it is, begin what may begin, and end when all is done.

        What is begun may be answered at once, and what is sent may be taken at once: both come back here, and find
        that somebody is at it already.
        """
        if self._busy or self.closed:
            return
        self._busy = True
        try:
            self._send_ready()
            while self._may_begin():
                self._begin_next()
                self._send_ready()
        finally:
            self._busy = False
        self._end_if_done()

    def _end_if_done(self) -> None:
        if not (self.closed or self._queue or self._turns or self._inflating or self.unsent):
            if self._complete:
                self.end_with(replies.OK, "")
            elif self._retired:
                self.turn_away()

    def _may_begin(self) -> bool:
        return bool(
            self._queue
            and len(self._turns) < _AHEAD
            and self._inflating is None
            and not self.unsent
            and not self.closed
        )

    def _begin_next(self) -> None:
        compressed, message = self._queue.popleft()
        self._queued -= len(message)
        if compressed:
            self._inflate(message)
        else:
            self._run(message)
        if not self.closed:
            self.connection.hold(self)
            self.connection.credit(self)

    def _run(self, message: bytes) -> None:
        turn = _Turn(self, message)
        self._turns.append(turn)
        try:
            job = self.form.start(message, self.left(), turn)
        except Exception as error:  # As for any request: it is logged, and the caller is told.
            identity = new_request_id()
            log.error("request %s to %s failed", identity, self.head.path, exc_info=error)
            turn.refuse(Internal(f"the server failed on this request; its log has it as request {identity}"))
            return
        if turn.said is None:
            turn.job = job

    def _inflate(self, message: bytes) -> None:
        """Inflate a message and run it; the ones behind it wait for one that takes long, to keep their order."""
        inflation = self.inflate(message)
        begun = self._try(inflation.begin)
        if begun is not None:
            self._run(begun)
        elif not self.closed:
            self._inflating = self.connection.loop.run_in_executor(None, inflation.finish)
            self._inflating.add_done_callback(self._inflated)

    def _inflated(self, future: asyncio.Future[bytes]) -> None:
        self._inflating = None
        if self.closed:
            if not future.cancelled():
                future.exception()
            return
        message = self._try(future.result)
        if message is not None:
            self._run(message)
            self.go_on()

    def _try(self, inflate: Callable[[], bytes | None]) -> bytes | None:
        try:
            return inflate()
        except MessageTooLarge as error:
            self.end_with(replies.RESOURCE_EXHAUSTED, str(error))
        except BadMessage as error:
            self.end_with(replies.INTERNAL, str(error))
        return None

    def _send_ready(self) -> None:
        turns = self._turns
        while turns and not self.unsent and not self.closed:
            pieces = turns[0].said
            if pieces is None:
                return
            turns.popleft()
            self._send(pieces)

    def _send(self, pieces: tuple[bytes | memoryview, ...]) -> None:
        if not self.begun:
            self.begun = True
            self.write_headers(replies.ANSWER_HEAD, end=False)
        sender = self.connection.sender
        length = sum(memoryview(piece).nbytes for piece in pieces)
        size = length + PREFIX.size
        if size <= sender.small and size <= self.window and size <= sender.window:
            self.window -= size
            sender.window -= size
            head = frames.FRAME.pack(size << 8 | frames.DATA, 0, self.sid)
            sender.write(b"".join((head, PREFIX.pack(0, length), *pieces)))
            return
        if self.outbox is None:
            self.outbox = Outbox()
        self.outbox.add((PREFIX.pack(0, length), *pieces))
        sender.send(self)

    def _expire(self) -> None:
        self._timer = None
        self.end_with(replies.DEADLINE_EXCEEDED, replies.LATE)
