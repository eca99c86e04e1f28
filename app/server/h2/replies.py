"""Header blocks and trailers of answers, as gRPC over HTTP/2 has them."""

import base64
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from app.errors import LitepoolError, Unavailable
from app.server.h2 import hpack
from app.server.h2.hpack import Field

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED = range(5)
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 8, 12, 13, 14


class Refusal(NamedTuple):
    """What answers a request by its headers alone.

    Args:
        code: the status in `block`.
    """

    code: int
    block: bytes


LATE = "the deadline of the call passed before it was answered"

_LONGEST_MESSAGE = 1024
"""Bytes of a message, before encoding; clients refuse trailers of more than 8 KiB in all."""

_HEAD: tuple[Field, ...] = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity,deflate,gzip"),
)

ANSWER_HEAD = hpack.encode(*_HEAD)
ANSWER_TRAILERS = hpack.encode((b"grpc-status", b"0"))


def percent(message: str) -> bytes:
    """A message as `grpc-message` holds it: printable ASCII, and everything else as `%XX` of its UTF-8."""
    raw = message.encode("utf-8", "replace")
    if len(raw) > _LONGEST_MESSAGE:
        # Not in the middle of a character: some clients would refuse the whole.
        raw = raw[:_LONGEST_MESSAGE].decode("utf-8", "ignore").encode()
    return b"".join(b"%c" % octet if 0x20 <= octet <= 0x7E and octet != 0x25 else b"%%%02X" % octet for octet in raw)


def head(metadata: Metadata = ()) -> bytes:
    """The block that begins an answer."""
    return hpack.encode(*_HEAD, *_fields(metadata))


def trailers(code: int, message: str, metadata: Metadata = ()) -> bytes:
    """The block that ends an answer which has begun."""
    return hpack.encode(*_status(code, message), *_fields(metadata))


def trailers_only(code: int, message: str, metadata: Metadata = ()) -> bytes:
    """The block that is the whole answer."""
    return hpack.encode(*_HEAD, *_status(code, message), *_fields(metadata))


def refusal(code: int, message: str) -> Refusal:
    """What answers a call whose headers are wrong."""
    return Refusal(code, trailers_only(code, message))


def http_refusal(status: int, message: str) -> Refusal:
    """What answers what is no gRPC call; the status and message are for gRPC clients that look for them."""
    block = hpack.encode((b":status", b"%d" % status), _HEAD[1], *_status(INTERNAL, message))
    return Refusal(INTERNAL, block)


def pushback(error: LitepoolError) -> Metadata:
    """When to try again, for clients whose retries heed that."""
    if isinstance(error, Unavailable) and error.retry_after is not None:
        return (("grpc-retry-pushback-ms", str(error.retry_after * 1000)),)
    return ()


def _status(code: int, message: str) -> Iterable[Field]:
    yield b"grpc-status", b"%d" % code
    if message:
        yield b"grpc-message", percent(message)


def _fields(metadata: Metadata) -> Iterable[Field]:
    for name, value in metadata:
        if isinstance(value, str):
            value = value.encode("latin-1", "replace")
        if name.endswith("-bin"):
            value = base64.b64encode(value).rstrip(b"=")
        yield name.encode(), value
