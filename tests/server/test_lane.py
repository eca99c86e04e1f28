"""Heads that were seen before: when they are kept, when they are used, and that a request under one is what it was."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, cast

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bound import Route, Wants
from app.dataplane import DataPlane
from app.errors import NotFound, QueueFull, Unavailable
from app.protocols.call import JSON
from app.protocols.npy import MEDIA_TYPE as NPY
from app.repository.manager import Target
from app.server import lane as lane_module
from app.server.errors import STATUS
from app.server.express import Express
from app.server.lane import Head, Lane, Turn
from tests.examples import many
from tests.server.test_express import CHUNKED, CLOSE, UPGRADE, Connection, Loop, Plane, pass_time, request

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@contextmanager
def running_loop() -> Iterator[Loop]:
    loop = Loop()
    loop.real = asyncio.new_event_loop()
    asyncio.set_event_loop(loop.real)
    try:
        yield loop
    finally:
        for task in loop.tasks:
            task.close()
        asyncio.set_event_loop(None)
        loop.real.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    with running_loop() as loop:
        yield loop


@pytest.fixture
def connection(loop: Loop) -> Connection:
    return Connection(loop)


class Watched:
    """Stands before a parser and keeps what it is fed."""

    def __init__(self, protocol: Express) -> None:
        self.fed: list[bytes] = []
        self._parser = protocol.parser
        protocol.parser = cast("Any", self)

    def feed_data(self, data: bytes) -> None:
        self.fed.append(bytes(data))
        self._parser.feed_data(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


def head_of(whole: bytes) -> bytes:
    return whole[: whole.index(b"\r\n\r\n") + 4]


# What is used


def test_a_request_under_a_head_seen_before_goes_round_the_parser(connection: Connection) -> None:
    connection.feed(request(b"one", b"/predict/a"))
    watched = Watched(connection.protocol)

    connection.feed(request(b"two", b"/predict/a"))
    connection.feed(request(b"six", b"/predict/a"))

    assert watched.fed == []
    assert [body for _, body in connection.answers()] == [b"one", b"two", b"six"]
    assert connection.plane.asked == [("a", body, "", "") for body in (b"one", b"two", b"six")]


def test_a_head_that_one_connection_has_sent_is_known_on_all(loop: Loop, connection: Connection) -> None:
    connection.feed(request(b"one", headers=b"Content-Type: text/json\r\nACCEPT: */*\r\n"))
    other = Connection(loop, lane=connection.lane)
    watched = Watched(other.protocol)

    other.feed(request(b"two", headers=b"Content-Type: text/json\r\nACCEPT: */*\r\n"))

    assert watched.fed == []
    assert other.answers() == [(200, b"two")]
    assert connection.answers() == [(200, b"one")]
    assert connection.plane.asked[1] == (None, b"two", "text/json", "*/*")


@pytest.mark.parametrize(
    ("known", "sent"),
    [
        (request(b"one"), request(b"one", b"/predict/a")),
        (request(b"one"), request(b"four")),
        (request(b"one"), request(b"one", headers=b"Accept: */*\r\n")),
        (request(b"one"), request(b"one").replace(b"Host: x", b"Host: y")),
        (request(b"one"), request(b"one").replace(b"Host", b"HOST")),
        (request(b"one"), b"\r\n" + request(b"one")),
    ],
    ids=["path", "length", "one more", "value", "case", "line before"],
)
def test_a_head_is_known_by_its_every_byte(connection: Connection, known: bytes, sent: bytes) -> None:
    connection.feed(known)
    watched = Watched(connection.protocol)

    connection.feed(sent)

    assert watched.fed == [sent]
    assert len(connection.answers()) == 2


END = len(head_of(request(b"a body")))


def test_a_body_that_comes_by_itself_goes_round_the_parser_too(connection: Connection) -> None:
    connection.feed(request(b"one"))
    watched = Watched(connection.protocol)
    whole = request(b"two")

    for _ in range(2):
        connection.feed(head_of(whole))
        assert not connection.protocol.is_idle()
        connection.feed(b"two")

    assert watched.fed == []
    assert connection.protocol.is_idle()
    assert [body for _, body in connection.answers()] == [b"one", b"two", b"two"]


@pytest.mark.parametrize(
    ("pieces", "bodies"),
    [
        ([b"t", b"wo"], [b"two"]),
        ([b"two" + request(b"six")], [b"two", b"six"]),
        ([b"t", b"wo" + request(b"six")], [b"two", b"six"]),
    ],
    ids=["in pieces", "with more behind it", "both"],
)
def test_a_body_by_itself_that_is_not_just_that_is_parsed(
    connection: Connection, pieces: list[bytes], bodies: list[bytes]
) -> None:
    connection.feed(request(b"one"))
    head = head_of(request(b"two"))
    watched = Watched(connection.protocol)

    connection.feed(head)
    for piece in pieces:
        connection.feed(piece)

    assert b"".join(watched.fed) == head + b"".join(pieces)
    assert [body for _, body in connection.answers()] == [b"one", *bodies]


def test_a_head_that_is_forgotten_before_its_body_comes_is_parsed(connection: Connection) -> None:
    connection.feed(request(b"one"))
    watched = Watched(connection.protocol)

    connection.feed(head_of(request(b"two")))
    connection.lane.heads.clear()
    connection.feed(b"two")

    assert b"".join(watched.fed) == request(b"two")
    assert [body for _, body in connection.answers()] == [b"one", b"two"]


@pytest.mark.parametrize("place", [place for place in range(1, len(request(b"a body"))) if place != END])
def test_a_request_that_comes_in_two_pieces_is_parsed(connection: Connection, place: int) -> None:
    whole = request(b"a body")
    connection.feed(whole)
    watched = Watched(connection.protocol)

    connection.feed(whole[:place])
    assert len(connection.plane.asked) == 1, "it is not run before it is whole"
    connection.feed(whole[place:])

    assert b"".join(watched.fed) == whole
    assert connection.answers() == [(200, b"a body")] * 2


@pytest.mark.parametrize(
    ("behind", "answers"),
    [
        (request(b"next"), [(200, b"one"), (200, b"next")]),
        (request(b"one"), [(200, b"one"), (200, b"one")]),
        (b"\r\n", [(200, b"one")]),
        (request(b"next")[:10], [(200, b"one")]),
        (b"P", [(200, b"one")]),
        (LIVEZ, [(200, b"one")]),
    ],
    ids=["another", "the same", "a line", "a part", "a byte", "for the application"],
)
def test_a_request_with_more_behind_it_is_parsed(
    connection: Connection, behind: bytes, answers: list[tuple[int, bytes]]
) -> None:
    connection.feed(request(b"one"))
    watched = Watched(connection.protocol)

    connection.feed(request(b"one") + behind)

    assert watched.fed == [request(b"one") + behind]
    assert connection.answers() == [(200, b"one"), *answers]
    assert len(connection.loop.tasks) == (behind == LIVEZ)


def test_a_piece_of_a_body_that_is_a_request_whose_head_is_known_is_still_a_piece_of_a_body(
    connection: Connection,
) -> None:
    inner = request(b"inner")
    connection.feed(inner)
    whole = request(b"before" + inner + b"behind", b"/predict/b")
    at = whole.index(inner)

    for piece in (whole[:at], inner, whole[at + len(inner) :]):
        connection.feed(piece)

    assert connection.answers() == [(200, b"inner"), (200, b"before" + inner + b"behind")]
    assert [model for model, *_ in connection.plane.asked] == [None, "b"]


def test_a_chunk_that_is_a_request_whose_head_is_known_is_still_a_chunk(connection: Connection) -> None:
    inner = request(b"inner")
    connection.feed(inner)

    for piece in (b"POST /predict/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"%x\r\n" % len(inner), inner):
        connection.feed(piece)
    assert len(connection.answers()) == 1
    connection.feed(b"\r\n0\r\n\r\n")

    assert connection.answers() == [(200, b"inner"), (200, inner)]


def test_a_head_s_own_line_that_is_a_request_whose_head_is_known_is_still_of_the_head(connection: Connection) -> None:
    connection.feed(request(b""))

    connection.feed(b"POST /predict/a HTTP/1.1\r\nX: ")
    connection.feed(request(b""))

    assert [status for status, _ in connection.answers()] == [200, 200]
    assert [model for model, *_ in connection.plane.asked] == [None, "a"], "it ended with the empty line"


def test_behind_a_request_for_the_application_a_known_head_waits_for_its_turn(connection: Connection) -> None:
    connection.feed(request(b"one"))
    connection.feed(LIVEZ)

    connection.feed(request(b"two"))

    assert len(connection.plane.asked) == 1
    assert len(connection.loop.tasks) == 1
    assert len(connection.protocol.pipeline) == 1


def test_behind_a_request_for_the_application_that_waits_a_known_head_waits_too(connection: Connection) -> None:
    connection.feed(request(b"one"))
    connection.plane.at_once = False
    connection.feed(request(b"two"))
    connection.feed(LIVEZ)

    connection.feed(request(b"two"))

    assert len(connection.plane.asked) == 2
    assert connection.loop.tasks == []
    assert len(connection.protocol.pipeline) == 2


async def answering(scope: Any, receive: Any, send: Any) -> None:
    body = scope["path"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def run_tasks(loop: Loop) -> None:
    """Let the application answer what it has been asked, and what that lets it be asked."""
    while loop.tasks:
        with pytest.raises(StopIteration):
            loop.tasks.pop(0).send(None)


def test_once_the_application_has_answered_a_known_head_is_used_again(loop: Loop) -> None:
    connection = Connection(loop, application=answering)
    connection.feed(request(b"one"))
    connection.feed(LIVEZ)
    run_tasks(loop)
    watched = Watched(connection.protocol)

    connection.feed(request(b"two"))

    assert watched.fed == []
    assert connection.answers() == [(200, b"one"), (200, b"/livez"), (200, b"two")]


def test_a_known_head_behind_the_answer_that_closes_the_connection_is_not_looked_at(connection: Connection) -> None:
    connection.feed(request(b"x"))
    connection.feed(request(b"y", headers=CLOSE))
    assert connection.transport.is_closing()

    connection.feed(request(b"x"))

    assert [body for _, body, *_ in connection.plane.asked] == [b"x", b"y"]
    assert len(connection.answers()) == 2


def test_a_known_head_behind_what_is_refused_is_not_looked_at_while_the_refusal_waits(connection: Connection) -> None:
    connection.feed(request(b"x"))
    connection.plane.at_once = False
    connection.feed(request(b"x"))
    connection.feed(b"rubbish\r\n\r\n")
    assert not connection.transport.is_closing()

    connection.feed(request(b"x"))
    connection.plane.waiting[0]()

    assert [status for status, _ in connection.answers()] == [200, 200, 400]
    assert len(connection.plane.asked) == 2


def test_a_known_head_in_place_of_a_refused_body_is_dropped_as_that_body(connection: Connection) -> None:
    connection.feed(request(b"x"))
    connection.feed(request(b"x" * ((1 << 16) + 1), headers=CLOSE)[:100])

    connection.feed(request(b"x"))

    assert [status for status, _ in connection.answers()] == [200, 413]
    assert len(connection.plane.asked) == 1
    assert not connection.transport.is_closing(), "the body is still to come"


# What it means


@pytest.mark.parametrize("headers", [b"", b"Connection: keep-alive\r\n"])
def test_a_connection_stays_open_behind_a_known_head(connection: Connection, headers: bytes) -> None:
    for _ in range(3):
        connection.feed(request(b"x", headers=headers))
    assert connection.answers() == [(200, b"x")] * 3
    assert not connection.transport.is_closing()
    assert b"connection:" not in connection.transport.written


@pytest.mark.parametrize("close", [CLOSE, b"connection: x, CLOSE\r\n"])
def test_a_known_head_that_asks_for_the_close_gets_it_on_every_connection(loop: Loop, close: bytes) -> None:
    first = Connection(loop)
    first.feed(request(b"x", headers=close))
    later = Connection(loop, lane=first.lane)
    watched = Watched(later.protocol)

    later.feed(request(b"y", headers=close))

    assert watched.fed == []
    for connection, body in ((first, b"x"), (later, b"y")):
        assert connection.answers() == [(200, body)]
        assert b"connection: close\r\n" in connection.transport.written
        assert connection.transport.is_closing()


@pytest.mark.parametrize("behind", [request(b"x"), request(b"x", headers=CLOSE), LIVEZ, b"rubbish\r\n\r\n"])
@pytest.mark.parametrize("known", [False, True])
def test_nothing_behind_a_request_that_asks_for_the_close_is_run_while_its_answer_is_waited_for(
    loop: Loop, known: bool, behind: bytes
) -> None:
    connection = Connection(loop)
    if known:
        for head in (b"", CLOSE):
            Connection(loop, lane=connection.lane).feed(request(b"x", headers=head))
    connection.plane.asked.clear()
    connection.plane.at_once = False
    connection.feed(request(b"y", headers=CLOSE))

    connection.feed(behind)

    assert [body for _, body, *_ in connection.plane.asked] == [b"y"]
    assert loop.tasks == []
    connection.plane.waiting[0]()
    assert connection.answers() == [(200, b"y")]
    assert connection.transport.is_closing()


def test_without_keep_alive_a_known_head_closes_too(loop: Loop) -> None:
    first = Connection(loop, keep_alive=0)
    first.feed(request(b"x"))
    later = Connection(loop, keep_alive=0, lane=first.lane)
    watched = Watched(later.protocol)
    later.feed(request(b"x"))

    assert watched.fed == []
    assert later.transport.written == first.transport.written
    assert later.transport.is_closing()


def test_a_short_keep_alive_begins_with_the_answer_to_a_first_request_under_a_known_head(loop: Loop) -> None:
    first = Connection(loop, keep_alive=0.4)
    first.feed(request(b"x"))
    loop.later.clear()
    later = Connection(loop, keep_alive=0.4, lane=first.lane)
    watched = Watched(later.protocol)
    pass_time(loop, 1)
    later.feed(request(b"y"))

    assert watched.fed == []
    assert later.answers() == [(200, b"y")]
    pass_time(loop, 1.3)
    assert not later.transport.is_closing()
    pass_time(loop, 2)
    assert later.transport.is_closing()


def test_a_known_head_with_lines_before_it_is_known_with_them(connection: Connection) -> None:
    for before in (b"\r\n", b"\r\n\r\n", b"\r\n\r\n\r\n"):
        for _ in range(2):
            connection.feed(before + request(b"x"))
    connection.feed(request(b"x"))

    assert connection.answers() == [(200, b"x")] * 7
    for text in connection.lane.heads:
        assert text.lstrip(b"\r\n") == head_of(request(b"x"))


@pytest.mark.parametrize("body", [b"", b"x", b"xy", b"xyz1"])
@pytest.mark.parametrize("lines", [b"\r\n\r\n", b"\r\n", b"\r\n\r\n\r\n", b"\n\n", b"\r\n\r\n\r\n\r\n"])
def test_lines_alone_teach_nothing_and_mean_nothing(connection: Connection, lines: bytes, body: bytes) -> None:
    connection.feed(lines)
    assert connection.lane.heads == {}
    connection.feed(request(body))
    for _ in range(2):
        connection.feed(lines)
        connection.feed(request(body))

    assert connection.answers() == [(200, body)] * 3
    assert list(connection.lane.heads) == [head_of(request(body))]


def test_a_known_head_that_asks_for_an_upgrade_is_answered_as_any_other(connection: Connection) -> None:
    for body in (b"one", b"two"):
        connection.feed(request(body, b"/predict/a", UPGRADE + b"Content-Type: a/b\r\n"))

    assert connection.answers() == [(200, b"one"), (200, b"two")]
    assert connection.plane.asked == [("a", b"one", "a/b", ""), ("a", b"two", "a/b", "")]


def test_answers_keep_their_order_whichever_way_the_requests_came(connection: Connection) -> None:
    connection.feed(request(b"0"))
    connection.plane.at_once = False
    connection.feed(request(b"1"))
    connection.feed(request(b"2")[:-1])
    connection.feed(b"2")
    connection.feed(request(b"3"))
    connection.feed(request(b"4") + request(b"5"))
    for index in (4, 2, 1, 3):
        connection.plane.waiting[index]()
    assert [body for _, body in connection.answers()] == [b"0"]
    connection.plane.waiting[0]()

    assert [body for _, body in connection.answers()] == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_a_client_with_many_unanswered_requests_under_a_known_head_is_not_read_from(connection: Connection) -> None:
    connection.feed(request(b"x"))
    connection.plane.at_once = False
    for sent in range(64):
        assert connection.transport.reading, f"after {sent}"
        connection.feed(request(b"x"))
    assert not connection.transport.reading
    connection.plane.waiting[0]()
    assert connection.transport.reading


def test_a_client_that_goes_away_abandons_its_calls_under_a_known_head(connection: Connection) -> None:
    connection.feed(request(b"x"))
    connection.plane.at_once = False
    connection.feed(request(b"x"))
    connection.protocol.connection_lost(None)

    assert [job.abandoned for job in connection.plane.jobs] == [True]


def test_the_access_log_has_a_request_under_a_known_head_as_it_has_any_other(connection: Connection) -> None:
    class Log:
        lines: list[str] = []  # noqa: RUF012

        def info(self, message: str, *arguments: object) -> None:
            self.lines.append(message % arguments)

    log = Log()
    connection.protocol.access_log = True
    connection.protocol.access_logger = cast("Any", log)
    for _ in range(2):
        connection.feed(request(b"x", b"/predict/b"))

    assert log.lines == ['127.0.0.1:50000 - "POST /predict/b HTTP/1.1" 200'] * 2
    assert connection.state.total_requests == 2


def test_a_fault_of_the_dataplane_under_a_known_head_is_a_500_and_the_next_request_is_answered(
    connection: Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("secret detail")

    connection.feed(request(b"x"))
    with monkeypatch.context() as broken:
        broken.setattr(connection.plane, "run", fail)
        connection.feed(request(b"x"))
    connection.feed(request(b"x"))

    assert [status for status, _ in connection.answers()] == [200, 500, 200]
    assert b"secret" not in connection.transport.written
    assert "secret detail" in caplog.text


# What is kept


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (CHUNKED, 200),
        (b"POST /predict/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (request(b"x", headers=b"Expect: 100-continue\r\n"), None),
        (request(b"x", version=b"1.0"), None),
        (request(b"x", version=b"1.0", headers=b"Connection: keep-alive\r\n"), None),
        (LIVEZ, None),
        (request(b"x", b"/predict?a=1"), None),
        (request(b"x", b"/predict/unknown"), None),
        (request(b"x").replace(b"POST", b"PUT"), None),
        (request(b"x", headers=b"Content-Encoding: zstd\r\n"), 415),
        (request(b"x", headers=b"Content-Type: application/json; charset=utf-16\r\n"), 415),
        (request(b"x" * ((1 << 16) + 1)), 413),
        (b"rubbish\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    ],
    ids=lambda value: value[:60].decode() if isinstance(value, bytes) else "",
)
def test_what_is_not_plainly_an_express_request_with_a_length_is_not_kept(
    connection: Connection, sent: bytes, status: int | None
) -> None:
    connection.feed(sent)

    assert connection.lane.heads == {}
    assert [found for found, _ in connection.answers()] == ([] if status is None else [status])


@pytest.mark.parametrize("error", [NotFound("gone"), Unavailable("loading", retry_after=1)])
def test_a_head_that_nothing_serves_is_not_kept(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def route(*_: Any) -> Route:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(connection.plane, "route", route)
        connection.lane.keep(
            head_of(request(b"x")), connection.lane.head(b"/predict", [(b"content-length", b"1")], True)
        )
    assert connection.lane.heads == {}

    connection.feed(request(b"x"))
    assert list(connection.lane.heads) == [head_of(request(b"x"))]


PIECES = [
    request(b"one") + request(b"two", b"/predict/a"),
    request(b"") + request(b"x"),
    request(b"") * 3,
    request(b"x")[:-1] + b"\r\n\r\nx",
    request(b"") + LIVEZ,
    LIVEZ + request(b"x"),
    b"\r\n\r\n" + request(b"x"),
    b"\r\n\r\n" + request(b"") + request(b"x"),
    request(b"x") + b"\r\n",
    request(b"x") + b"\r\n\r\n",
    request(b"x") + b"rubbish",
    request(b"x") + request(b"y")[:-1],
    CHUNKED + request(b"x"),
    request(b"x", headers=CLOSE) + request(b"x"),
    request(b"x" * ((1 << 16) + 1)) + request(b"x"),
    request(b"x", headers=b"Content-Encoding: zstd\r\n") + request(b"x"),
    request(request(b"inner")),
    request(b"x", headers=UPGRADE) + request(b"x"),
    b"POST /predict HTTP/1.1\nContent-Length: 0\n\n" + request(b"x"),
    b"POST /predict HTTP/1.1\r\nContent-Length: 0\r\n\n" + request(b"x"),
    b"POST /predict HTTP/1.1\r\nContent-Length: 0\n\r\n" + request(b"x"),
    b"POST /predict\r\n" + request(b"x"),
]


class Plain:
    """Reads one request with a parser of its own."""

    def __init__(self, data: bytes) -> None:
        self.ends = 0
        self.url = self.body = b""
        self.keep_alive = False
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self.body = data[stop.args[0] :]

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_headers_complete(self) -> None:
        self.keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ends += 1


def check_heads(lane: Lane) -> None:
    """Each head that is kept is one, with nothing behind it, and means what any parser takes it to mean."""
    for text, head in lane.heads.items():
        body = b"x" * head.length
        plain = Plain(text + body)
        assert plain.ends == 1, text
        assert (plain.body, plain.url, plain.keep_alive) == (body, head.url, head.keep_alive)
        assert text.count(b"\r\n\r\n", len(text) - len(text.lstrip(b"\r\n"))) == 1


@pytest.mark.parametrize("data", PIECES)
def test_several_things_in_one_piece_teach_nothing_wrong_and_mean_the_same_again(loop: Loop, data: bytes) -> None:
    first = Connection(loop)
    first.feed(data)
    check_heads(first.lane)
    learnt = dict(first.lane.heads)
    again = Connection(loop, lane=first.lane)
    asked = list(first.plane.asked)
    again.feed(data)

    assert again.transport.written == first.transport.written
    assert first.plane.asked == asked * 2
    assert again.transport.closed == first.transport.closed
    assert first.lane.heads == learnt
    if data != request(request(b"inner")):
        assert learnt == {}


def test_what_changes_what_is_served_forgets_all_heads(connection: Connection) -> None:
    connection.feed(request(b"x", b"/predict/a"))
    watched = Watched(connection.protocol)
    other = Plane("b")

    connection.lane.open(cast("DataPlane", other))
    assert connection.lane.heads == {}
    connection.feed(request(b"x", b"/predict/a"))

    assert watched.fed == [request(b"x", b"/predict/a")]
    assert (len(connection.plane.asked), other.asked) == (1, [])
    assert len(connection.loop.tasks) == 1, "there is no such model now, which is for the application to say"


def test_a_request_of_which_a_part_had_come_when_the_heads_were_forgotten_is_answered(connection: Connection) -> None:
    whole = request(b"whole", b"/predict/a")
    connection.feed(whole[:-2])
    other = Plane("a", "b")

    connection.lane.open(cast("DataPlane", other))
    connection.feed(whole[-2:])

    assert other.asked == [("a", b"whole", "", "")]
    assert connection.answers() == [(200, b"whole")]


def test_of_many_heads_those_seen_first_are_forgotten_first(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "_HEADS_KEPT", 3)
    for number in (0, 1, 2, 1, 3, 4):
        connection.feed(request(b"x", headers=b"X: %d\r\n" % number))
        assert len(connection.lane.heads) <= 3

    assert list(connection.lane.heads) == [head_of(request(b"x", headers=b"X: %d\r\n" % n)) for n in (2, 3, 4)]
    watched = Watched(connection.protocol)
    for number in (2, 0):
        connection.feed(request(b"x", headers=b"X: %d\r\n" % number))
    assert watched.fed == [request(b"x", headers=b"X: 0\r\n")]
    assert len(connection.answers()) == 8


@pytest.mark.parametrize(("size", "kept"), [(1024, True), (1025, False)])
def test_a_long_head_is_not_kept(connection: Connection, size: int, kept: bool) -> None:
    left = size - len(head_of(request(b"x", headers=b"X: \r\n")))
    whole = request(b"x", headers=b"X: %b\r\n" % (b"y" * left))
    assert len(head_of(whole)) == size
    for _ in range(2):
        connection.feed(whole)

    assert list(connection.lane.heads) == ([head_of(whole)] if kept else [])
    assert connection.answers() == [(200, b"x")] * 2


def test_heads_may_not_take_more_memory_than_a_few_megabytes() -> None:
    assert lane_module._HEADS_KEPT * lane_module._LONGEST_KEPT <= 1 << 22


# What a head comes to


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], (Wants(), -1)),
        ([(b"content-length", b"12")], (Wants(), 12)),
        ([(b"content-length", b"0")], (Wants(), 0)),
        ([(b"content-type", b"a/b"), (b"x", b"y"), (b"accept", b"c/\xe9")], (Wants("a/b", "c/\u00e9"), -1)),
        (
            [(b"litepool-signature", "gr\u00fcn".encode()), (b"litepool-numbers", b"real")],
            (Wants(signature="gr\u00fcn", numbers="real"), -1),
        ),
    ],
)
@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_head_has_what_the_dataplane_asks_for(
    headers: list[tuple[bytes, bytes]], expected: tuple[Wants, int], keep_alive: bool
) -> None:
    lane = Lane(1)
    lane.open(cast("DataPlane", Plane("a")))

    for url, target in ((b"/predict", Target()), (b"/predict/a", Target("a"))):
        assert lane.head(url, headers, keep_alive) == Head(target, *expected, keep_alive, url, None, STATUS)


def test_the_beginning_of_a_good_answer_follows_the_server_s_headers() -> None:
    lane = Lane(1)
    for headers, closing in (
        ([(b"server", b"x"), (b"date", b"now")], False),
        ([(b"server", b"x"), (b"date", b"then"), (b"connection", b"close")], True),
    ):
        lane.take(headers)
        assert lane.closing is closing
        assert lane.headers is headers
        for media_type in (JSON, NPY):
            assert lane.begins[lane_module.KIND[media_type]] == (
                b"HTTP/1.1 200 OK\r\nserver: x\r\ndate: %b\r\ncontent-type: %b\r\ncontent-length: "
                % (headers[1][1], media_type.encode())
            )


@pytest.mark.parametrize(
    ("tell", "status", "kind", "body"),
    [
        (lambda turn: turn.answer(b"{}", JSON), 200, b"content-type: application/json\r\ncontent-length: ", b"{}"),
        (lambda turn: turn.answer(b"x", NPY), 200, b"content-type: application/x-npy\r\ncontent-length: ", b"x"),
        (
            lambda turn: turn.refuse(QueueFull("full", retry_after=3)),
            503,
            b"retry-after: 3\r\ncontent-type: application/json\r\ncontent-length: ",
            b'{"error":"full"}',
        ),
        (
            lambda turn: turn.refuse(NotFound("none")),
            404,
            b"content-type: application/json\r\ncontent-length: ",
            b'{"error":"none"}',
        ),
    ],
    ids=["json", "npy", "full", "error"],
)
def test_a_turn_keeps_what_it_is_told_and_then_says_so(
    tell: Callable[[Turn], None], status: int, kind: bytes, body: bytes
) -> None:
    advanced: list[tuple[int, bytes, bytes | memoryview | None]] = []
    turn = Turn(lambda: advanced.append((turn.status, turn.kind, turn.body)), last=False, line=None)
    assert turn.body is None

    tell(turn)

    assert advanced == [(status, kind, body)]
    assert turn.job is None


# All together


class Story:
    """What comes of pieces that arrive on a connection, one after the other."""

    def __init__(self, loop: Loop, lane: Lane, at_once: bool, app_at_once: bool) -> None:
        self.connection = Connection(loop, lane=lane, application=answering)
        self.plane = Plane()
        self.plane.at_once = at_once
        lane.dataplane = cast("DataPlane", self.plane)
        self._app_at_once = app_at_once

    def tell(self, pieces: list[bytes], order: Sequence[int] = ()) -> None:
        for piece in pieces:
            if self._is_over():
                return
            self.connection.feed(piece)
            if self._app_at_once and not self._is_over():
                run_tasks(self.connection.loop)
        for index in order:
            if index < len(self.plane.waiting) and not self._is_over():
                self.plane.waiting[index]()
        if not self._is_over():
            run_tasks(self.connection.loop)

    def _is_over(self) -> bool:
        """Whether the connection is closed; the protocol is told, as by a loop."""
        closed = self.connection.transport.closed
        if closed and self.connection.protocol.parser is not None:
            self.connection.protocol.connection_lost(None)
        return closed

    def result(self) -> object:
        transport, protocol = self.connection.transport, self.connection.protocol
        return (
            transport.written,
            transport.closed,
            transport.reading,
            self.plane.asked,
            self.plane.routed,
            protocol.is_idle(),
            len(protocol._turns),
            len(protocol.pipeline),
            self.connection.state.total_requests,
        )


BODIES = st.sampled_from([b"", b"x", b"\r\n\r\n", b"a\r\n\r\nb", request(b"inner"), request(b""), b"POST /predict"])
PATHS = st.sampled_from([b"/predict", b"/predict/a", b"/predict/b", b"/predict/unknown"])
HEADERS = st.sampled_from([b"", b"", b"", b"Accept: */*\r\n", UPGRADE, CLOSE, b"Content-Encoding: zstd\r\n"])
GOOD = st.builds(request, BODIES, PATHS, HEADERS)
ODD = st.sampled_from(
    [
        *(LIVEZ, CHUNKED, b"\r\n", b"\r\n\r\n", b"rubbish\r\n\r\n", b"POST /predict HTTP/1.1\r\n\r\n"),
        *(request(b"x", version=b"1.0"), request(b"x", headers=b"Expect: 100-continue\r\n")),
        *(b"POST /predict HTTP/1.1\nContent-Length: 0\n\n", b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ]
)


@settings(max_examples=many(300))
@given(st.data())
def test_however_requests_are_cut_into_pieces_known_heads_change_nothing(data: st.DataObject) -> None:
    requests = data.draw(st.lists(st.one_of(GOOD, GOOD, GOOD, ODD), min_size=1, max_size=6), "requests")
    stream = b"".join(requests)
    bounds = {0, len(stream)}
    for end in [sum(map(len, requests[:count])) for count in range(1, len(requests))]:
        if data.draw(st.sampled_from([True, True, False])):
            bounds.add(end)
    bounds |= data.draw(st.sets(st.integers(0, len(stream)), max_size=4), "cuts")
    places = sorted(bounds)
    pieces = [stream[start:end] for start, end in pairwise(places)]
    at_once, app_at_once = data.draw(st.booleans(), "at once"), data.draw(st.booleans(), "application at once")
    order = data.draw(st.permutations(range(len(requests) + 2)), "order")

    with running_loop() as loop, pytest.MonkeyPatch.context() as forgetful:

        def tell(lane: Lane) -> object:
            story = Story(loop, lane, at_once, app_at_once)
            story.tell(pieces, order=order)
            return story.result()

        def fresh() -> Lane:
            return Connection(loop).lane

        with forgetful.context() as patched:
            patched.setattr(Lane, "keep", lambda *_: None)
            expected = tell(fresh())
        lane = fresh()
        assert tell(lane) == expected, "while it learns"
        check_heads(lane)
        for whole in requests:
            Story(loop, lane, at_once=True, app_at_once=True).tell([whole])
        check_heads(lane)
        assert tell(lane) == expected, "with all heads known"
        check_heads(lane)
