"""One line for each call that is over, and none without the setting."""

import re
from typing import Any

import pytest

from app.errors import LitepoolError
from app.server.h2 import frames
from app.server.h2.frames import ErrorCode
from tests.server.h2.wire import COLD, STREAMED, Client, data, echo, framed

CALL = re.compile(r'192\.0\.2\.1:50000 - "POST (.*) HTTP/2" (\w+) [0-9]+\.[0-9]{3} ms')
HOT = "/a.B/C"


@pytest.fixture
def client() -> Client:
    return Client(access_log=True).greet()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> "Lines":
    caplog.set_level("INFO", "uvicorn.access")
    return Lines(caplog)


class Lines:
    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self._log = log

    def __call__(self) -> list[tuple[str, str]]:
        """The path and the status of each call that is in the log."""
        texts = [record.getMessage() for record in self._log.records if record.name == "uvicorn.access"]
        matches = [CALL.fullmatch(text) for text in texts]
        assert all(matches), texts
        return [(match[1], match[2]) for match in matches if match]


def test_a_call_that_is_answered_at_once_has_a_line(lines: Lines) -> None:
    client = Client(echo, access_log=True).greet()
    client.call(1)
    client.call(3)
    assert lines() == [(HOT, "OK"), (HOT, "OK")]


def test_a_call_that_is_answered_later_has_its_line_then(client: Client, lines: Lines) -> None:
    client.call(1)
    assert lines() == []
    client.jobs[0].caller.answer(b"x", "")
    client.jobs[0].caller.answer(b"x", "")
    assert lines() == [(HOT, "OK")]


def test_a_refusal_has_the_status_that_the_client_is_told(client: Client, lines: Lines) -> None:
    client.call(1)
    client.jobs[0].caller.refuse(LitepoolError("no"))
    assert lines() == [(HOT, "UNAVAILABLE")]


@pytest.mark.parametrize(("changed", "status"), [({"content_type": "text/plain"}, "INTERNAL"),
                                                 ({"grpc_encoding": "br"}, "UNIMPLEMENTED")])  # fmt: skip
def test_what_is_refused_by_its_headers_has_a_line(client: Client, lines: Lines, changed: Any, status: str) -> None:
    client.call(1, **changed)
    assert lines() == [(HOT, status)]


def test_calls_of_other_methods_have_lines_too(client: Client, lines: Lines) -> None:
    client.call(1, path=COLD)
    client.call(3, path=COLD)
    client.passages.calls[0][0].finish(0, "")
    client.passages.calls[1][0].finish(5, "none")
    assert lines() == [("/a.B/Cold", "OK"), ("/a.B/Cold", "NOT_FOUND")]


def test_a_call_of_many_requests_has_one_line(client: Client, lines: Lines) -> None:
    client.send(client.headers(1, path=STREAMED), data(1, framed(b"a")), data(1, framed(b"b"), end=True))
    for job in client.jobs:
        assert lines() == []
        job.caller.answer(b"x", "")
    assert lines() == [("/a.B/Streamed", "OK")]


def test_a_call_that_the_client_leaves_is_cancelled(client: Client, lines: Lines) -> None:
    client.call(1)
    client.call(3, path=COLD)
    client.send(frames.rst_stream(1, ErrorCode.CANCEL))
    client.connection.connection_lost(None)
    assert lines() == [(HOT, "CANCELLED"), ("/a.B/Cold", "CANCELLED")]


def test_a_call_that_is_cut_off_at_the_end_is_not_one_that_the_client_left(client: Client, lines: Lines) -> None:
    client.call(1)
    client.call(3, path=COLD)
    client.send(client.headers(5, path=STREAMED))
    client.connection.close()
    assert lines() == [(HOT, "UNAVAILABLE"), ("/a.B/Cold", "UNAVAILABLE"), ("/a.B/Streamed", "UNAVAILABLE")]


def test_an_answer_counts_once_the_client_has_taken_it(lines: Lines) -> None:
    client = Client(echo, access_log=True).greet(INITIAL_WINDOW_SIZE=10)
    for sid in (1, 3):
        client.call(sid, bytes(100))
    assert lines() == []
    client.send(frames.window_update(1, 100))
    assert lines() == [(HOT, "OK")]
    client.send(frames.rst_stream(3, ErrorCode.CANCEL))
    assert lines() == [(HOT, "OK"), (HOT, "CANCELLED")]


def test_of_a_long_path_there_is_the_beginning(client: Client, lines: Lines) -> None:
    client.send(client.headers(1, path=b"/" + b"a" * 5000), data(1, framed(b""), end=True))
    client.passages.calls[0][0].finish(12, "none")
    assert lines() == [("/" + "a" * 255, "UNIMPLEMENTED")]


def test_without_the_setting_there_are_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "uvicorn.access")
    client = Client(echo).greet()
    client.call(1)
    client.call(3, path=COLD)
    client.connection.connection_lost(None)
    assert not [record for record in caplog.records if record.name == "uvicorn.access"]
