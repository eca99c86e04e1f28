"""Codes to statuses, and one form for every error."""

import re

import pytest

from app import errors
from app.errors import Code, DeadlineExceeded, InvalidArgument, LitepoolError, QueueFull, Unavailable
from app.repository import report
from app.server.errors import STATUS, error_body, error_response
from tests.server.inprocess import InProcess, error_of


def test_every_code_has_a_status() -> None:
    assert STATUS.keys() == set(Code)
    assert all(400 <= status < 600 for status in STATUS.values())


def test_every_error_has_a_code_of_the_table() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LitepoolError)]

    assert len(kinds) >= 9
    assert all(kind.code in STATUS for kind in kinds)


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (InvalidArgument("no"), 400, None),
        (Unavailable("no"), 503, None),
        (Unavailable("no", retry_after=2), 503, "2"),
        (QueueFull("no", retry_after=1), 503, "1"),
        (DeadlineExceeded("no"), 504, None),
    ],
)
def test_an_error_is_answered_with_its_status_and_when_to_come_again(
    error: LitepoolError, status: int, retry_after: str | None
) -> None:
    response = error_response(error)

    assert response.status_code == status
    assert response.body == b'{"error":"no"}'
    assert response.headers["content-type"] == "application/json"
    assert response.headers.get("retry-after") == retry_after


@pytest.mark.parametrize("message", ['"quotes"', "two\nlines", "é", "\x00"])
def test_any_message_makes_json(message: str) -> None:
    import json

    assert json.loads(error_body(message)) == {"error": message}


def test_a_bug_behind_a_control_route_is_500_with_a_request_id_and_no_stack_trace(
    good: InProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret of the code")

    with monkeypatch.context() as patch:
        patch.setattr(report, "full", broken)
        for path in ("/models/affine", "/"):
            message = error_of(good.get(path), 500)
            identity = re.search(r"\b[0-9a-f]{16}\b", message)
            assert identity
            assert "secret" not in message
            assert identity[0] in caplog.text
            assert "a secret of the code" in caplog.text
    assert good.get("/models/affine").status_code == 200
