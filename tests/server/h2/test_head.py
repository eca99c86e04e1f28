"""Request headers: what is malformed, what is refused, and what is passed on."""

import pytest

from app.server.h2.head import Head, Malformed, read_head, read_timeout
from app.server.h2.hpack import Decoder, Field
from tests.server.h2.wire import COLD, PATH, echo

GOOD: list[Field] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", PATH),
    (b":authority", b"host"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]
HOT = {PATH: echo}


def changed(**values: bytes | None) -> list[Field]:
    names = {name.replace("_", "-").encode(): value for name, value in values.items()}
    return [field for field in GOOD if field[0] not in names] + [
        (name, value) for name, value in names.items() if value is not None
    ]


def refusal(head: Head) -> dict[bytes, bytes]:
    assert head.refusal is not None
    return dict(Decoder(4096).decode(head.refusal.block) or [])


def test_a_hot_method_has_what_runs_it() -> None:
    assert read_head(GOOD, HOT) == Head("/a.B/C", echo)


def test_any_other_method_has_metadata() -> None:
    fields = [field if field[0] != b":path" else (b":path", COLD) for field in GOOD]
    fields += [(b"x", b"1"), (b"x", b"2"), (b"y-bin", b"AP8"), (b"z-bin", b"AP8=,AQ"), (b"user-agent", b"me")]
    head = read_head([*fields, (b"grpc-accept-encoding", b"gzip")], HOT)
    assert head.start is None
    assert head.metadata == (("x", "1"), ("x", "2"), ("y-bin", b"\0\xff"), ("z-bin", b"\0\xff"), ("z-bin", b"\1"))


@pytest.mark.parametrize("content_type", [b"application/grpc", b"application/grpc+proto", b"application/grpc;x=y"])
def test_every_content_type_of_grpc_is_taken(content_type: bytes) -> None:
    assert read_head(changed(content_type=content_type), HOT).start is echo


@pytest.mark.parametrize("content_type", [None, b"application/json", b"application/grpc-web", b"text/plain"])
def test_another_content_type_is_415(content_type: bytes | None) -> None:
    fields = refusal(read_head(changed(content_type=content_type), HOT))
    assert fields[b":status"] == b"415"
    assert b"application/grpc" in fields[b"grpc-message"]


def test_another_method_than_post_is_405() -> None:
    assert refusal(read_head([(b":method", b"GET"), *GOOD[1:]], HOT))[b":status"] == b"405"


def test_an_encoding_that_nobody_knows_is_unimplemented_and_told_what_is_known() -> None:
    fields = refusal(read_head(changed(grpc_encoding=b"snappy"), HOT))
    assert (fields[b":status"], fields[b"grpc-status"]) == (b"200", b"12")
    assert fields[b"grpc-accept-encoding"] == b"identity,deflate,gzip"
    assert b"snappy" in fields[b"grpc-message"]


@pytest.mark.parametrize("field", [(b"x", b"\xff"), (b"x-bin", b"A"), (b"x-bin", b"A*==")])
def test_metadata_that_grpc_has_not_is_refused(field: Field) -> None:
    fields = [pair if pair[0] != b":path" else (b":path", COLD) for pair in GOOD]
    assert refusal(read_head([*fields, field], HOT))[b"grpc-status"] == b"13"


@pytest.mark.parametrize(
    "fields",
    [
        GOOD[1:],
        [GOOD[0], *GOOD[2:]],
        [*GOOD[:2], *GOOD[3:]],
        [*GOOD[:2], (b":path", b""), *GOOD[3:]],
        [*GOOD[:2], (b":path", b"/a.B/\x1b[2J"), *GOOD[3:]],
        [*GOOD[:2], (b":path", b"/a.B/C D"), *GOOD[3:]],
        [*GOOD, (b":path", PATH)],
        [*GOOD[:2], *GOOD[4:], *GOOD[2:4]],
        [(b":method", b"POST"), *GOOD],
        [(b":status", b"200"), *GOOD],
        [*GOOD, (b"X", b"1")],
        [*GOOD, (b"", b"1")],
        [*GOOD, (b"a b", b"1")],
        [*GOOD, (b"x", b"a\r\nb")],
        [*GOOD, (b"x", b"a\0")],
        [*GOOD, (b"x", b" a")],
        [*GOOD, (b"x", b"a\t")],
        [*GOOD, (b"connection", b"close")],
        [*GOOD, (b"transfer-encoding", b"chunked")],
        [*GOOD, (b"upgrade", b"h2c")],
        [*GOOD[:-1], (b"te", b"gzip")],
        [*GOOD, (b"content-length", b"-1")],
        [*GOOD, (b"content-length", b"1"), (b"content-length", b"2")],
        [],
    ],
)
def test_headers_that_are_no_request_are_malformed(fields: list[Field]) -> None:
    with pytest.raises(Malformed):
        read_head(fields, HOT)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"2H", 7200.0), (b"3M", 180.0), (b"4S", 4.0), (b"5m", 0.005), (b"6u", 6e-6), (b"7n", 7e-9), (b"0n", 0.0)]
    + [(value, None) for value in (b"", b"1", b"S", b"1s", b"-1S", b"1.5S", b"123456789S", b" 1S", b"1S\n")],
)
def test_a_timeout_is_up_to_eight_digits_and_a_unit(value: bytes, seconds: float | None) -> None:
    assert read_timeout(value) == pytest.approx(seconds)


def test_the_longest_timeout_is_read() -> None:
    assert read_timeout(b"99999999H") == 99999999 * 3600.0
