"""Calls of gRPC: hot ones to their answers, and the others to the relay, with a client that does all by hand."""

import gzip
import logging

import pytest

from app.errors import LitepoolError, Unavailable
from app.protocols.call import Answer
from app.runtime.job import Job
from app.server.h2 import frames
from app.server.h2.frames import END_STREAM, ErrorCode
from app.server.h2.head import Caller
from app.server.h2.sending import Outlet
from tests.server.h2.wire import COLD, Client, data, echo, framed


@pytest.fixture
def client() -> Client:
    return Client().greet()


# Hot calls.


@pytest.mark.parametrize("message", [b"", b"hello", bytes(range(256)) * 40])
def test_an_answer_is_one_message_and_a_status(message: bytes) -> None:
    client = Client(echo).greet()
    for sid in (1, 3, 5):
        before = client.transport.writes
        client.call(sid, message)
        assert client.transport.writes == before + 1
        assert client.answer() == (message, "0")
        assert not client.connection.streams


def test_an_answer_that_comes_later_is_the_same(client: Client) -> None:
    client.call(1)
    client.call(3)
    assert not client.frames()
    client.jobs[1].caller.answer(b"three", "")
    assert client.answer() == (b"three", "0")
    client.jobs[0].caller.answer(b"one", "")
    assert client.answer() == (b"one", "0")
    assert not client.connection.streams


@pytest.mark.parametrize("pieces", [(b"one", b"two"), (memoryview(b"onetwo"), b""), (b"", memoryview(b"onetwo"))])
def test_an_answer_may_be_in_pieces(client: Client, pieces: tuple[bytes | memoryview, ...]) -> None:
    client.call(1)
    before = client.transport.writes
    client.jobs[0].caller.answer(Answer(pieces, ""), "")
    assert client.transport.writes == before + 1
    assert client.answer() == (b"onetwo", "0")


def test_large_pieces_follow_each_other_through_the_frames() -> None:
    client = Client().greet(INITIAL_WINDOW_SIZE=1 << 20)
    client.send(frames.window_update(0, 1 << 20))
    client.call(1)
    pieces = (b"a" * 40_000, memoryview(b"b" * 50_000), b"", b"c")
    client.jobs[0].caller.answer(Answer(pieces, ""), "")
    assert client.answer() == (b"".join(pieces), "0")


def test_pieces_may_be_arrays(client: Client) -> None:
    client.call(1)
    client.jobs[0].caller.answer(Answer((memoryview(bytes(range(24))).cast("I", (2, 3)),), ""), "")
    assert client.answer() == (bytes(range(24)), "0")


def test_a_message_may_come_in_many_frames(client: Client) -> None:
    client.send(client.headers(1))
    for octet in framed(b"hello"):
        client.send(data(1, bytes([octet])))
    client.send(data(1, b"", end=True))
    assert client.jobs[0].message == b"hello"


def test_a_refusal_is_a_status_alone(client: Client) -> None:
    client.call(1)
    client.jobs[0].caller.refuse(Unavailable("full: 100%", 3))
    (frame,) = client.frames()
    assert frame.flags & END_STREAM
    fields = client.fields(frame)
    assert fields["grpc-status"] == "14"
    assert fields["grpc-message"] == "full: 100%25"
    assert fields["grpc-retry-pushback-ms"] == "3000"


def test_a_fault_of_the_server_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    def fail(message: bytes, seconds: float | None, caller: Caller) -> Job | None:
        raise ZeroDivisionError("secret")

    client = Client(fail).greet()
    with caplog.at_level(logging.ERROR):
        client.call(1)
    _, message = client.status()
    assert "secret" not in message
    assert message.split()[-1] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    client.call(3)
    assert client.status()[0] == "14"


def test_a_refusal_before_the_start_returns_is_a_status_too() -> None:
    def refuse(message: bytes, seconds: float | None, caller: Caller) -> Job | None:
        caller.refuse(LitepoolError("no"))
        return None

    client = Client(refuse).greet()
    for sid in (1, 3, 5):
        client.call(sid)
        assert client.status() == ("14", "no")
    assert not client.connection.streams


