"""A client by hand: frames to a connection whose transport and relay are stand-ins, and frames back."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import hpack

from app.errors import LitepoolError
from app.protocols.call import Answer
from app.runtime.job import Job
from app.server.h2 import frames
from app.server.h2.connection import GrpcProtocol
from app.server.h2.frames import END_HEADERS, END_STREAM, FRAME
from app.server.h2.head import Body, Caller, Hot, Start, Streamed
from app.server.h2.lane import GrpcLane
from app.server.h2.message import PREFIX
from app.server.h2.relay import Relay, Sink

PATH = b"/a.B/C"
COLD = b"/a.B/Cold"
STREAMED = b"/a.B/Streamed"
MOST = 1 << 16


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.writes = 0
        self.closed = False
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 50000) if name == "peername" else default

    def write(self, data: Any) -> None:
        assert not self.closed, "written to after the close"
        self.written += bytes(data)
        self.writes += 1

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Time goes when a test says so; what is asked for later is kept."""

    def __init__(self) -> None:
        self.now = 0.0
        self.later: list[tuple[float, Any, Timer]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, function: Any) -> Timer:
        timer = Timer()
        self.later.append((seconds, function, timer))
        return timer

    def call_at(self, when: float, function: Any) -> Timer:
        return self.call_later(when - self.now, function)

    def run_later(self) -> None:
        """Run what was asked for later and not cancelled."""
        due, self.later = self.later, []
        for _, function, timer in due:
            if not timer.cancelled:
                function()


class Passages:
    """Stands for the relay."""

    def __init__(self) -> None:
        self.calls: list[tuple[Sink, float | None]] = []
        self.seen: list[object] = []

    def open(self, sink: Sink, seconds: float | None) -> "Passages":
        self.calls.append((sink, seconds))
        return self

    def put(self, compressed: bool, message: bytes) -> None:
        self.seen.append((compressed, message))

    def put_end(self) -> None:
        self.seen.append("end")

    def cancel(self) -> None:
        self.seen.append("cancel")


class Frame(NamedTuple):
    kind: int
    flags: int
    sid: int
    payload: bytes


class Waiting(Job):
    """A call that is under way until a test answers it."""

    def __init__(self, message: bytes, seconds: float | None, caller: Caller) -> None:
        self.message = message
        self.seconds = seconds
        self.caller = caller


class Client:
    """One connection of one client.

    Args:
        start: runs the hot methods; without one, calls wait in `jobs` until a test answers them.
        access_log: whether the server notes each call.
    """

    def __init__(
        self, start: Start | None = None, most: int = MOST, lane: GrpcLane | None = None, access_log: bool = False
    ) -> None:
        self.jobs: list[Waiting] = []
        self.passages = Passages()
        hot: Mapping[bytes, Hot] = {PATH: start or self.wait, STREAMED: Streamed(start or self.wait, wrapped, told)}
        self.lane = lane or GrpcLane(hot, cast("Relay", self.passages), most, status, access_log=access_log)
        self.loop = Loop()
        self.connection = GrpcProtocol(self.lane, cast("asyncio.AbstractEventLoop", self.loop))
        self.transport = Transport()
        self.connection.connection_made(self.transport)
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()

    def wait(self, message: bytes, seconds: float | None, caller: Caller) -> Job | None:
        self.jobs.append(Waiting(message, seconds, caller))
        return self.jobs[-1]

    def greet(self, **values: int) -> "Client":
        """Begin the connection, with these settings, and drop what the server says to that."""
        self.send(frames.PREFACE, frames.settings({frames.Setting[name]: value for name, value in values.items()}))
        self.frames()
        return self

    def send(self, *data: bytes) -> None:
        self.connection.data_received(b"".join(data))

    def block(self, *more: tuple[str, str], path: bytes = PATH, **changed: str) -> bytes:
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path.decode(),
            ":authority": "host",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        fields.update({name.replace("_", "-"): value for name, value in changed.items()})
        return self.encoder.encode([*((name, value) for name, value in fields.items() if value), *more])

    def headers(self, sid: int, *more: tuple[str, str], end: bool = False, **changed: Any) -> bytes:
        flags = END_HEADERS | (END_STREAM if end else 0)
        return frames.frame(frames.HEADERS, flags, sid, self.block(*more, **changed))

    def call(self, sid: int, message: bytes = b"hello", **changed: Any) -> None:
        """Send a whole call."""
        self.send(self.headers(sid, **changed), data(sid, framed(message), end=True))

    def frames(self) -> list[Frame]:
        """What the server has sent since the last time."""
        written, self.transport.written = self.transport.written, b""
        found = []
        while written:
            word, flags, sid = FRAME.unpack_from(written)
            stop = FRAME.size + (word >> 8)
            assert len(written) >= stop, "the last frame is not complete"
            found.append(Frame(word & 0xFF, flags, sid, written[FRAME.size : stop]))
            written = written[stop:]
        return found

    def fields(self, frame: Frame) -> dict[str, str]:
        assert frame.kind == frames.HEADERS
        assert frame.flags & END_HEADERS
        return dict(cast("list[tuple[str, str]]", self.decoder.decode(frame.payload)))

    def answer(self) -> tuple[bytes, str]:
        """Of the one answer that was sent, the message and the status."""
        head, *middle, end = self.frames()
        assert self.fields(head)[":status"] == "200"
        message = b"".join(frame.payload for frame in middle)
        assert not any(frame.kind != frames.DATA for frame in middle)
        assert end.flags & END_STREAM
        flag, size = PREFIX.unpack_from(message)
        assert (flag, size) == (0, len(message) - 5)
        return message[5:], self.fields(end)["grpc-status"]

    def status(self) -> tuple[str, str]:
        """Of the answer that is a status alone, that and its message."""
        end = next(frame for frame in self.frames() if frame.kind == frames.HEADERS)
        assert end.flags & END_STREAM
        fields = self.fields(end)
        return fields["grpc-status"], fields.get("grpc-message", "")

    def reset(self) -> tuple[int, int]:
        """The stream that the server reset, and why."""
        (frame,) = self.frames()
        assert frame.kind == frames.RST_STREAM
        return frame.sid, int.from_bytes(frame.payload, "big")

    def ended(self) -> int:
        """Why the server ended the connection."""
        assert self.transport.closed
        frame = self.frames()[-1]
        assert frame.kind == frames.GOAWAY
        return int.from_bytes(frame.payload[4:8], "big")


def status(error: LitepoolError) -> tuple[int, str]:
    return 14, error.message


def wrapped(body: Body) -> tuple[bytes | memoryview, ...]:
    return b"<", *(body.pieces if isinstance(body, Answer) else (body,)), b">"


def told(message: bytes, error: LitepoolError) -> bytes:
    return b"%b: %b" % (message, error.message.encode())


def data(sid: int, payload: bytes, end: bool = False) -> bytes:
    return frames.frame(frames.DATA, END_STREAM if end else 0, sid, payload)


def framed(message: bytes, compressed: bool = False) -> bytes:
    return PREFIX.pack(compressed, len(message)) + message


def echo(message: bytes, seconds: float | None, caller: Caller) -> Job | None:
    caller.answer(message, "")
    return None
