"""The rules of HTTP/2, frame by frame. Sections are those of RFC 9113."""

import logging

import pytest

from app.server.h2 import frames
from app.server.h2.frames import END_HEADERS, END_STREAM, PADDED, ErrorCode, Setting, frame
from app.server.h2.hpack import encode as literal
from tests.server.h2.wire import COLD, PATH, Client, data, echo, framed


@pytest.fixture
def client() -> Client:
    return Client().greet()


# Section 3.4: the preface.


def test_the_server_greets_with_its_settings_and_takes_those_of_the_client() -> None:
    client = Client()
    for at in range(len(frames.PREFACE)):
        client.send(frames.PREFACE[at : at + 1])
    settings, window = client.frames()
    assert settings.kind == frames.SETTINGS
    found = dict(frames.read_settings(settings.payload))
    assert found[Setting.MAX_CONCURRENT_STREAMS] >= 100
    assert found[Setting.INITIAL_WINDOW_SIZE] > frames.DEFAULT_WINDOW
    assert (window.kind, window.sid) == (frames.WINDOW_UPDATE, 0)
    client.send(frames.settings({}))
    assert client.frames() == [(frames.SETTINGS, frames.ACK, 0, b"")]
    client.send(frame(frames.SETTINGS, frames.ACK, 0))
    assert not client.frames()


def test_a_request_of_http_1_is_told_what_this_port_speaks() -> None:
    client = Client()
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert client.transport.written.startswith(b"HTTP/1.1 400 ")
    assert b"HTTP/2 without TLS" in client.transport.written
    assert client.transport.closed


@pytest.mark.parametrize("begin", [b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nXX", b"\0"])
def test_what_is_neither_is_closed(begin: bytes) -> None:
    client = Client()
    client.send(begin)
    assert client.transport.closed
    assert client.transport.written == b""


def test_a_client_that_does_not_begin_is_not_waited_for() -> None:
    client = Client()
    client.loop.run_later()
    assert client.transport.closed


def test_a_client_that_has_begun_may_be_silent(client: Client) -> None:
    client.loop.run_later()
    assert not client.transport.closed


@pytest.mark.parametrize(
    "first",
    [
        frame(frames.PING, 0, 0, bytes(8)),
        frame(frames.SETTINGS, frames.ACK, 0),
        frame(frames.HEADERS, END_HEADERS, 1, Client().block()),
    ],
)
def test_the_first_frame_is_settings(first: bytes) -> None:
    client = Client()
    client.send(frames.PREFACE, first)
    assert client.ended() == ErrorCode.PROTOCOL_ERROR


# What ends the connection.

P, F, S = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR, ErrorCode.FLOW_CONTROL_ERROR
C = ErrorCode.COMPRESSION_ERROR


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (data(0, b"x"), P),
        (data(1, b"x"), P),
        (frame(frames.HEADERS, END_HEADERS, 0, b"\x82"), P),
        (frame(frames.HEADERS, END_HEADERS, 2, b"\x82"), P),
        (frame(frames.HEADERS, END_HEADERS, 1, b"\x80"), C),
        (frame(frames.HEADERS, END_HEADERS | PADDED, 1, b""), F),
        (frame(frames.HEADERS, END_HEADERS | PADDED, 1, b"\x02\x82"), P),
        (frame(frames.HEADERS, END_HEADERS | frames.HAS_PRIORITY, 1, b"\x82"), P),
        (frame(frames.HEADERS, 0, 1, b"\x82") + frame(frames.PING, 0, 0, bytes(8)), P),
        (frame(frames.HEADERS, 0, 1, b"\x82") + frame(frames.CONTINUATION, END_HEADERS, 3, b"\x82"), P),
        (frame(frames.HEADERS, 0, 1, b"\x82") + data(1, b"x"), P),
        (frame(frames.HEADERS, 0, 1, b"\x82") + frame(frames.HEADERS, END_HEADERS, 3, b"\x82"), P),
        (frame(frames.CONTINUATION, END_HEADERS, 1, b"\x82"), P),
        (frame(frames.PRIORITY, 0, 0, bytes(5)), P),
        (frame(frames.RST_STREAM, 0, 0, bytes(4)), P),
        (frame(frames.RST_STREAM, 0, 1, bytes(4)), P),
        (frame(frames.RST_STREAM, 0, 1, bytes(3)), F),
        (frame(frames.SETTINGS, 0, 1), P),
        (frame(frames.SETTINGS, 0, 0, bytes(5)), F),
        (frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), F),
        (frames.settings({Setting.ENABLE_PUSH: 2}), P),
        (frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31}), S),
        (frames.settings({Setting.MAX_FRAME_SIZE: 2**14 - 1}), P),
        (frames.settings({Setting.MAX_FRAME_SIZE: 2**24}), P),
        (frame(frames.PUSH_PROMISE, END_HEADERS, 1, bytes(5)), P),
        (frame(frames.PING, 0, 1, bytes(8)), P),
        (frame(frames.PING, 0, 0, bytes(7)), F),
        (frame(frames.GOAWAY, 0, 1, bytes(8)), P),
        (frame(frames.GOAWAY, 0, 0, bytes(7)), F),
        (frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)), P),
        (frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\1"), F),
        (frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), P),
        (frames.window_update(0, 2**31 - 1), S),
        (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", F),
        (b"\x0f\xff\xff\x01\x00\x00\x00\x00\x01", ErrorCode.ENHANCE_YOUR_CALM),
    ],
)
def test_what_breaks_the_rules_of_the_connection_ends_it(client: Client, sent: bytes, code: ErrorCode) -> None:
    client.send(sent)
    assert client.ended() == code
    client.send(frame(frames.PING, 0, 0, bytes(8)))
    assert not client.frames()