@pytest.mark.parametrize(
    ("sent", "code", "message"),
    [
        (b"", "12", "expected one request message, found none"),
        (framed(b"one") + framed(b"two"), "12", "expected one request message, found a second"),
        (framed(b"one")[:-1], "13", "the request ends in the middle of a message"),
        (b"\0\0", "13", "the request ends in the middle of a message"),
        (b"\7\0\0\0\0", "13", "a message's first byte says whether it is compressed: expected 0 or 1, found 7"),
        (b"\0\0\1\0\1", "8", "the message has 65537 bytes, and the server takes 65536 at most"),
        (framed(b"x", True), "13", "the message is marked as compressed, and there is no grpc-encoding that says how"),
    ],
)
def test_what_is_not_one_message_is_refused(client: Client, sent: bytes, code: str, message: str) -> None:
    client.send(client.headers(1), data(1, sent, end=True))
    assert client.status() == (code, message)
    assert not client.jobs
    assert not client.connection.streams
    client.send(client.headers(3), data(3, sent, end=True))
    assert client.status() == (code, message)


def test_a_message_that_is_too_large_is_refused_when_it_comes_at_once() -> None:
    client = Client(most=1000).greet()
    for sid in (1, 3, 5):
        client.call(sid, bytes(1001))
        assert client.status() == ("8", "the message has 1001 bytes, and the server takes 1000 at most")
    client.call(7, bytes(1000))
    assert client.jobs[0].message == bytes(1000)


def test_messages_behind_a_refusal_are_dropped(client: Client) -> None:
    client.send(client.headers(1), data(1, framed(b"one") * 3 + framed(b"four")[:-1]))
    assert client.status() == ("12", "expected one request message, found a second")
    assert client.connection._held == 0


def test_a_message_that_is_too_large_is_refused_before_it_has_come(client: Client) -> None:
    client.send(client.headers(1), data(1, b"\0\0\1\0\1"))
    head, reset = client.frames()
    assert client.fields(head)["grpc-status"] == "8"
    assert reset == (frames.RST_STREAM, 0, 1, bytes(4))
    # What was on its way is dropped, and its end too.
    client.send(data(1, bytes(1000)), data(1, b"", end=True))
    assert not client.frames()
    client.send(data(1, b"x"))
    assert client.reset() == (1, ErrorCode.STREAM_CLOSED)


def test_a_client_that_resets_what_was_refused_sends_no_more_of_it(client: Client) -> None:
    client.send(client.headers(1), data(1, b"\0\0\1\0\1"), frames.rst_stream(1, ErrorCode.CANCEL))
    client.frames()
    client.send(data(1, b"x"))
    assert client.reset() == (1, ErrorCode.STREAM_CLOSED)


def test_of_very_many_refusals_only_the_last_are_remembered(client: Client) -> None:
    for sid in range(1, 4001, 2):
        client.send(client.headers(sid), data(sid, b"\0\0\1\0\1"))
    assert len(client.connection._early) < 2000
    client.frames()
    client.send(data(3999, b"late"))
    assert not client.frames()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
def test_a_message_that_is_not_compressed_needs_no_encoding(encoding: str) -> None:
    client = Client(echo).greet()
    client.call(1, grpc_encoding=encoding)
    assert client.answer() == (b"hello", "0")


def test_a_small_message_is_inflated_at_once() -> None:
    client = Client(echo).greet()
    body = framed(gzip.compress(b"hello" * 1000), compressed=True)
    for sid in (1, 3, 5):
        client.send(client.headers(sid, grpc_encoding="gzip"), data(sid, body, end=True))
        assert client.answer() == (b"hello" * 1000, "0")


def test_a_small_bomb_is_refused() -> None:
    client = Client(echo).greet()
    body = framed(gzip.compress(bytes(10 << 20)), compressed=True)
    client.send(client.headers(1, grpc_encoding="gzip"), data(1, body, end=True))
    code, message = client.status()
    assert code == "8"
    assert message == "the message has more than the 65536 bytes that the server takes, inflated"


