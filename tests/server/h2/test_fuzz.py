"""Whatever bytes a client sends: no exception, and whoever breaks the rules is told so."""

import gzip
import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.runtime.job import Job
from app.server.h2 import frames
from app.server.h2.head import Caller
from app.server.h2.hpack import encode
from tests.examples import many
from tests.server.h2.wire import COLD, PATH, STREAMED, Client, echo, framed

SIDS = st.one_of(st.integers(0, 9), st.just(2**31 - 1), st.just(2**31 + 1))
PSEUDO = ((b":method", b"POST"), (b":scheme", b"http"))
GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
FIELDS = st.sampled_from(
    [
        (),
        ((b"grpc-timeout", b"1S"),),
        ((b"grpc-encoding", b"gzip"),),
        ((b"content-length", b"9"),),
        ((b"x-bin", b"AA"),),
    ]
)
GOOD = st.builds(
    lambda path, more: encode(*PSEUDO, (b":path", path), *GRPC, *more), st.sampled_from([PATH, COLD, STREAMED]), FIELDS
)
BLOCKS = st.one_of(st.binary(max_size=40), GOOD, st.just(Client().block()))
BODIES = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=20).map(framed),
    st.binary(max_size=20).map(lambda message: framed(message, True)),
    st.binary(max_size=20).map(lambda message: framed(gzip.compress(message), True)),
)
WORDS = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 100)).map(lambda word: struct.pack(">I", word))
SETTINGS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 70_000)), max_size=3).map(
    lambda values: b"".join(struct.pack(">HI", *pair) for pair in values)
)
FLAGS = st.one_of(st.sampled_from([0, 1, 4, 5, 8, 0x2D]), st.integers(0, 255))


def of(kind: int, payloads: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(frames.frame, st.just(kind), FLAGS, SIDS, st.one_of(payloads, st.binary(max_size=12)))


def call(sid: int, block: bytes, update: bytes, body: bytes, cut: int) -> bytes:
    return b"".join(
        (
            frames.frame(frames.HEADERS, frames.END_HEADERS, sid, block),
            frames.frame(frames.WINDOW_UPDATE, 0, sid, update) if update else b"",
            frames.frame(frames.DATA, 0, sid, body[:cut]) if cut else b"",
            frames.frame(frames.DATA, frames.END_STREAM, sid, body[cut:]),
        )
    )


FRAMES = st.one_of(
    st.builds(call, SIDS, GOOD, st.one_of(st.just(b""), WORDS), BODIES, st.integers(0, 20)),
    of(frames.HEADERS, BLOCKS),
    of(frames.DATA, BODIES),
    of(frames.SETTINGS, SETTINGS),
    of(frames.WINDOW_UPDATE, WORDS),
    of(frames.RST_STREAM, WORDS),
    of(frames.CONTINUATION, BLOCKS),
    st.builds(frames.frame, st.integers(0, 12), FLAGS, SIDS, st.binary(max_size=20)),
    st.binary(max_size=30),
)


class Moody:
    """Answers some calls at once, some later and some never."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []

    def __call__(self, message: bytes, seconds: float | None, caller: Caller) -> Job | None:
        self.callers.append(caller)
        return echo(message, seconds, caller) if len(message) % 2 else None


@settings(max_examples=many(400))
@given(st.lists(FRAMES, max_size=25), st.integers(1, 60), st.booleans())
@example([frames.frame(1, 4, 1, b"\x80")], 1, True)
def test_no_bytes_break_a_connection(sent: list[bytes], cut: int, greeted: bool) -> None:
    start = Moody()
    client = Client(start, most=64)
    if greeted:
        client.greet(INITIAL_WINDOW_SIZE=20)
    text = b"".join(sent)
    for at in range(0, len(text), cut):
        client.send(text[at : at + cut])
        if at % 3 == 0 and start.callers:
            start.callers.pop().answer(b"late answer", "")
        if at % 5 == 0 and client.passages.calls:
            client.passages.calls.pop()[0].finish(at % 17, "ended")
    if greeted:
        client.frames()
    if client.transport.closed:
        return
    held = sum(stream.waiting for stream in client.connection.streams.values())
    assert client.connection._held == held
    client.connection.connection_lost(None)
    assert client.connection._held == client.connection.sender.held == 0
    assert not client.connection.streams


@given(st.lists(FRAMES, max_size=25))
def test_a_connection_that_ends_says_why(sent: list[bytes]) -> None:
    client = Client(echo, most=64).greet()
    client.send(*sent)
    if client.transport.closed:
        assert client.ended() > 0
