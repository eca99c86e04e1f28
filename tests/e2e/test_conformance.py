"""HTTP/1.1 itself: the same requests over raw sockets to the express lane and to plain ASGI get the same answers."""

import socket
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from tests.e2e.process import PATIENCE, Litepool
from tests.tflite import affine, fixed_one

pytestmark = pytest.mark.slow

LANES = ("express", "asgi")
LARGE = 1 << 20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fast` runs inline, `slow` record by record on a pool thread when it gets many; both answer 2x + 1."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "fast.tflite").write_bytes(affine())
    (folder / "slow.tflite").write_bytes(fixed_one())
    return folder


def start(lane: str, models: Path, tmp: Path, **more: str) -> Litepool:
    settings: dict[str, str | Path] = {"cache_dir": tmp, "default_model": "fast", "max_body_bytes": str(LARGE), **more}
    if lane == "express":
        return Litepool(models, "--workers", "1", settings=settings).wait_ready()
    command: list[str | Path] = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", "0", "--no-server-header"]
    command += ["--timeout-keep-alive", more.get("keep_alive", "75")]
    server = Litepool(settings={**settings, "models_dir": models}, command=command).wait_listening()
    with server.client() as client:
        while client.get("/readyz").status != 200:
            pass
    return server


@pytest.fixture(scope="module", params=LANES)
def server(
    request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Litepool]:
    with start(request.param, models, tmp_path_factory.mktemp("cache")) as litepool:
        yield litepool


class Raw:
    """A raw connection."""

    def __init__(self, server: Litepool) -> None:
        parts = urlsplit(server.url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer."""
        status = int(self._file.readline().split()[1])
        headers: dict[str, str] = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self._file.read(int(headers.get("content-length", "0")))

    def line(self) -> bytes:
        return self._file.readline()

    def at_end(self) -> bool:
        """Whether the server has closed; waits for that or for a byte."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def vanish(self) -> None:
        """Go away with a reset in place of a goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


@pytest.fixture
def raw(server: Litepool) -> Iterator[Raw]:
    connection = Raw(server)
    yield connection
    connection.close()


def record(value: float) -> list[float]:
    return [value, value + 1, value + 2, value + 3]


def one(value: float, path: str = "/predict", headers: str = "") -> bytes:
    return posted(orjson.dumps({"instance": record(value)}), path, headers)


def posted(body: bytes, path: str = "/predict", headers: str = "", version: str = "1.1") -> bytes:
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def many(rows: int, path: str) -> bytes:
    return posted(orjson.dumps({"instances": [record(row) for row in range(rows)]}), path)


def prediction(value: float) -> bytes:
    return orjson.dumps({"prediction": [2.0 * number + 1 for number in record(value)]})


def test_pipelined_requests_are_answered_in_order(raw: Raw) -> None:
    raw.send(b"".join(one(value) for value in range(100)))
    for value in range(100):
        assert raw.answer()[2] == prediction(value)


def test_a_slow_request_does_not_let_fast_ones_overtake_it(raw: Raw) -> None:
    raw.send(many(3000, "/predict/slow") + b"".join(one(value) for value in range(5)))
    status, _, body = raw.answer()
    assert status == 200
    assert len(orjson.loads(body)["predictions"]) == 3000
    for value in range(5):
        assert raw.answer()[2] == prediction(value)


def test_predictions_and_other_routes_keep_their_order_on_one_connection(raw: Raw) -> None:
    other = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    raw.send(many(500, "/predict/slow") + other + one(1) + other + other + one(2))
    bodies = [raw.answer()[2] for _ in range(6)]
    assert b"predictions" in bodies[0]
    assert [b"alive" in body for body in bodies] == [False, True, False, True, True, False]
    assert [bodies[2], bodies[5]] == [prediction(1), prediction(2)]


LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
NOSUCH = b"GET /nosuch HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_prediction_does_not_overtake_another_route_before_it(raw: Raw) -> None:
    for value in range(20):
        raw.send(LIVEZ + one(value, "/predict/fast") + NOSUCH)
        first, second, third = (raw.answer() for _ in range(3))
        assert b"alive" in first[2]
        assert second[2] == prediction(value)
        assert third[0] == 404


def test_a_prediction_does_not_overtake_a_slow_answer_of_the_application(raw: Raw) -> None:
    # A query makes it a request for the application, which waits for the pool.
    raw.send(many(3000, "/predict/slow?a=b") + one(1, "/predict/fast") + NOSUCH + one(2, "/predict/fast"))
    assert b"predictions" in raw.answer()[2]
    assert raw.answer()[2] == prediction(1)
    assert raw.answer()[0] == 404
    assert raw.answer()[2] == prediction(2)


UPGRADE = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"


def test_an_upgrade_is_ignored_and_a_body_is_never_a_request(models: Path, tmp_path: Path) -> None:
    with start("express", models, tmp_path) as server:
        connection = Raw(server)
        for path in ("/predict", "/predict?a=b"):
            whole = one(1, path, UPGRADE)
            connection.send(whole + one(2))
            assert [connection.answer()[2] for _ in range(2)] == [prediction(1), prediction(2)]
            head, end, body = whole.partition(b"\r\n\r\n")
            connection.send(head + end)
            time.sleep(0.05)
            connection.send(body)
            assert connection.answer()[2] == prediction(1)
        for path, wanted in (("/predict", 400), ("/predict?a=b", 400), ("/nosuch", 404)):
            connection.send(posted(one(3), path, UPGRADE))
            assert connection.answer()[0] == wanted
        connection.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + UPGRADE.replace("h2c", "websocket").encode() + b"\r\n")
        assert connection.answer()[0] == 200
        connection.send(one(4))
        assert connection.answer()[2] == prediction(4)
        connection.close()
    assert "uvicorn[standard]" not in server.log.text()
    assert "pgrade" not in server.log.text()


@pytest.mark.parametrize("path", ["/predict", "/predict?a=b"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_client_that_wants_the_connection_closed_gets_its_413(server: Litepool, path: str, chunked: bool) -> None:
    body = b" " * (LARGE * 3 // 2)
    for _ in range(5):
        # urllib always sends `Connection: close`, and reads nothing before it has sent all.
        data = iter([body[: LARGE // 16]] * 24) if chunked else body
        asked = urllib.request.Request(server.url + path, data)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(asked, timeout=PATIENCE)
        with caught.value as answer:
            assert answer.code == 413
            assert answer.headers["connection"] == "close"
            assert b"bytes" in answer.read()


def test_a_request_that_comes_byte_by_byte_is_answered(raw: Raw) -> None:
    for byte in one(3):
        raw.send(bytes([byte]))
    assert raw.answer()[2] == prediction(3)


def test_a_chunked_body_is_read_with_its_extensions_and_trailers(raw: Raw) -> None:
    body = orjson.dumps({"instance": record(4)})
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7))
    raw.send(
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nEnd: 1\r\n\r\n"
    )
    assert raw.answer()[2] == prediction(4)
    raw.send(one(5))
    assert raw.answer()[2] == prediction(5)


def test_a_client_that_expects_to_be_told_to_continue_is(raw: Raw) -> None:
    whole = one(6, headers="Expect: 100-continue\r\n")
    head, _, body = whole.partition(b"\r\n\r\n")
    raw.send(head + b"\r\n\r\n")
    assert raw.line() == b"HTTP/1.1 100 Continue\r\n"
    assert raw.line() == b"\r\n"
    raw.send(body)
    assert raw.answer()[2] == prediction(6)


def test_http_1_0_is_answered_and_closed(raw: Raw) -> None:
    raw.send(posted(orjson.dumps({"instance": record(7)}), version="1.0"))
    status, _, body = raw.answer()
    assert (status, body) == (200, prediction(7))
    assert raw.at_end()


def test_connection_close_is_honoured(raw: Raw) -> None:
    raw.send(one(8, headers="Connection: close\r\n"))
    _, headers, body = raw.answer()
    assert headers["connection"] == "close"
    assert body == prediction(8)
    assert raw.at_end()


def test_an_answer_s_headers_are_those_of_a_prediction(raw: Raw) -> None:
    raw.send(one(9))
    status, headers, body = raw.answer()
    assert status == 200
    del headers["date"]
    assert headers == {"content-type": "application/json", "content-length": str(len(body))}


ERRORS = {
    "bad JSON": (posted(b"{"), 400),
    "empty body": (posted(b""), 400),
    "wrong shape": (posted(b'{"instance": [1, 2]}'), 400),
    "unknown model": (one(1, "/predict/nobody"), 404),
    "unknown route": (one(1, "/predictions"), 404),
    "wrong method": (b"GET /predict HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "wrong type": (one(1, headers="Content-Type: text/xml\r\n"), 415),
    "content encoding": (one(1, headers="Content-Encoding: zstd\r\n"), 415),
    "charset": (one(1, headers="Content-Type: application/json; charset=utf-16\r\n"), 415),
    "too large": (posted(b" " * (LARGE + 1)), 413),
    "query ignored": (one(1, "/predict?a=b"), 200),
    "form type": (one(1, headers="Content-Type: application/x-www-form-urlencoded\r\n"), 200),
}


@pytest.fixture(scope="module")
def seen() -> dict[str, list[tuple[int, str, bytes]]]:
    """What each lane answered, for the comparison of the two."""
    return {}


@pytest.mark.parametrize("case", ERRORS)
def test_both_lanes_answer_alike(raw: Raw, case: str, seen: dict[str, list[tuple[int, str, bytes]]]) -> None:
    sent, wanted = ERRORS[case]
    raw.send(sent)
    status, headers, body = raw.answer()
    assert status == wanted
    assert headers["content-type"] == "application/json"
    answers = seen.setdefault(case, [])
    answers.append((status, headers["content-type"], body))
    assert len(set(answers)) == 1


START = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n"

MALFORMED = {
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    "two lengths": START + b"Content-Length: 4\r\nContent-Length: 40\r\n\r\nabcd",
    "length and chunked": CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "unknown coding": START + b"Transfer-Encoding: identity, xchunked\r\n\r\nabcd",
    "space before colon": START + b"Content-Length : 4\r\n\r\nabcd",
    "negative length": START + b"Content-Length: -4\r\n\r\nabcd",
    "huge length": START + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "bad chunk": CHUNKED + b"\r\n-5\r\nabcde\r\n0\r\n\r\n",
    "null in header": START + b"A: b\x00c\r\nContent-Length: 0\r\n\r\n",
    "header without colon": START + b"A: b\r\nBad\r\n\r\n",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_run(raw: Raw, case: str) -> None:
    raw.send(MALFORMED[case])
    with suppress(BrokenPipeError, ConnectionResetError):
        raw.send(one(1))
    try:
        status, _, body = raw.answer()
    except (ConnectionResetError, IndexError):
        return
    assert status == 400
    assert b"prediction" not in body
    assert raw.at_end()


def test_clients_that_vanish_at_any_stage_harm_nobody(server: Litepool) -> None:
    whole = many(2000, "/predict/slow")
    for stage in (0, 10, 60, len(whole) // 2, len(whole)):
        connection = Raw(server)
        connection.send(whole[:stage])
        connection.vanish()
        polite = Raw(server)
        polite.send(whole[:stage])
        polite.close()
    connection = Raw(server)
    connection.send(one(1))
    assert connection.answer()[2] == prediction(1)
    connection.close()


def test_a_client_that_reads_late_loses_nothing(server: Litepool) -> None:
    rows, requests = 4000, 50
    connection = Raw(server)
    writer = threading.Thread(target=connection.send, args=(many(rows, "/predict/fast") * requests,))
    writer.start()
    for _ in range(requests):
        status, _, body = connection.answer()
        assert status == 200
        assert body.count(b"[") == rows + 1
    writer.join(PATIENCE)
    connection.close()


def pour(to: socket.socket, data: bytes) -> None:
    """Send in small helpings, so that the time-out is for each of them."""
    rest = memoryview(data)
    while rest:
        rest = rest[to.send(rest[: 1 << 16]) :]


def test_a_client_that_does_not_read_is_not_read_from(models: Path, tmp_path: Path) -> None:
    with start("express", models, tmp_path) as server:
        connection = Raw(server)
        connection.socket.settimeout(1.0)
        # Far more than the kernel's buffers on the way hold.
        with pytest.raises(TimeoutError):
            pour(connection.socket, many(4000, "/predict/fast") * 600)
        connection.vanish()
        other = Raw(server)
        other.send(one(1))
        assert other.answer()[2] == prediction(1)
        other.close()


@pytest.mark.parametrize("lane", LANES)
def test_an_idle_connection_is_closed_after_the_keep_alive_time(lane: str, models: Path, tmp_path: Path) -> None:
    with start(lane, models, tmp_path, keep_alive="1") as server:
        connection = Raw(server)
        connection.send(one(1))
        assert connection.answer()[0] == 200
        assert connection.at_end()
        connection.close()


def test_without_keep_alive_each_connection_has_one_answer(models: Path, tmp_path: Path) -> None:
    with start("express", models, tmp_path, keep_alive="0") as server:
        for sent in (one(1), one(1, "/predict?a=b"), b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"):
            connection = Raw(server)
            connection.send(sent)
            status, headers, _ = connection.answer()
            assert (status, headers["connection"]) == (200, "close")
            assert connection.at_end()
            connection.close()


def test_a_keep_alive_below_half_a_second_is_kept(models: Path, tmp_path: Path) -> None:
    with start("express", models, tmp_path, keep_alive="0.4") as server:
        connection = Raw(server)
        # At once, because who waits between them on a busy machine may wait too long.
        connection.send(b"".join(one(value) for value in range(3)))
        for value in range(3):
            assert connection.answer()[2] == prediction(value)
        assert connection.at_end()
        connection.close()


def test_a_server_told_to_stop_finishes_every_connection_at_its_stage(models: Path, tmp_path: Path) -> None:
    with start("express", models, tmp_path) as server:
        whole = one(5)
        idle, head, half, waiting, pipelined = (Raw(server) for _ in range(5))
        connections = (idle, head, half, waiting, pipelined)
        for connection in connections:
            connection.send(one(0))
            assert connection.answer()[0] == 200
        head.send(whole[:20])
        half.send(whole[:-5])
        waiting.send(many(20_000, "/predict/slow"))
        pipelined.send(many(20_000, "/predict/slow") + one(6) + whole[:-5])
        server.process.terminate()
        server.log.wait_for("draining")
        head.send(whole[20:])
        half.send(whole[-5:])
        pipelined.send(whole[-5:])
        assert [len(orjson.loads(each.answer()[2])["predictions"]) for each in (waiting, pipelined)] == [20_000, 20_000]
        assert pipelined.answer()[2] == prediction(6)
        for connection in (head, half, pipelined):
            status, headers, body = connection.answer()
            assert (status, headers["connection"], body) == (200, "close", prediction(5))
        for connection in connections:
            assert connection.at_end()
            connection.close()
        assert server.wait() == 0