def test_what_is_no_grpc_is_told_so_by_http(client: Client) -> None:
    client.send(client.headers(1, content_type="application/json"), data(1, b"{}", end=True))
    head, reset = client.frames()
    assert client.fields(head)[":status"] == "415"
    assert reset[:3] == (frames.RST_STREAM, 0, 1)


# Flow control of answers.


def test_an_answer_goes_as_far_as_the_windows_let_it() -> None:
    client = Client(echo, most=1 << 20).greet(INITIAL_WINDOW_SIZE=10)
    client.call(1, b"0123456789")
    head, first = client.frames()
    assert client.fields(head)[":status"] == "200"
    assert first == (frames.DATA, 0, 1, framed(b"0123456789")[:10])
    client.send(frames.window_update(1, 3))
    assert client.frames() == [(frames.DATA, 0, 1, b"567")]
    client.send(frames.window_update(1, 3))
    last, end = client.frames()
    assert last == (frames.DATA, 0, 1, b"89")
    assert client.fields(end) == {"grpc-status": "0"}
    assert not client.connection.streams
    assert client.connection.sender.held == 0


def test_a_window_may_be_moved_between_the_headers_and_the_message() -> None:
    client = Client(echo).greet(INITIAL_WINDOW_SIZE=10)
    for sid in (1, 3, 5):
        before = client.transport.writes
        client.send(client.headers(sid), frames.window_update(sid, 5), data(sid, framed(b"0123456789"), end=True))
        assert client.answer() == (b"0123456789", "0")
        assert client.transport.writes == before + 1
    client.send(client.headers(7), frames.window_update(7, 1 << 31 | 5))
    client.send(data(7, framed(b"0123456789"), end=True))
    assert client.answer() == (b"0123456789", "0")


@pytest.mark.parametrize("update", [0, 2**31 - 1])
def test_a_window_that_is_moved_wrongly_there_resets_its_stream(client: Client, update: int) -> None:
    client.call(1)
    client.send(client.headers(3), frames.window_update(3, update), data(3, framed(b"hello"), end=True))
    sid, code = client.reset()
    assert sid == 3
    assert code == (ErrorCode.FLOW_CONTROL_ERROR if update else ErrorCode.PROTOCOL_ERROR)
    assert len(client.jobs) == 1


def test_a_window_may_become_negative_and_open_again() -> None:
    client = Client(echo).greet(INITIAL_WINDOW_SIZE=10)
    client.call(1, b"0123456789")
    client.frames()
    client.send(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 4}), frames.window_update(1, 6))
    assert [frame.kind for frame in client.frames()] == [frames.SETTINGS]
    client.send(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 5}))
    assert client.frames()[1] == (frames.DATA, 0, 1, b"5")
    client.send(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 100}))
    assert client.frames()[1] == (frames.DATA, 0, 1, b"6789")


def test_a_long_answer_is_cut_to_the_frames_that_the_client_takes() -> None:
    message = bytes(range(256)) * 200
    client = Client(echo).greet()
    client.call(1, message)
    assert [len(frame.payload) for frame in client.frames() if frame.kind == 0] == [16_384, 16_384, 16_384, 2053]
    client.send(frames.settings({frames.Setting.MAX_FRAME_SIZE: 20_000}), frames.window_update(0, 1 << 20))
    client.frames()
    client.call(3, message)
    assert [len(frame.payload) for frame in client.frames() if frame.kind == 0] == [20_000, 20_000, 11_205]


def test_answers_share_the_window_of_the_connection() -> None:
    client = Client(echo, most=1 << 20).greet(INITIAL_WINDOW_SIZE=1 << 20)
    client.call(1, bytes(60_000))
    client.call(3, bytes(60_000))
    client.call(5, b"small")
    sent = {sid: sum(len(frame.payload) for frame in client.frames() if frame[::2] == (0, sid)) for sid in (1,)}
    assert sent == {1: 60_005}
    assert client.connection.sender.window == 0
    client.send(frames.window_update(0, 1 << 20))
    by_stream = [frame.sid for frame in client.frames() if frame.kind == 0]
    assert set(by_stream) == {3, 5}
    assert not client.connection.streams