def test_a_message_says_to_the_client_why_the_connection_ended(client: Client) -> None:
    client.call(5)
    client.send(frame(frames.PUSH_PROMISE, 0, 7, b""))
    (goaway,) = client.frames()
    assert goaway.payload[:8] == b"\0\0\0\5\0\0\0\1"
    assert goaway.payload[8:] == b"a client may not send PUSH_PROMISE"
    assert len(client.jobs) == 1


def test_calls_under_way_are_abandoned_when_the_connection_goes(client: Client) -> None:
    client.call(1)
    client.connection.connection_lost(None)
    assert client.jobs[0].abandoned
    client.jobs[0].caller.answer(b"late", "")
    assert not client.frames()
    assert not client.lane.connections


# What ends one stream.


@pytest.mark.parametrize("name", ["connection", "Upper", "te"])
def test_a_request_that_is_malformed_is_reset_and_others_go_on(client: Client, name: str) -> None:
    client.send(client.headers(1, (name, "x")), data(1, b"xxx"), client.headers(3))
    assert client.reset() == (1, ErrorCode.PROTOCOL_ERROR)
    client.send(data(3, framed(b"hello"), end=True))
    assert client.jobs[0].message == b"hello"


def test_data_behind_the_end_of_a_stream_resets_it(client: Client) -> None:
    client.call(1)
    client.send(data(1, b"more"))
    assert client.reset() == (1, ErrorCode.STREAM_CLOSED)
    assert client.jobs[0].abandoned


def test_data_on_a_stream_that_is_answered_is_told_so(client: Client) -> None:
    client.call(1)
    client.jobs[0].caller.answer(b"", "")
    client.frames()
    client.send(data(1, b"more"))
    assert client.reset() == (1, ErrorCode.STREAM_CLOSED)


def test_headers_behind_the_end_of_a_stream_reset_it(client: Client) -> None:
    client.call(1)
    client.send(client.headers(1, end=True))
    assert client.reset() == (1, ErrorCode.STREAM_CLOSED)


def test_headers_on_a_stream_that_is_closed_end_the_connection(client: Client) -> None:
    client.call(3)
    client.jobs[0].caller.answer(b"", "")
    client.send(client.headers(1, end=True))
    assert client.ended() == ErrorCode.STREAM_CLOSED


