"""Calls of many requests, each answered in its turn."""

import gzip
import logging
from typing import Any

import pytest

from app.errors import InvalidArgument
from app.protocols.call import Answer
from app.runtime.job import Job
from app.server.h2 import frames, replies, streaming
from app.server.h2.frames import END_STREAM, ErrorCode
from app.server.h2.head import Caller
from app.server.h2.message import PREFIX
from tests.server.h2.wire import MOST, STREAMED, Client, data, echo, framed


@pytest.fixture
def client() -> Client:
    return begun(Client())


def begun(client: Client, **changed: Any) -> Client:
    """One whose stream 1 has begun."""
    client.greet()
    client.send(client.headers(1, path=STREAMED, **changed))
    return client


def received(client: Client) -> tuple[list[bytes], str | None]:
    """What has come since the last time: the messages, and the status if there was one."""
    text, status = b"", None
    for frame in client.frames():
        if frame.kind == frames.DATA:
            text += frame.payload
        elif frame.kind == frames.HEADERS:
            fields = client.fields(frame)
            status = fields.get("grpc-status", status)
            assert (status is None) == (not frame.flags & END_STREAM)
    messages = []
    while text:
        flag, size = PREFIX.unpack_from(text)
        assert flag == 0
        assert len(text) >= 5 + size, "the last message is not complete"
        messages.append(text[5 : 5 + size])
        text = text[5 + size :]
    return messages, status


def test_each_request_is_answered_and_the_last_with_a_status() -> None:
    client = begun(Client(echo))
    for message in (b"one", b"", b"three"):
        client.send(data(1, framed(message)))
        assert received(client) == ([b"<%b>" % message], None)
    client.send(data(1, b"", end=True))
    assert received(client) == ([], "0")
    assert not client.connection.streams


def test_many_that_come_at_once_are_answered_in_one_write() -> None:
    client = begun(Client(echo))
    before = client.transport.writes
    client.send(data(1, b"".join(framed(b"%d" % number) for number in range(1000)), end=True))
    assert client.transport.writes == before + 1
    assert received(client) == ([b"<%d>" % number for number in range(1000)], "0")


def test_a_call_without_requests_is_a_status_alone(client: Client) -> None:
    client.send(data(1, b"", end=True))
    assert client.status() == ("0", "")


def test_an_answer_waits_for_those_before_it(client: Client) -> None:
    client.send(data(1, framed(b"one") + framed(b"two"), end=True))
    one, two = client.jobs
    assert (one.message, two.message) == (b"one", b"two")
    two.caller.answer(b"2", "")
    assert received(client) == ([], None)
    one.caller.answer(Answer((b"", memoryview(b"1")), ""), "")
    assert received(client) == ([b"<1>", b"<2>"], "0")
    assert not one.abandoned
    assert not two.abandoned


def test_one_that_is_refused_is_told_so_and_the_call_goes_on(client: Client) -> None:
    client.send(data(1, framed(b"bad")))
    client.jobs[0].caller.refuse(InvalidArgument("no"))
    assert received(client) == ([b"bad: no"], None)
    client.send(data(1, framed(b"good"), end=True))
    client.jobs[1].caller.answer(b"1", "")
    assert received(client) == ([b"<1>"], "0")


def test_a_fault_of_ours_is_logged_and_told_without_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    def fails(message: bytes, seconds: float | None, caller: Caller) -> Job | None:
        raise RuntimeError("secret")

    client = begun(Client(fails))
    with caplog.at_level(logging.ERROR):
        client.send(data(1, framed(b"x"), end=True))
    ((message,), status) = received(client)
    assert message.startswith(b"x: the server failed on this request; its log has it as request ")
    assert status == "0"
    assert "secret" in caplog.text


def test_only_so_many_are_under_way_at_a_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_AHEAD", 2)
    client.send(data(1, b"".join(framed(b"%d" % number) for number in range(5)), end=True))
    assert len(client.jobs) == 2
    for number in (1, 0, 2, 3, 4):
        client.jobs[number].caller.answer(b"%d" % number, "")
        assert len(client.jobs) == {1: 2, 0: 4, 2: 5, 3: 5, 4: 5}[number]
    assert received(client) == ([b"<%d>" % number for number in range(5)], "0")


def test_a_request_may_come_in_many_frames(client: Client) -> None:
    for octet in framed(b"hello"):
        client.send(data(1, bytes([octet])))
    assert client.jobs[0].message == b"hello"


def test_a_request_may_be_compressed() -> None:
    client = begun(Client(echo), grpc_encoding="gzip")
    client.send(data(1, framed(gzip.compress(b"hello"), compressed=True) + framed(b"plain"), end=True))
    assert received(client) == ([b"<hello>", b"<plain>"], "0")


@pytest.mark.parametrize(
    ("message", "status"),
    [(b"not gzip", "13"), (gzip.compress(bytes(MOST + 1)), "8")],
    ids=["no gzip", "too large"],
)
def test_one_that_cannot_be_inflated_ends_the_call(message: bytes, status: str) -> None:
    client = begun(Client(), grpc_encoding="gzip")
    client.send(data(1, framed(b"first") + framed(message, compressed=True)))
    assert client.status()[0] == status
    assert [job.abandoned for job in client.jobs] == [True]
    client.jobs[0].caller.answer(b"late", "")
    assert all(frame.kind != frames.DATA for frame in client.frames())