def test_small_answers_use_up_the_window_of_the_connection_too() -> None:
    client = Client(echo).greet()
    for sid in range(1, 9, 2):
        client.call(sid, bytes(15_995))
        assert client.answer() == (bytes(15_995), "0")
    client.call(9, bytes(15_995))
    assert sum(len(frame.payload) for frame in client.frames() if frame.kind == 0) == 65_535 - 4 * 16_000
    client.send(frames.window_update(0, 14_465))
    *_, end = client.frames()
    assert client.fields(end)["grpc-status"] == "0"


def test_long_answers_take_turns() -> None:
    client = Client().greet(INITIAL_WINDOW_SIZE=8 << 20)
    for sid in (1, 3):
        client.call(sid)
    for job in client.jobs:
        job.caller.answer(bytes(4 << 20), "")
    client.frames()
    client.send(frames.window_update(0, 16 << 20))
    order = [frame.sid for frame in client.frames() if frame.kind == frames.DATA]
    assert order.index(3) < len(order) // 3
    assert sorted(order) != order


def test_pings_of_a_client_that_takes_a_long_answer_are_no_flood() -> None:
    client = Client(echo, most=1 << 20).greet(INITIAL_WINDOW_SIZE=0)
    client.call(1, bytes(30_000))
    for _ in range(11_000):
        client.send(frames.frame(frames.PING, 0, 0, bytes(8)), frames.window_update(1, 1))
    assert not client.transport.closed


def test_a_stream_that_waits_for_its_own_window_is_not_looked_at_for_others() -> None:
    client = Client(echo, most=1 << 20).greet(INITIAL_WINDOW_SIZE=0)
    for sid in range(1, 201, 2):
        client.call(sid, bytes(1000))
    sender = client.connection.sender
    looked = []
    turn = sender._turn

    def look(outlet: Outlet) -> None:
        looked.append(outlet.sid)
        turn(outlet)

    sender._turn = look  # type: ignore[method-assign]
    for _ in range(100):
        client.send(frames.window_update(0, 1), frames.window_update(7, 1))
    assert looked == [7] * 100


def test_a_stream_that_waits_does_not_hold_up_others() -> None:
    client = Client(echo, most=1 << 20).greet(INITIAL_WINDOW_SIZE=100)
    client.call(1, bytes(1000))
    client.frames()
    client.call(3, b"small")
    assert client.answer() == (b"small", "0")


def test_an_answer_that_nobody_takes_is_dropped_with_its_stream() -> None:
    client = Client(echo, most=1 << 20).greet(INITIAL_WINDOW_SIZE=0)
    client.call(1, bytes(1000))
    assert client.connection.sender.held == 1005
    client.send(frames.rst_stream(1, ErrorCode.CANCEL))
    assert client.connection.sender.held == 0
    assert not client.connection.streams


def test_a_client_that_takes_no_answers_gets_no_more_of_them() -> None:
    client = Client(echo, most=1000).greet(INITIAL_WINDOW_SIZE=0)
    for sid in range(1, 9, 2):
        client.call(sid, bytes(1000))
    client.frames()
    client.call(9)
    assert client.status() == ("8", "4020 bytes of answers wait for the client to take them")


def test_nothing_goes_while_the_transport_is_full() -> None:
    client = Client(echo, most=1 << 20).greet(INITIAL_WINDOW_SIZE=100)
    client.call(1, bytes(300))
    client.frames()
    client.connection.pause_writing()
    client.send(frames.window_update(1, 1000))
    assert not client.frames()
    client.connection.resume_writing()
    assert len(client.frames()) == 2


@pytest.mark.parametrize("update", [0, 2**31 - 1])
def test_a_window_that_is_moved_wrongly_resets_its_stream(client: Client, update: int) -> None:
    client.call(1)
    client.send(frames.window_update(1, update))
    sid, code = client.reset()
    assert sid == 1
    assert code == (ErrorCode.FLOW_CONTROL_ERROR if update else ErrorCode.PROTOCOL_ERROR)
    assert client.jobs[0].abandoned


