"""What answers say, as a client reads it."""

from urllib.parse import unquote_to_bytes

import hpack
import pytest

from app.errors import Internal, Unavailable
from app.server.h2 import replies


def fields(block: bytes) -> dict[str, str]:
    return {str(name): str(value) for name, value in hpack.Decoder().decode(block)}


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        ("plain text", b"plain text"),
        ("50%", b"50%25"),
        ("a\nb", b"a%0Ab"),
        ("é☃", b"%C3%A9%E2%98%83"),
        ("\ud800", b"?"),
    ],
)
def test_messages_are_percent_encoded(message: str, encoded: bytes) -> None:
    assert replies.percent(message) == encoded


def test_a_message_that_is_very_long_is_cut() -> None:
    assert replies.percent("x" * 10_000) == b"x" * 1024
    assert unquote_to_bytes(replies.percent("x" + "é" * 10_000)) == ("x" + "é" * 511).encode()


def test_a_status_alone_has_the_head_of_an_answer_too() -> None:
    found = fields(replies.trailers_only(5, "no model", [("k-bin", b"\0"), ("k", "v")]))
    assert found[":status"] == "200"
    assert found["content-type"] == "application/grpc"
    assert found["grpc-status"] == "5"
    assert found["grpc-message"] == "no model"
    assert found["k-bin"] == "AA"
    assert found["k"] == "v"


def test_trailers_have_no_head_and_no_empty_message() -> None:
    assert fields(replies.trailers(0, "")) == {"grpc-status": "0"}


def test_what_says_when_to_try_again_tells_clients_so() -> None:
    assert replies.pushback(Unavailable("full", 2)) == (("grpc-retry-pushback-ms", "2000"),)
    assert replies.pushback(Unavailable("failed")) == ()
    assert replies.pushback(Internal("failed")) == ()