def test_a_call_that_ends_in_the_middle_of_a_request_is_refused(client: Client) -> None:
    client.send(data(1, framed(b"hello")[:-1], end=True))
    assert client.status()[0] == "13"


@pytest.mark.parametrize("how", ["reset", "gone"])
def test_when_the_client_goes_nobody_waits_for_what_is_under_way(client: Client, how: str) -> None:
    client.send(data(1, framed(b"one") + framed(b"two")))
    if how == "reset":
        client.send(frames.rst_stream(1, ErrorCode.CANCEL))
    else:
        client.connection.connection_lost(None)
    assert [job.abandoned for job in client.jobs] == [True, True]
    for job in client.jobs:
        job.caller.refuse(InvalidArgument("late"))
    assert not client.frames()
    assert not client.connection.streams


# Time


def test_a_call_ends_when_its_time_is_up() -> None:
    client = begun(Client(), grpc_timeout="5S")
    client.loop.now = 2.0
    client.send(data(1, framed(b"one")))
    assert client.jobs[0].seconds == 3.0
    client.loop.run_later()
    assert client.status() == ("4", replies.LATE)
    assert client.jobs[0].abandoned


def test_the_clock_of_a_call_that_has_ended_is_stopped() -> None:
    client = begun(Client(echo), grpc_timeout="5S")
    client.send(data(1, b"", end=True))
    client.frames()
    client.loop.run_later()
    assert not client.frames()


# Windows


def test_no_more_is_begun_while_the_client_does_not_take_its_answers() -> None:
    client = Client(echo).greet(INITIAL_WINDOW_SIZE=10)
    client.send(client.headers(1, path=STREAMED))
    client.send(data(1, b"".join(framed(b"%d" % number) for number in range(4)), end=True))
    # The first answer has 8 bytes with its prefix, and so the second does not fit.
    found = [frame for frame in client.frames() if frame.kind == frames.DATA]
    assert b"".join(frame.payload for frame in found) == framed(b"<0>") + framed(b"<1>")[:2]
    client.send(frames.window_update(1, 6))
    (frame,) = client.frames()
    assert frame.payload == framed(b"<1>")[2:]
    client.send(frames.window_update(1, 100))
    assert received(client) == ([b"<2>", b"<3>"], "0")


def test_large_answers_go_as_the_windows_open() -> None:
    large = bytes(range(256)) * 200
    client = Client().greet()
    client.send(client.headers(1, path=STREAMED), data(1, framed(b"a") + framed(b"b"), end=True))
    for job in client.jobs:
        job.caller.answer(large, "")
    whole = [frame for frame in client.frames() if frame.kind == frames.DATA]
    assert sum(len(frame.payload) for frame in whole) == frames.DEFAULT_WINDOW
    client.send(frames.window_update(1, 1 << 20), frames.window_update(0, 1 << 20))
    rest = client.frames()
    text = b"".join(frame.payload for frame in [*whole, *rest] if frame.kind == frames.DATA)
    assert text == framed(b"<" + large + b">") * 2
    assert client.fields(rest[-1])["grpc-status"] == "0"


def test_the_client_is_told_of_no_more_room_while_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_AHEAD", 1)
    client = begun(Client(most=8 << 20))
    message = framed(bytes(100_000))

    def room() -> int:
        return sum(
            int.from_bytes(frame.payload, "big")
            for frame in client.frames()
            if frame.kind == frames.WINDOW_UPDATE and frame.sid
        )

    for _ in range(30):
        client.send(data(1, message))
    assert room() == 0, "29 wait"
    for number in range(25):
        client.jobs[number].caller.answer(b"", "")
    assert room() == 30 * len(message)


def test_what_waits_for_its_turn_counts_against_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_AHEAD", 1)
    client = begun(Client())
    for _ in range(6):
        client.send(*(data(1, piece) for piece in (PREFIX.pack(0, MOST), bytes(MOST))))
    assert client.status()[0] == "8"
    assert client.jobs[0].abandoned


# The end of the connection


def test_at_the_end_what_is_here_is_answered_and_no_more_is_taken(client: Client) -> None:
    client.send(data(1, framed(b"one")))
    client.connection.retire()
    client.send(data(1, framed(b"two")))
    ping = next(frame for frame in client.frames() if frame.kind == frames.PING)
    client.send(frames.frame(frames.PING, frames.ACK, 0, ping.payload), data(1, framed(b"late")))
    assert [job.message for job in client.jobs] == [b"one", b"two"]
    assert not client.transport.closed
    for job in client.jobs:
        job.caller.answer(job.message, "")
    found = [frame for frame in client.frames() if frame.kind in (frames.DATA, frames.HEADERS)]
    assert b"".join(frame.payload for frame in found[1:-1]) == framed(b"<one>") + framed(b"<two>")
    end = client.fields(found[-1])
    assert end["grpc-status"] == "14"
    assert end["grpc-message"] == "the server is shutting down"
    assert client.transport.closed


def test_one_that_has_nothing_to_do_ends_with_the_connection(client: Client) -> None:
    client.connection.retire()
    client.loop.run_later()
    found = [frame for frame in client.frames() if frame.kind == frames.HEADERS]
    assert client.fields(found[0])["grpc-status"] == "14"
    assert client.transport.closed