def test_trailers_end_the_request(client: Client) -> None:
    client.send(client.headers(1), data(1, framed(b"hello")))
    block = client.encoder.encode([("x-trailer", "1")])
    client.send(frame(frames.HEADERS, END_HEADERS | END_STREAM, 1, block))
    assert client.jobs[0].message == b"hello"
    client.call(3, b"and the table is still as the client's")
    assert client.jobs[1].message == b"and the table is still as the client's"


def test_trailers_that_do_not_end_the_request_reset_it(client: Client) -> None:
    client.send(client.headers(1), client.headers(1))
    assert client.reset() == (1, ErrorCode.PROTOCOL_ERROR)


def test_trailers_that_look_like_another_request_reset_it(client: Client) -> None:
    client.send(client.headers(1), client.headers(1, end=True))
    assert client.reset() == (1, ErrorCode.PROTOCOL_ERROR)
    assert not client.jobs


@pytest.mark.parametrize("length", ["9", "11"])
@pytest.mark.parametrize("seen", [False, True])
def test_a_body_of_another_length_than_the_headers_say_resets_the_stream(
    client: Client, length: str, seen: bool
) -> None:
    if seen:
        client.call(1, bytes(int(length) - 5), content_length=length)
        client.call(3, bytes(int(length) - 5), content_length=length)
    client.call(5, b"hello", content_length=length)
    assert client.reset() == (5, ErrorCode.PROTOCOL_ERROR)
    client.call(7, b"hello", content_length="10")
    assert client.jobs[-1].message == b"hello"


def test_a_client_that_resets_a_stream_is_not_answered(client: Client) -> None:
    client.call(1)
    client.send(frames.rst_stream(1, ErrorCode.CANCEL))
    assert client.jobs[0].abandoned
    client.jobs[0].caller.answer(b"late", "")
    assert not client.frames()
    assert not client.connection.streams


def test_a_stream_too_many_is_refused_so_that_the_client_may_try_again(client: Client) -> None:
    client.send(*(client.headers(sid) for sid in range(1, 2049, 2)))
    assert not client.frames()
    client.send(client.headers(2049), data(2049, framed(b"hello"), end=True))
    assert client.reset() == (2049, ErrorCode.REFUSED_STREAM)
    client.send(data(1, framed(b"hello"), end=True))
    client.jobs[0].caller.answer(b"", "")
    client.frames()
    client.call(2051)
    assert len(client.jobs) == 2


# Frames that say nothing to us.


def test_unknown_frames_settings_and_flags_are_ignored(client: Client) -> None:
    client.send(frame(0xBE, 0xFF, 7, b"whatever"), frame(frames.SETTINGS, 0, 0, b"\xfe\x03\0\0\0\1"))
    assert client.frames() == [(frames.SETTINGS, frames.ACK, 0, b"")]
    client.send(frame(frames.PRIORITY, 0, 9, bytes(5)), frame(frames.GOAWAY, 0, 0, bytes(8)))
    client.send(frame(frames.PING, frames.ACK, 0, bytes(8)))
    assert not client.frames()
    head = frame(frames.HEADERS, END_HEADERS | 0x50, 1, client.block())
    client.send(head, frame(frames.DATA, END_STREAM | 0x50, 1, framed(b"hello")))
    assert client.jobs[0].message == b"hello"


def test_a_priority_of_another_length_resets_its_stream(client: Client) -> None:
    client.send(frame(frames.PRIORITY, 0, 3, bytes(4)))
    assert client.reset() == (3, ErrorCode.FRAME_SIZE_ERROR)


def test_a_ping_is_answered_with_what_it_holds(client: Client) -> None:
    client.send(frame(frames.PING, 0, 0, b"12345678"))
    assert client.frames() == [(frames.PING, frames.ACK, 0, b"12345678")]


def test_the_reserved_bit_of_a_stream_is_ignored(client: Client) -> None:
    client.call(1)
    client.send(
        frame(frames.HEADERS, END_HEADERS, 3 | 1 << 31, client.block()), data(3 | 1 << 31, framed(b"hello"), end=True)
    )
    client.jobs[1].caller.answer(b"answer", "")
    assert {frame.sid for frame in client.frames()} == {3}