def test_a_first_window_that_makes_another_too_large_ends_the_connection(client: Client) -> None:
    client.call(1)
    client.send(frames.window_update(1, 2**31 - 1 - 65_535))
    client.send(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 65_536}))
    assert client.ended() == ErrorCode.FLOW_CONTROL_ERROR


# Calls that are passed on.


def cold(client: Client, sid: int = 1, end: bool = False, **changed: str) -> None:
    client.send(client.headers(sid, path=COLD, end=end, **changed))


def test_a_call_of_another_method_goes_to_the_relay_as_it_comes(client: Client) -> None:
    cold(client, x="y", grpc_timeout="3S", grpc_encoding="gzip")
    ((sink, seconds),) = client.passages.calls
    assert sink.head.path == "/a.B/Cold"
    assert sink.head.metadata == (("x", "y"),)
    assert seconds == 3.0
    client.send(data(1, framed(b"one") + framed(b"two", True)), data(1, framed(b"three"), end=True))
    assert client.passages.seen == [(False, b"one"), (True, b"two"), (False, b"three"), "end"]


def test_what_the_relay_answers_goes_to_the_client(client: Client) -> None:
    cold(client, end=True)
    ((sink, _),) = client.passages.calls
    sink.begin_answer([("x", "y")])
    (head,) = client.frames()
    assert client.fields(head)["x"] == "y"
    with pytest.raises(StopIteration):
        sink.send(b"one").__await__().__next__()
    assert client.frames() == [(frames.DATA, 0, 1, framed(b"one"))]
    sink.finish(5, "gone", [("z-bin", b"\0")])
    (end,) = client.frames()
    assert end.flags & END_STREAM
    assert client.fields(end) == {"grpc-status": "5", "grpc-message": "gone", "z-bin": "AA"}
    assert client.passages.seen == ["end"]
    assert not client.connection.streams


def test_a_status_alone_from_the_relay_is_one_to_the_client(client: Client) -> None:
    cold(client, end=True)
    client.passages.calls[0][0].finish(12, "Method not found!")
    assert client.status() == ("12", "Method not found!")


def test_a_call_that_is_reset_is_cancelled_at_the_relay(client: Client) -> None:
    cold(client)
    cold(client, 3)
    client.send(frames.rst_stream(1, ErrorCode.CANCEL))
    assert client.passages.seen == ["cancel"]
    client.connection.connection_lost(None)
    assert client.passages.seen == ["cancel"] * 2


def test_a_call_that_is_answered_early_needs_no_rest(client: Client) -> None:
    cold(client)
    client.passages.calls[0][0].finish(0, "")
    head, reset = client.frames()
    assert client.fields(head)["grpc-status"] == "0"
    assert reset == (frames.RST_STREAM, 0, 1, bytes(4))
    client.send(data(1, framed(b"late")), data(1, b"", end=True))
    assert not client.frames()


def test_a_server_that_does_not_take_messages_is_sent_no_more() -> None:
    client = Client(most=1 << 30).greet()
    cold(client)
    ((sink, _),) = client.passages.calls
    body = framed(bytes((2 << 20) - 5))
    client.send(*(data(1, body[at : at + (1 << 19)]) for at in range(0, len(body), 1 << 19)))
    assert client.connection._held == (2 << 20) - 5
    assert all(frame.sid == 0 for frame in client.frames())
    sink.passed((2 << 20) - 5)
    assert [(frame.kind, frame.sid) for frame in client.frames()] == [(frames.WINDOW_UPDATE, 1)]
    assert client.connection._held == 0


def test_metadata_longer_than_a_frame_goes_in_several(client: Client) -> None:
    cold(client, end=True)
    client.passages.calls[0][0].finish(0, "", [("x", "y" * 40_000)])
    first, second, third = client.frames()
    assert [frame.kind for frame in (first, second, third)] == [frames.HEADERS, 9, 9]
    assert (first.flags, second.flags, third.flags) == (END_STREAM, 0, frames.END_HEADERS)
    block = first.payload + second.payload + third.payload
    assert client.fields(first._replace(payload=block, flags=frames.END_HEADERS))["x"] == "y" * 40_000
