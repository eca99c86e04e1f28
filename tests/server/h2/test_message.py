"""Messages, however they come, and those that are compressed."""

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.server.h2.message import SMALL, BadMessage, Inbox, Inflation, MessageTooLarge
from tests.server.h2.wire import framed

MESSAGES = st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=6)


@given(MESSAGES, st.lists(st.integers(0, 250), max_size=20))
def test_messages_are_the_same_wherever_their_bytes_are_cut(
    messages: list[tuple[bool, bytes]], cuts: list[int]
) -> None:
    text = b"".join(framed(message, flag) for flag, message in messages)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    inbox = Inbox(100)
    found = []
    for start, stop in itertools.pairwise(places):
        found += list(inbox.feed(memoryview(text)[start:stop]))
    assert found == messages
    assert inbox.empty
    assert inbox.held == 0


def test_a_message_in_very_many_pieces_is_put_together() -> None:
    message = bytes(range(256)) * 40
    inbox = Inbox(1 << 20)
    text = memoryview(framed(message))
    found = [pair for at in range(len(text)) for pair in inbox.feed(text[at : at + 1])]
    assert found == [(False, message)]


def test_a_message_above_the_limit_is_refused_by_its_prefix() -> None:
    inbox = Inbox(10)
    with pytest.raises(MessageTooLarge, match="has 11 bytes, and the server takes 10"):
        list(inbox.feed(memoryview(framed(bytes(11))[:5])))


def test_a_flag_that_is_neither_0_nor_1_is_refused() -> None:
    with pytest.raises(BadMessage, match="expected 0 or 1, found 2"):
        list(Inbox(10).feed(memoryview(b"\2\0\0\0\0")))


def test_a_small_piece_does_not_keep_all_of_what_was_read_with_it() -> None:
    inbox = Inbox(1000)
    read = bytearray(framed(bytes(900)) + framed(bytes(500))[:200])
    with memoryview(read) as view:
        assert len(list(inbox.feed(view))) == 1
    # Impossible while there is a view of it.
    read.clear()
    assert inbox.held == 195


def test_what_is_held_is_counted() -> None:
    inbox = Inbox(100)
    assert not list(inbox.feed(memoryview(framed(bytes(50))[:30])))
    assert inbox.held == 25
    assert not inbox.empty


@pytest.mark.parametrize(("encoding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
@pytest.mark.parametrize("size", [0, 1, 1000, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL])
def test_compressed_messages_are_inflated(encoding: bytes, pack: object, size: int) -> None:
    assert callable(pack)
    message = bytes(size)
    for most in (size, size + 1, 10 * SMALL):
        inflation = Inflation(encoding, pack(message), most)
        begun = inflation.begin()
        assert (inflation.finish() if begun is None else begun) == message


@pytest.mark.parametrize("most", [10, SMALL - 1, SMALL, SMALL + 1])
def test_inflation_ends_at_the_limit(most: int) -> None:
    inflation = Inflation(b"gzip", gzip.compress(bytes(100 * SMALL)), most)
    with pytest.raises(MessageTooLarge):
        inflation.begin() or inflation.finish()


WHOLE = gzip.compress(b"hello" * 100, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "data", "message"),
    [
        (b"identity", WHOLE, "no grpc-encoding"),
        (b"gzip", b"hello", "is not the gzip"),
        (b"deflate", WHOLE, "is not the deflate"),
        (b"gzip", WHOLE[:-9], "in the middle"),
        (b"gzip", b"", "in the middle"),
        (b"gzip", WHOLE + b"x", "bytes behind"),
        (b"gzip", gzip.compress(bytes(2 * SMALL), mtime=0)[:-9], "in the middle"),
    ],
)
def test_what_is_not_compressed_as_it_says_is_refused(encoding: bytes, data: bytes, message: str) -> None:
    with pytest.raises(BadMessage, match=message):  # noqa: PT012  Which of the two it is depends on the size.
        inflation = Inflation(encoding, data, 10 * SMALL)
        if inflation.begin() is None:
            inflation.finish()