# Sections 6.2 and 6.10: header blocks.


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_a_header_block_may_come_in_many_frames(client: Client, cut: int) -> None:
    block = client.block()
    client.send(frame(frames.HEADERS, END_STREAM, 1, block[:cut]))
    client.send(frame(frames.CONTINUATION, 0, 1, block[cut:30]), frame(frames.CONTINUATION, END_HEADERS, 1, block[30:]))
    assert client.status() == ("12", "expected one request message, found none")


def test_padding_and_priority_are_taken_off(client: Client) -> None:
    block = client.block()
    flags = END_HEADERS | PADDED | frames.HAS_PRIORITY
    client.send(frame(frames.HEADERS, flags, 1, b"\3" + bytes(5) + block + bytes(3)))
    client.send(frame(frames.DATA, PADDED, 1, b"\x04" + framed(b"hello")[:6] + bytes(4)))
    client.send(frame(frames.DATA, PADDED | END_STREAM, 1, b"\x00" + framed(b"hello")[6:]))
    assert client.jobs[0].message == b"hello"


@pytest.mark.parametrize("padding", [b"", b"\1", b"\xff" + bytes(10)])
def test_padding_as_long_as_the_frame_ends_the_connection(client: Client, padding: bytes) -> None:
    client.send(client.headers(1), frame(frames.DATA, PADDED, 1, padding))
    assert client.ended() == ErrorCode.PROTOCOL_ERROR


def test_headers_that_are_too_long_are_refused_and_the_connection_goes_on(client: Client) -> None:
    block = client.block(("large", "y" * 3000)) + b"\xbe" * 30
    client.send(frame(frames.HEADERS, END_HEADERS | END_STREAM, 1, block))
    assert client.status() == ("8", "the headers have more than 65536 bytes")
    client.call(3)
    assert client.jobs[0].message == b"hello"


def test_a_header_block_without_end_is_cut_off(client: Client) -> None:
    client.send(frame(frames.HEADERS, 0, 1, client.block()))
    for _ in range(20):
        if client.transport.closed:
            break
        client.send(frame(frames.CONTINUATION, 0, 1, bytes(16_384)))
    assert client.ended() == ErrorCode.ENHANCE_YOUR_CALM


# Heads that were seen before.


def test_a_head_that_was_seen_before_means_the_same_until_the_table_changes(client: Client) -> None:
    client.call(1)
    client.call(3)
    block = client.block()
    assert block in client.connection._known
    client.call(5, grpc_timeout="5S")
    assert block not in client.connection._known
    # One entry more in the table: the same bytes name other fields now.
    client.send(frame(frames.HEADERS, END_HEADERS, 7, block))
    assert client.frames()[0].kind == frames.RST_STREAM


def test_of_very_many_unlike_heads_only_some_are_kept(client: Client) -> None:
    for sid in range(1, 2001, 2):
        more = literal((b"x", b"%d" % sid))
        client.send(frame(frames.HEADERS, END_HEADERS, sid, client.block() + more), data(sid, framed(b""), end=True))
    assert len(client.jobs) == 1000
    assert len(client.connection._known) <= 64
    assert len(client.lane._heads) <= 256


def test_a_timeout_is_told_to_what_runs_the_call(client: Client) -> None:
    for sid in (1, 3, 5):
        client.call(sid, grpc_timeout="250m")
    client.call(7)
    client.call(9, grpc_timeout="2S")
    assert [job.seconds for job in client.jobs] == [0.25, 0.25, 0.25, None, 2.0]


def test_what_a_message_takes_to_come_is_taken_off_its_timeout(client: Client) -> None:
    client.send(client.headers(1, grpc_timeout="2S"), data(1, framed(b"hello")))
    client.loop.now += 1.5
    client.send(data(1, b"", end=True))
    assert client.jobs[0].seconds == pytest.approx(0.5)
    client.send(client.headers(3, grpc_timeout="2S"))
    client.loop.now += 3
    client.send(data(3, framed(b"hello"), end=True))
    assert client.jobs[1].seconds == 0.0


