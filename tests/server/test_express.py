"""The express lane's state machine, with a transport and a dataplane that are stand-ins: no sockets, no time."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from app.bound import Route, Wants
from app.dataplane import Caller, DataPlane
from app.errors import LitepoolError, Unavailable
from app.protocols.call import JSON, Wire
from app.repository.manager import Target
from app.runtime.job import Job
from app.server.express import Express
from app.server.lane import Lane
from app.server.serve import make_config
from app.settings import Settings


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 8000), "peername": ("127.0.0.1", 50000)}.get(name, default)

    def write(self, data: Any) -> None:
        assert not self.closed, "written to after the close"
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Timer:
    def cancel(self) -> None:
        pass


class Loop:
    """Time stands still; what is asked for later is kept."""

    def __init__(self) -> None:
        self.now = 0.0
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.tasks: list[Any] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.later.append((self.now + seconds, call))
        return Timer()

    def create_task(self, coroutine: Any) -> Any:
        self.tasks.append(coroutine)
        return asyncio.Future(loop=self.real)

    real: asyncio.AbstractEventLoop


Asked = tuple[str | None, bytes, str, str]


class Plane:
    """Answers each body with itself, at once or when told to; its routes are what they were asked for."""

    def __init__(self, *models: str) -> None:
        self.targets = [Target(name) for name in models]
        self.at_once = True
        self.asked: list[Asked] = []
        self.routed: list[tuple[Target, Wants]] = []
        """All that each was asked for, of which `asked` has the most usual."""
        self.jobs: list[Job] = []
        self.waiting: list[Callable[[], None]] = []

    def keeps_state(self, target: Target) -> bool:
        return target.model == "kept"

    def route(self, target: Target, wants: Wants) -> Route:
        return cast("Route", (target, wants))

    def predict(self, target: Target, wants: Wants, body: bytes, caller: Caller) -> Job | None:
        return self.run(self.route(target, wants), body, caller)

    def run(self, route: Route, body: bytes, caller: Caller) -> Job | None:
        target, wants = cast("tuple[Target, Wants]", route)
        self.asked.append((target.model, body, wants.content_type, wants.accept))
        self.routed.append((target, wants))
        if self.at_once:
            caller.answer(body, JSON)
            return None
        job = Job()
        self.jobs.append(job)
        self.waiting.append(lambda: caller.answer(body, JSON))
        return job


def stand_in(run: Callable[[Caller], None]) -> DataPlane:
    """A dataplane whose every request ends in `run`."""

    class Other(Plane):
        def run(self, route: Route, body: bytes, caller: Caller) -> Job | None:
            run(caller)
            return None

    return cast("DataPlane", Other())


async def _application(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing awaits it here")


def make_config_of(keep_alive: float, application: Any) -> uvicorn.Config:
    config = uvicorn.Config(application, ws="none", access_log=False, log_config=None)
    config.timeout_keep_alive = keep_alive  # type: ignore[assignment]
    config.load()
    return config


class Connection:
    """A connection to a server whose only models are `a` and `b`.

    Args:
        lane: shared with other connections.
        warm: before anything is fed, the heads in it are those of requests that others have sent.
    """

    def __init__(
        self,
        loop: Loop,
        keep_alive: float = 75,
        *,
        lane: Lane | None = None,
        warm: bool = False,
        application: Any = _application,
    ) -> None:
        self.config = make_config_of(keep_alive, application)
        self.loop = loop
        self.warm = warm
        self.state = ServerState()
        self.plane = Plane("a", "b")
        self.lane = lane or Lane(max_body=1 << 16)
        if lane is None:
            self.lane.open(cast("DataPlane", self.plane))
        self._stream = b""
        self.protocol = self._open(self.state, loop)
        self.transport = Transport()
        self.protocol.connection_made(self.transport)

    def _open(self, state: ServerState, loop: Loop) -> Express:
        protocol: type[Express] = type("Protocol", (Express,), {"lane": self.lane})
        return protocol(self.config, state, {}, cast("asyncio.AbstractEventLoop", loop))

    def feed(self, data: bytes) -> None:
        if self.warm:
            self._stream += data
            self._teach(self._stream)
        self.protocol.data_received(data)

    def _teach(self, stream: bytes) -> None:
        """Have others send, each in one piece, every request of which `stream` has the head, wherever in it."""
        plane, self.lane.dataplane = self.lane.dataplane, cast("DataPlane", Plane())
        for head in re.findall(rb"POST [^\n]*\n(?:(?!POST ).)*?\r\n\r\n", stream, re.DOTALL):
            length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
            other = Loop()
            other.real = self.loop.real
            protocol = self._open(ServerState(), other)
            protocol.connection_made(Transport())
            protocol.data_received(head + b"x" * (int(length[1]) if length else 0))
            for task in other.tasks:
                task.close()
        self.lane.dataplane = plane

    def answers(self) -> list[tuple[int, bytes]]:
        """Status and body of each answer written so far."""
        found = []
        rest = self.transport.written
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            found.append((int(lines[0].split()[1]), rest[:length]))
            rest = rest[length:]
        return found


@pytest.fixture
def keep_alive() -> float:
    return 75


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    loop.real = asyncio.new_event_loop()
    asyncio.set_event_loop(loop.real)
    yield loop
    for task in loop.tasks:
        task.close()
    asyncio.set_event_loop(None)
    loop.real.close()


@pytest.fixture(params=["cold", "warm"])
def connection(request: pytest.FixtureRequest, loop: Loop, keep_alive: float) -> Connection:
    """All that holds of a request whose head is new to the server holds where the head is known, and the other way."""
    return Connection(loop, keep_alive, warm=request.param == "warm")


def request(body: bytes, path: bytes = b"/predict", headers: bytes = b"", version: bytes = b"1.1") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST %b HTTP/%b\r\nHost: x\r\n%b%b\r\n%b" % (path, version, headers, length, body)


CHUNKED = b"POST /predict/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: 1\r\n\r\n"


def test_a_request_gets_its_answer_and_the_connection_stays(connection: Connection) -> None:
    connection.feed(request(b"one"))
    assert connection.answers() == [(200, b"one")]
    assert not connection.transport.is_closing()
    assert connection.plane.asked == [(None, b"one", "", "")]


def test_headers_that_choose_the_codec_reach_the_dataplane(connection: Connection) -> None:
    connection.feed(request(b"x", b"/predict/b", b"CONTENT-TYPE: application/x-npy\r\nAccept: */*\r\n"))
    assert connection.plane.asked == [("b", b"x", "application/x-npy", "*/*")]


def test_headers_that_choose_signature_and_numbers_reach_the_dataplane(connection: Connection) -> None:
    chosen = "LITEPOOL-SIGNATURE: gr\u00fcn\r\nLitepool-Numbers: real\r\n".encode()
    connection.feed(request(b"x", b"/predict/b", chosen))
    connection.feed(request(b"y", b"/predict/b"))
    connection.feed(request(b"z", b"/predict/b", chosen))

    named = (Target("b"), Wants(signature="gr\u00fcn", numbers="real"))
    assert connection.plane.routed == [named, (Target("b"), Wants()), named]


def test_the_paths_of_versions_and_labels_are_express_and_those_of_none_are_not(loop: Loop) -> None:
    connection = Connection(loop)
    connection.plane.targets = [Target("a"), Target("a", 1), Target("a", 12), Target("a", label="canary")]
    connection.lane.open(cast("DataPlane", connection.plane))
    for path in (b"/predict/a/versions/1", b"/predict/a/versions/12", b"/predict/a/labels/canary", b"/predict"):
        connection.feed(request(b"x", path))

    assert [target for target, _ in connection.plane.routed] == [*connection.plane.targets[1:], Target()]
    assert loop.tasks == []
    connection.feed(request(b"x", b"/predict/a/versions/2"))
    assert len(loop.tasks) == 1


def test_the_paths_of_every_wire_format_are_express_and_say_which_it_is(loop: Loop) -> None:
    connection = Connection(loop)
    connection.plane.targets = [Target("a"), Target("a", 1), Target("a", label="canary")]
    connection.lane.open(cast("DataPlane", connection.plane))
    paths = {
        b"/v1/models/a:predict": (Target("a"), Wire.SERVING_PREDICT),
        b"/v1/models/a/versions/1:classify": (Target("a", 1), Wire.SERVING_CLASSIFY),
        b"/v1/models/a/labels/canary:regress": (Target("a", label="canary"), Wire.SERVING_REGRESS),
        b"/v2/models/a/infer": (Target("a"), Wire.INFER),
        b"/v2/models/a/versions/1/infer": (Target("a", 1), Wire.INFER),
    }
    for path in paths:
        connection.feed(request(b"x", path, headers=b"Inference-Header-Content-Length: 7\r\n"))

    assert [(target, wants.wire) for target, wants in connection.plane.routed] == list(paths.values())
    assert {wants.head_length for _, wants in connection.plane.routed} == {"7"}
    assert loop.tasks == []


def test_a_body_that_may_name_a_sequence_is_the_application_s(loop: Loop) -> None:
    connection = Connection(loop)
    connection.plane.targets = [Target("kept")]
    connection.lane.open(cast("DataPlane", connection.plane))

    connection.feed(request(b"x", b"/v2/models/kept/infer"))
    assert len(loop.tasks) == 1
    assert connection.plane.asked == []


@pytest.mark.parametrize(
    "header",
    [
        *(
            b"Litepool-Sequence-Id: a",
            b"LITEPOOL-SEQUENCE-ID: a",
            b"Litepool-Sequence-Id: ",
            b"litepool-sequence-id: \xff",
        ),
        *(b"Litepool-Sequence-Start: true", b"Litepool-Sequence-End: x"),
    ],
)
def test_a_request_of_a_sequence_or_one_that_looks_like_it_is_the_application_s(
    connection: Connection, header: bytes
) -> None:
    connection.feed(request(b"x", headers=header + b"\r\n"))

    assert connection.plane.asked == []
    assert len(connection.loop.tasks) == 1
    assert connection.lane.heads == {}


@pytest.mark.parametrize("whole", [request(b"hello", b"/predict/a"), CHUNKED])
def test_a_request_split_at_any_byte_is_the_same_request(connection: Connection, whole: bytes) -> None:
    for place in range(1, len(whole)):
        connection.feed(whole[:place])
        assert len(connection.plane.asked) == place - 1, f"answered before it was whole, at {place}"
        connection.feed(whole[place:])
    bodies = {body for _, body in connection.answers()}
    assert len(connection.answers()) == len(whole) - 1
    assert len(bodies) == 1
    assert bodies <= {b"hello", b"abcde"}


def test_a_request_that_comes_byte_by_byte_is_the_same_request(connection: Connection) -> None:
    for index in range(len(CHUNKED)):
        connection.feed(CHUNKED[index : index + 1])
    assert connection.answers() == [(200, b"abcde")]


def test_answers_keep_the_order_of_the_requests_whichever_is_ready_first(connection: Connection) -> None:
    connection.plane.at_once = False
    connection.feed(b"".join(request(b"%d" % index) for index in range(4)))
    ready = connection.plane.waiting
    ready[2]()
    ready[1]()
    assert connection.answers() == []
    ready[0]()
    assert [body for _, body in connection.answers()] == [b"0", b"1", b"2"]
    ready[3]()
    assert [body for _, body in connection.answers()] == [b"0", b"1", b"2", b"3"]


def test_a_request_for_the_application_waits_for_the_express_requests_before_it(connection: Connection) -> None:
    connection.plane.at_once = False
    connection.feed(request(b"0") + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + request(b"2"))
    assert connection.loop.tasks == []
    connection.plane.waiting[0]()
    assert len(connection.loop.tasks) == 1
    assert len(connection.plane.asked) == 1, "a request behind the application's own is not express"
    assert [body for _, body in connection.answers()] == [b"0"]


def test_a_request_behind_one_for_the_application_is_not_express(connection: Connection) -> None:
    connection.feed(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + request(b"1"))
    assert len(connection.loop.tasks) == 1
    assert len(connection.protocol.pipeline) == 1, "it waits for its turn with the application's own"
    assert connection.answers() == []
    assert connection.plane.asked == []


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_request_that_asks_for_an_upgrade_is_answered_as_any_other(
    connection: Connection, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    inner = request(b"a body that is a request", b"/predict/b")
    whole = request(inner, b"/predict/a", UPGRADE + b"Content-Type: a/b\r\n") + request(b"next")
    whole += request(b"x", headers=UPGRADE) + request(b"y", headers=UPGRADE)
    for start in range(0, len(whole), step):
        connection.feed(whole[start : start + step])
    assert [body for _, body in connection.answers()] == [inner, b"next", b"x", b"y"]
    assert connection.plane.asked[0] == ("a", inner, "a/b", "")
    assert caplog.text == ""


def test_a_chunked_request_that_asks_for_an_upgrade_is_answered_as_any_other(connection: Connection) -> None:
    connection.feed(CHUNKED.replace(b"\r\n", b"\r\n" + UPGRADE, 1) + request(b"next"))
    assert connection.answers() == [(200, b"abcde"), (200, b"next")]


def test_a_request_for_the_application_that_asks_for_an_upgrade_keeps_its_body(connection: Connection) -> None:
    inner = request(b"smuggled")
    whole = request(inner, b"/models/a", UPGRADE)
    connection.feed(whole[:-10])
    connection.feed(whole[-10:])
    assert len(connection.loop.tasks) == 1
    assert connection.plane.asked == []
    assert connection.protocol.cycle.body == inner
    assert not connection.protocol.cycle.more_body
    assert connection.protocol.scope["path"] == "/models/a"


def test_connect_is_refused_and_nothing_behind_it_is_taken_for_a_request(connection: Connection) -> None:
    connection.feed(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n" + request(b"x"))
    connection.feed(request(b"y"))
    assert [status for status, _ in connection.answers()] == [501]
    assert connection.transport.is_closing()
    assert connection.plane.asked == []


@pytest.mark.parametrize(
    "other",
    [
        b"GET /predict HTTP/1.1\r\nHost: x\r\n\r\n",
        request(b"x", b"/predict?a=1"),
        request(b"x", b"/predict/"),
        request(b"x", b"/predict/unknown"),
        request(b"x", b"/Predict"),
        request(b"x", version=b"1.0"),
        request(b"x", headers=b"Expect: 100-continue\r\n"),
        request(b"x", headers=b"litepool-SEQUENCE-id: a\r\n"),
    ],
    ids=["method", "query", "slash", "unknown", "case", "http10", "expect", "sequence"],
)
def test_what_is_not_plainly_a_prediction_goes_to_the_application(connection: Connection, other: bytes) -> None:
    connection.feed(other)
    assert connection.plane.asked == []
    assert len(connection.loop.tasks) == 1


def test_connection_close_is_honoured_and_told(connection: Connection) -> None:
    connection.feed(request(b"x", headers=b"Connection: close\r\n"))
    assert connection.transport.is_closing()
    assert b"connection: close\r\n" in connection.transport.written


def test_the_last_answer_of_a_draining_server_closes_and_those_before_it_do_not(connection: Connection) -> None:
    connection.plane.at_once = False
    connection.feed(request(b"0") + request(b"1"))
    connection.state.default_headers = [(b"date", b"now"), (b"connection", b"close")]
    connection.plane.waiting[0]()
    assert b"connection: close" not in connection.transport.written
    assert not connection.transport.is_closing()
    connection.plane.waiting[1]()
    assert connection.transport.is_closing()
    assert connection.transport.written.count(b"connection: close") == 1


def test_a_draining_server_waits_for_a_request_of_which_a_part_has_come(connection: Connection) -> None:
    whole = request(b"later")
    connection.feed(request(b"first") + whole[:10])
    connection.state.default_headers = [(b"connection", b"close")]
    assert not connection.protocol.is_idle()
    connection.feed(whole[10:])
    assert [body for _, body in connection.answers()] == [b"first", b"later"]
    assert connection.transport.is_closing()


def test_a_client_that_goes_away_abandons_its_calls(connection: Connection) -> None:
    connection.plane.at_once = False
    connection.feed(request(b"0") + request(b"1"))
    connection.protocol.connection_lost(ConnectionResetError())
    assert [job.abandoned for job in connection.plane.jobs] == [True, True]
    connection.transport.closed = True
    for ready in connection.plane.waiting:
        ready()
    assert connection.transport.written == b""


def test_a_body_said_to_be_too_large_is_refused_before_it_comes_and_the_next_request_is_answered(
    connection: Connection,
) -> None:
    body = b"x" * ((1 << 16) + 1)
    whole = request(body)
    connection.feed(whole[:100])
    assert [status for status, _ in connection.answers()] == [413]
    connection.feed(whole[100:] + request(b"next"))
    assert [status for status, _ in connection.answers()] == [413, 200]
    assert [body for _, body, _, _ in connection.plane.asked] == [b"next"]


def test_a_chunked_body_that_grows_too_large_is_refused(connection: Connection) -> None:
    connection.feed(b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(3):
        connection.feed(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
    connection.feed(b"0\r\n\r\n" + request(b"next"))
    assert [status for status, _ in connection.answers()] == [413, 200]


CLOSE = b"Connection: close\r\n"


@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_a_connection_that_is_to_be_closed_is_not_closed_before_a_refused_body_is_dropped(
    connection: Connection, step: int
) -> None:
    whole = request(b"x" * ((1 << 16) + 1), headers=CLOSE)
    connection.feed(whole[:100])
    assert [status for status, _ in connection.answers()] == [413]
    assert b"connection: close\r\n" in connection.transport.written
    for start in range(100, len(whole), step):
        assert not connection.transport.is_closing()
        assert connection.transport.reading
        connection.feed(whole[start : start + step])
    assert connection.transport.is_closing()
    connection.feed(request(b"next"))
    assert connection.plane.asked == []


def test_nothing_behind_a_refused_body_is_run_when_the_connection_is_to_be_closed(connection: Connection) -> None:
    whole = request(b"x" * ((1 << 16) + 1), headers=CLOSE)
    connection.feed(whole[:100])
    connection.feed(whole[100:] + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + request(b"next"))
    assert connection.transport.is_closing()
    assert len(connection.answers()) == 1
    assert connection.loop.tasks == []
    assert connection.plane.asked == []


def test_a_refused_body_without_end_is_not_dropped_for_ever(connection: Connection) -> None:
    connection.feed(b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + CLOSE + b"\r\n")
    fed = 0
    while not connection.transport.is_closing():
        connection.feed(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
        fed += 0x8000
    assert (1 << 17) - 0x8000 <= fed <= (1 << 17) + 0x8000
    assert [status for status, _ in connection.answers()] == [413]


def test_a_refused_body_that_does_not_come_is_not_waited_for_longer_than_the_keep_alive_time(
    connection: Connection,
) -> None:
    loop = connection.loop
    connection.feed(request(b"x" * ((1 << 16) + 1), headers=CLOSE)[:100])
    loop.now = 74
    connection.feed(b"a drop")
    loop.now, look = loop.later.pop()
    assert loop.now == 75
    look()
    assert connection.transport.is_closing()


@pytest.mark.parametrize(
    "header",
    [b"Content-Encoding: zstd", b"content-encoding: identity, BR", b"Content-Type: application/json; charset=utf-16"],
)
def test_a_body_that_is_coded_is_refused_and_the_next_request_is_answered(
    connection: Connection, header: bytes
) -> None:
    connection.feed(request(b"coded", headers=header + b"\r\n") + request(b"next"))
    (status, body), after = connection.answers()
    assert status == 415
    assert b"expected" in body or b"not supported" in body
    assert after == (200, b"next")
    assert len(connection.plane.asked) == 1


@pytest.mark.parametrize(
    "header", [b"Content-Encoding: Identity", b'Content-Type: application/json; charset="UTF-8"', b"Content-Type: a;b"]
)
def test_a_body_that_says_that_it_is_not_coded_is_taken(connection: Connection, header: bytes) -> None:
    connection.feed(request(b"plain", headers=header + b"\r\n"))
    assert connection.answers() == [(200, b"plain")]


def test_a_head_without_end_is_refused(connection: Connection) -> None:
    connection.feed(b"POST /predict HTTP/1.1\r\n")
    for _ in range(100):
        if connection.transport.closed:
            break
        connection.feed(b"X-Long: " + b"y" * 2000 + b"\r\n")
    assert [status for status, _ in connection.answers()] == [431]
    assert connection.transport.is_closing()


@pytest.mark.parametrize(
    "bad",
    [
        b"rubbish\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
        b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nBad Header\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\nabc",
    ],
    ids=["rubbish", "two lengths", "length and chunked", "negative", "chunk size", "no colon", "unknown coding"],
)
def test_what_is_not_http_is_refused_after_the_answers_before_it(connection: Connection, bad: bytes) -> None:
    connection.plane.at_once = False
    connection.feed(request(b"good"))
    connection.feed(bad)
    assert connection.answers() == []
    connection.plane.waiting[0]()
    assert [status for status, _ in connection.answers()] == [200, 400]
    assert connection.transport.is_closing()
    assert len(connection.plane.asked) == 1, "nothing of the bad request is taken for a request"


def test_a_refusal_is_told_to_the_log_with_the_client_but_is_no_warning(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    connection.feed(b"rubbish\r\n\r\n")
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert "127.0.0.1:50000" in record.getMessage()


def test_a_request_that_goes_bad_when_its_answer_has_begun_gets_no_second_one(connection: Connection) -> None:
    connection.feed(b"POST /models/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    connection.protocol.cycle.response_started = True
    connection.feed(b"rubbish\r\n")
    assert connection.transport.written == b""
    assert connection.transport.is_closing()


def test_a_refused_body_is_not_kept(connection: Connection) -> None:
    whole = request(b"x" * 5000, headers=b"Content-Encoding: zstd\r\n")
    connection.feed(whole[:-1])
    assert [status for status, _ in connection.answers()] == [415]
    assert connection.protocol._chunks == []


def test_what_comes_behind_a_refused_request_is_not_run_while_it_waits_for_its_turn(connection: Connection) -> None:
    connection.plane.at_once = False
    connection.feed(request(b"0") + request(b"1") + b"GET / HTTP/1.1\r\n")
    connection.feed(b"X: " + b"y" * (1 << 16))
    connection.plane.waiting[0]()
    connection.feed(b"\r\n\r\n" + request(b"2"))
    connection.plane.waiting[1]()
    assert [status for status, _ in connection.answers()] == [200, 200, 431]
    assert len(connection.plane.asked) == 2
    assert connection.loop.tasks == []


def test_a_client_that_does_not_read_its_answers_is_not_read_from(connection: Connection) -> None:
    connection.protocol.pause_writing()
    assert not connection.transport.reading
    connection.feed(request(b"0"))
    assert not connection.transport.reading, "an answer alone does not make it readable again"
    connection.protocol.resume_writing()
    assert connection.transport.reading


def test_a_client_with_many_unanswered_requests_is_not_read_from(connection: Connection) -> None:
    connection.plane.at_once = False
    connection.feed(b"".join(request(b"x") for _ in range(64)))
    assert not connection.transport.reading
    connection.plane.waiting[0]()
    assert connection.transport.reading


def test_an_idle_connection_is_closed_and_a_used_one_is_looked_at_again(connection: Connection) -> None:
    loop, patience = connection.loop, connection.protocol.timeout_keep_alive
    loop.now = patience - 1
    connection.feed(request(b"x"))
    due, look = loop.later.pop()
    loop.now = due
    look()
    assert not connection.transport.is_closing()
    due, look = loop.later.pop()
    loop.now = due
    look()
    assert connection.transport.is_closing()


def pass_time(loop: Loop, until: float) -> None:
    """Let every call be made that is due by then."""
    while loop.later and loop.later[0][0] <= until:
        loop.now, call = loop.later.pop(0)
        call()
    loop.now = until


@pytest.mark.parametrize("keep_alive", [0, 0.4, 3])
def test_a_short_keep_alive_does_not_close_a_connection_before_its_first_request(connection: Connection) -> None:
    pass_time(connection.loop, 4.9)
    assert not connection.transport.is_closing()
    pass_time(connection.loop, 5.2)
    assert connection.transport.is_closing()


@pytest.mark.parametrize("keep_alive", [0.4])
def test_a_short_keep_alive_is_kept_after_each_answer(connection: Connection) -> None:
    whole = request(b"x")
    pass_time(connection.loop, 1)
    connection.feed(whole)
    pass_time(connection.loop, 1.3)
    connection.feed(whole[:10])
    pass_time(connection.loop, 4)
    connection.feed(whole[10:])
    connection.plane.at_once = False
    connection.feed(whole)
    pass_time(connection.loop, 9)
    connection.plane.waiting[0]()
    pass_time(connection.loop, 9.3)
    assert not connection.transport.is_closing()
    assert len(connection.answers()) == 3
    pass_time(connection.loop, 9.6)
    assert connection.transport.is_closing()


@pytest.mark.parametrize("keep_alive", [0])
def test_no_keep_alive_closes_after_the_answer_and_says_so(connection: Connection) -> None:
    connection.feed(request(b"x"))
    assert connection.answers() == [(200, b"x")]
    assert b"connection: close\r\n" in connection.transport.written
    assert connection.transport.is_closing()


@pytest.mark.parametrize("keep_alive", [0])
def test_no_keep_alive_is_for_the_application_too(connection: Connection) -> None:
    connection.feed(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.protocol.cycle.keep_alive is False


@pytest.mark.parametrize("seconds", [0.0, 0.4, 2.5])
def test_the_keep_alive_time_is_not_rounded(tmp_path: Path, seconds: float) -> None:
    settings = Settings(models_dir=tmp_path, keep_alive=seconds)
    log_config = {"version": 1, "disable_existing_loggers": False}
    assert make_config(FastAPI(), Lane(1), settings, log_config).timeout_keep_alive == seconds


def test_a_connection_that_waits_for_its_answer_is_not_idle(connection: Connection) -> None:
    connection.plane.at_once = False
    connection.feed(request(b"x"))
    due, look = connection.loop.later.pop()
    connection.loop.now = due + 1000
    look()
    assert not connection.transport.is_closing()
    assert connection.loop.later


def test_an_error_of_the_dataplane_is_an_answer_with_its_status_and_retry_after(connection: Connection) -> None:
    def refuse(caller: Caller) -> None:
        caller.refuse(Unavailable("still loading", retry_after=2))

    connection.lane.open(stand_in(refuse))
    connection.feed(request(b"x"))
    assert connection.answers() == [(503, b'{"error":"still loading"}')]
    assert b"retry-after: 2\r\n" in connection.transport.written


def test_a_fault_of_the_dataplane_is_a_500_without_a_trace(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(caller: Caller) -> None:
        raise ZeroDivisionError("secret detail")

    connection.lane.open(stand_in(fail))
    connection.feed(request(b"x"))
    ((status, body),) = connection.answers()
    assert status == 500
    assert b"secret" not in body
    identity = body.split(b"request ")[-1].rstrip(b'"}').decode()
    assert identity in caplog.text


def test_a_fault_in_reading_a_head_is_a_500_and_no_bad_request(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connection = Connection(loop)

    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(connection.lane, "head", fail)
    connection.feed(request(b"x"))

    ((status, body),) = connection.answers()
    assert status == 500
    assert b"secret" not in body
    assert "ZeroDivisionError" in caplog.text
    assert body.split(b"request ")[-1].rstrip(b'"}').decode() in caplog.text
    assert connection.transport.is_closing()


def test_every_kind_of_error_has_a_status_here() -> None:
    from app.errors import Code
    from app.server.errors import STATUS

    assert set(STATUS) == set(Code)
    assert issubclass(Unavailable, LitepoolError)


def test_a_body_that_stops_half_way_is_not_waited_for_for_ever(connection: Connection) -> None:
    connection.feed(request(b"hello")[:-2])

    pass_time(connection.loop, 80)

    assert connection.transport.is_closing()
    assert connection.answers() == []


def test_a_request_that_is_awaited_keeps_a_connection_whose_next_body_stops_half_way(connection: Connection) -> None:
    connection.plane.at_once = False
    connection.feed(request(b"one") + request(b"two")[:-1])

    pass_time(connection.loop, 300)

    assert not connection.transport.is_closing()


def test_an_answered_request_is_not_kept_by_the_job_that_answered_it(connection: Connection) -> None:
    done: list[Any] = []
    run = connection.plane.run

    def keep(route: Route, body: bytes, caller: Caller) -> Job:
        run(route, body, caller)
        done.append(caller)
        return Job()

    connection.plane.run = keep  # type: ignore[method-assign]
    connection.feed(request(b"one"))

    assert [caller.job for caller in done] == [None]


def test_a_body_in_very_many_chunks_is_whole(connection: Connection) -> None:
    body = bytes(index % 251 for index in range(3 * 4096 + 5))
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"

    connection.feed(b"POST /predict/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)

    assert connection.answers() == [(200, body)]


def test_trailers_are_not_kept(connection: Connection) -> None:
    connection.plane.at_once = False
    connection.feed(b"POST /predict/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
    before = len(connection.protocol.headers)

    connection.feed(b"x: 1\r\n" * 500)

    assert len(connection.protocol.headers) == before


def test_what_is_not_http_behind_a_request_that_waits_for_the_application_is_refused_in_order(
    connection: Connection,
) -> None:
    connection.plane.at_once = False
    connection.feed(request(b"one", b"/predict/a"))
    connection.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    connection.feed(b"nonsense\r\n\r\n")
    assert connection.answers() == [], "the first answer is still to come"

    connection.plane.waiting[0]()

    assert [status for status, _ in connection.answers()] == [200, 400]
    assert connection.transport.is_closing()