def test_two_timeouts_are_refused(client: Client) -> None:
    client.send(client.headers(1, ("grpc-timeout", "1S"), ("grpc-timeout", "2S"), end=True))
    assert client.status()[0] == "13"


def test_a_timeout_that_is_none_is_refused(client: Client) -> None:
    for sid in (1, 3):
        client.call(sid, grpc_timeout="soon")
        assert client.status()[0] == "13"


# Flow control of what the client sends.


def test_the_client_is_told_of_room_before_it_has_none() -> None:
    client = Client(echo, most=1 << 30)
    client.send(frames.PREFACE, frames.settings({}))
    settings, window, _ = client.frames()
    stream = left = dict(frames.read_settings(settings.payload))[Setting.INITIAL_WINDOW_SIZE]
    total = frames.DEFAULT_WINDOW + int.from_bytes(window.payload, "big")
    body = framed(bytes(40 << 20))
    client.send(client.headers(1))
    for at in range(0, len(body), 16_384):
        piece = body[at : at + 16_384]
        left -= len(piece)
        total -= len(piece)
        assert left >= 0
        assert total >= 0
        client.send(data(1, piece))
        for found in client.frames():
            assert found.kind == frames.WINDOW_UPDATE
            size = int.from_bytes(found.payload, "big")
            left, total = (left, total + size) if found.sid == 0 else (left + size, total)
    assert left <= stream


def test_small_calls_are_told_of_room_as_well() -> None:
    client = Client(echo).greet()
    message = bytes(50_000)
    seen = 0
    client.send(frames.window_update(0, 1 << 30))
    for sid in range(1, 1201, 2):
        client.call(sid, message)
        seen += sum(
            int.from_bytes(found.payload, "big") for found in client.frames() if found.kind == 8 and not found.sid
        )
    assert seen >= 600 * 50_005 - (16 << 20)


def test_more_data_than_a_stream_has_room_for_resets_it() -> None:
    client = Client(most=1 << 30).greet()
    client.send(client.headers(1, path=COLD))
    messages = [data(1, framed(bytes((1 << 20) - 5)))] * 4
    client.send(*messages)
    assert all(frame.sid == 0 for frame in client.frames())
    client.send(data(1, b"x"))
    assert client.reset() == (1, ErrorCode.FLOW_CONTROL_ERROR)
    assert client.passages.seen[-1] == "cancel"


def test_messages_that_are_not_complete_may_hold_so_much_together() -> None:
    client = Client(most=1000).greet()
    for sid in range(1, 11, 2):
        client.send(client.headers(sid), data(sid, framed(bytes(1000))[:900]))
    code, message = client.status()
    assert (code, message) == ("8", "the calls of this connection have sent 4475 bytes that wait, and 4000 is the most")
    client.send(data(1, bytes(105), end=True))
    assert client.jobs[0].message == bytes(1000)
    client.send(frames.rst_stream(3, ErrorCode.CANCEL))
    client.call(11)
    assert len(client.jobs) == 2
    assert client.connection._held == 2 * 895


# Clients that ask too much.


@pytest.mark.parametrize(
    ("idle", "most"),
    [
        (frame(frames.PING, 0, 0, bytes(8)), 10_000),
        (frames.settings({}), 500),
        (frame(frames.PRIORITY, 0, 9, bytes(5)), 10_000),
        (frame(0xBE, 0, 0), 10_000),
        (data(1, b""), 10_000),
    ],
    ids=["pings", "settings", "priorities", "unknown frames", "empty data"],
)
def test_a_flood_of_frames_that_ask_for_nothing_ends_the_connection(client: Client, idle: bytes, most: int) -> None:
    client.send(client.headers(1))
    client.send(idle * most)
    assert not client.transport.closed
    client.send(idle)
    assert client.ended() == ErrorCode.ENHANCE_YOUR_CALM


def test_pings_with_calls_or_time_between_them_are_no_flood(client: Client) -> None:
    ping = frame(frames.PING, 0, 0, bytes(8))
    client.send(ping * 6_000)
    client.loop.now += 11
    client.send(ping * 6_000)
    client.call(1)
    client.send(ping * 6_000)
    client.call(3)
    client.send(ping * 6_000)
    assert not client.transport.closed


def test_a_client_that_resets_most_of_what_it_begins_is_cut_off(client: Client) -> None:
    sid = 1
    while not client.transport.closed:
        client.call(sid)
        client.send(frames.rst_stream(sid, ErrorCode.CANCEL))
        sid += 2
        assert sid < 10_000
    assert client.ended() == ErrorCode.ENHANCE_YOUR_CALM


def test_a_client_that_resets_some_of_very_many_is_not() -> None:
    client = Client().greet()
    for sid in range(1, 20_001, 2):
        client.call(sid)
        if sid % 3:
            client.jobs.pop().caller.answer(b"", "")
        else:
            client.send(frames.rst_stream(sid, ErrorCode.CANCEL))
    assert not client.transport.closed


@pytest.mark.parametrize("path", [PATH, COLD])
@pytest.mark.parametrize("whole", [True, False])
def test_a_client_that_resets_calls_whose_time_is_up_is_not(client: Client, path: bytes, whole: bool) -> None:
    for sid in range(1, 8_001, 2):
        client.send(client.headers(sid, path=path, grpc_timeout="20m"))
        if whole:
            client.send(data(sid, framed(b"x"), end=True))
        # It may be a little early, by our clock.
        client.loop.now += 0.019
        client.send(frames.rst_stream(sid, ErrorCode.CANCEL))
        client.loop.now -= 0.019
    assert not client.transport.closed


def test_a_client_that_resets_calls_long_before_their_time_is_cut_off(client: Client) -> None:
    for sid in range(1, 8_001, 2):
        if client.transport.closed:
            break
        client.call(sid, grpc_timeout="20m")
        client.send(frames.rst_stream(sid, ErrorCode.CANCEL))
    assert client.ended() == ErrorCode.ENHANCE_YOUR_CALM


def test_a_client_that_resets_all_calls_but_slowly_is_not(client: Client) -> None:
    for sid in range(1, 8_001, 2):
        client.call(sid)
        client.loop.now += 1 / 30
        client.send(frames.rst_stream(sid, ErrorCode.CANCEL))
    assert not client.transport.closed


def test_a_client_that_goes_on_sending_on_closed_streams_is_cut_off(client: Client) -> None:
    client.call(1)
    client.jobs[0].caller.answer(b"", "")
    client.send(data(1, b"x") * 1_002)
    assert client.ended() == ErrorCode.ENHANCE_YOUR_CALM


def test_a_client_that_makes_the_server_reset_streams_is_cut_off(client: Client) -> None:
    sid = 1
    while not client.transport.closed:
        client.send(client.headers(sid), frames.frame(frames.WINDOW_UPDATE, 0, sid, bytes(4)))
        sid += 2
        assert sid < 10_000
    assert client.ended() == ErrorCode.ENHANCE_YOUR_CALM


def test_a_client_that_does_not_read_is_not_read_from(client: Client) -> None:
    client.connection.pause_writing()
    assert not client.transport.reading
    client.connection.resume_writing()
    assert client.transport.reading


def test_frames_are_the_same_wherever_their_bytes_are_cut() -> None:
    whole = Client(echo)
    sent = b"".join(
        (
            frames.PREFACE,
            frames.settings({Setting.INITIAL_WINDOW_SIZE: 100}),
            whole.headers(1),
            frame(frames.DATA, PADDED, 1, b"\2" + framed(b"hello")[:7] + bytes(2)),
            frame(frames.PING, 0, 0, bytes(8)),
            frame(frames.DATA, PADDED | END_STREAM, 1, b"\2" + framed(b"hello")[7:] + bytes(2)),
            whole.headers(3),
            data(3, framed(b"there"), end=True),
            whole.headers(5, grpc_timeout="1S"),
            data(5, framed(bytes(300)), end=True),
            frames.window_update(5, 1000),
        )
    )
    whole.send(sent)
    expected = whole.transport.written
    assert expected
    for size in (1, 2, 7, 9, 10, 23, 100):
        cut = Client(echo)
        for at in range(0, len(sent), size):
            cut.send(sent[at : at + size])
        assert cut.transport.written == expected, size


def test_all_that_one_read_asks_for_is_answered_in_one_write() -> None:
    client = Client(echo).greet()
    client.call(1)
    client.frames()
    before = client.transport.writes
    block = client.block()
    client.send(
        *(
            frame(frames.HEADERS, END_HEADERS, sid, block) + data(sid, framed(b"hello"), end=True)
            for sid in range(3, 23, 2)
        )
    )
    assert client.transport.writes == before + 1
    assert len(client.frames()) == 30


def test_a_fault_of_the_protocol_is_logged_and_no_error(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "app.server.h2"):
        client.send(data(0, b""))
    assert [record.levelname for record in caplog.records] == ["INFO"]


# Drain.


def test_a_connection_that_retires_says_so_twice_and_answers_what_is_under_way(client: Client) -> None:
    client.call(1)
    client.connection.retire()
    soft, ping = client.frames()
    assert (soft.kind, soft.payload[:4]) == (frames.GOAWAY, b"\x7f\xff\xff\xff")
    # What was on its way when the client heard of it is still served.
    client.call(3)
    client.send(frame(frames.PING, frames.ACK, 0, ping.payload))
    (hard,) = client.frames()
    assert (hard.kind, hard.payload) == (frames.GOAWAY, b"\0\0\0\3" + bytes(4))
    client.call(5)
    assert len(client.jobs) == 2
    assert not client.frames()
    client.jobs[1].caller.answer(b"3", "")
    assert client.answer() == (b"3", "0")
    assert not client.transport.closed
    client.jobs[0].caller.answer(b"1", "")
    assert client.answer() == (b"1", "0")
    assert client.transport.closed


def test_a_client_that_does_not_answer_the_ping_is_not_waited_for(client: Client) -> None:
    client.connection.retire()
    client.loop.run_later()
    assert client.frames()[-1].kind == frames.GOAWAY
    assert client.transport.closed


def test_a_connection_that_comes_while_the_server_drains_is_told_so() -> None:
    client = Client()
    client.lane.draining = True
    client.greet()
    client.send(frame(frames.PING, frames.ACK, 0, b"drained?"))
    assert client.transport.closed


def test_a_connection_that_is_closed_gives_up_what_is_under_way_and_tells_the_callers(client: Client) -> None:
    client.call(1)
    client.send(client.headers(3, path=COLD))
    client.send(client.headers(5))
    before = client.transport.writes
    client.connection.close()
    assert client.transport.writes == before + 1
    assert client.jobs[0].abandoned
    assert client.passages.seen == ["cancel"]
    *said, goaway = client.frames()
    told = [each for each in said if each.kind == frames.HEADERS]
    assert [(each.sid, bool(each.flags & END_STREAM)) for each in told] == [(1, True), (3, True), (5, True)]
    for each in told:
        fields = client.fields(each)
        assert (fields["grpc-status"], fields["grpc-message"]) == ("14", "the server is shutting down")
        assert fields["grpc-retry-pushback-ms"] == "1000"
    assert (goaway.kind, goaway.payload) == (frames.GOAWAY, b"\0\0\0\5" + bytes(4))
    assert client.transport.closed
    client.connection.connection_lost(None)


def test_a_connection_that_retires_and_is_closed_tells_the_callers_too(client: Client) -> None:
    client.call(1)
    client.connection.retire()
    client.loop.run_later()
    client.frames()
    client.connection.close()
    assert client.status() == ("14", "the server is shutting down")
    assert client.transport.closed


def test_an_answer_that_is_half_sent_when_the_connection_is_closed_has_no_end() -> None:
    client = Client(echo).greet(INITIAL_WINDOW_SIZE=10)
    client.call(1)
    client.call(3, bytes(100))
    client.frames()
    client.connection.close()
    assert [frame.kind for frame in client.frames()] == [frames.GOAWAY]
    client.connection.connection_lost(None)
    assert not client.connection.streams
