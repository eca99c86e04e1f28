"""What a request's headers mean, by RFC 9113, section 8, and by gRPC over HTTP/2."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, TypeAlias

from app.errors import LitepoolError
from app.protocols.call import Answer
from app.runtime.job import Job
from app.server.h2 import replies
from app.server.h2.hpack import Field

Body: TypeAlias = bytes | Answer
"""An answer's message. Large pieces of it are not copied, and must stay as they are until the client has taken them."""


class Caller(Protocol):
    """Whoever waits for a reply: one of these is called, once, on the loop's thread."""

    def answer(self, body: Body, media_type: str) -> None: ...
    def refuse(self, error: LitepoolError) -> None: ...


Start: TypeAlias = Callable[[bytes, float | None, Caller], Job | None]
"""Runs one request message: the message, the seconds that the caller still waits (None: for ever), who gets the answer.
May call the caller before it returns. Returned is the job if it is still under way."""


class Streamed(NamedTuple):
    """A method of many requests on one call, each with one answer.

    Args:
        start: runs one of them.
        wrap: what it is answered, as the message that the client gets, in pieces.
        tell: the same of a request's message and what was wrong with it; the call goes on.
    """

    start: Start
    wrap: Callable[[Body], tuple[bytes | memoryview, ...]]
    tell: Callable[[bytes, LitepoolError], bytes]


Hot: TypeAlias = Start | Streamed
"""What serves a method without the relay."""

ENCODINGS = (b"identity", b"gzip", b"deflate")

_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\0\r\n]|^[ \t]|[ \t]$")
_PATH = re.compile(rb"[\x21-\x7e]+")
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")
_CONTENT_TYPE = re.compile(rb"application/grpc(?:[+;].*)?", re.DOTALL)
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_CONNECTION = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_NOT_METADATA = frozenset(
    {b"content-type", b"content-length", b"te", b"host", b"user-agent", b"grpc-timeout", b"grpc-encoding"}
    | {b"grpc-accept-encoding"}
)


class Malformed(Exception):
    """The request breaks the rules of HTTP: the stream is reset."""


class Head(NamedTuple):
    """A request's headers.

    Args:
        path: `/package.Service/Method`.
        start: what runs the method, if it is a hot one,
        streamed: or one of many requests.
        refusal: what answers the request without a look at the rest of it.
        encoding: of compressed messages, one of `ENCODINGS`.
        length: bytes of the request's body by `content-length`, -1 without one.
        metadata: what else the client sends along.
    """

    path: str
    start: Start | None = None
    refusal: replies.Refusal | None = None
    encoding: bytes = b"identity"
    length: int = -1
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    streamed: Streamed | None = None


def read_timeout(value: bytes) -> float | None:
    """The seconds of a `grpc-timeout`; None if it is not one."""
    match = _TIMEOUT.fullmatch(value)
    return int(match[1]) * _UNITS[match[2]] if match else None


def read_head(
    fields: list[Field], hot: Mapping[bytes, Hot], unknown: Callable[[str], str | None] = lambda _: None
) -> Head:
    """Check a request's headers, all but `grpc-timeout`.

    Args:
        unknown: what there is to say of a path that is not hot and that nobody has; None of others.

    Raises:
        Malformed
    """
    pseudo, regular = _sort(fields)
    found = dict(regular)
    path = pseudo[b":path"].decode("latin-1")
    length = _length(regular)

    def refused(refusal: replies.Refusal) -> Head:
        return Head(path, refusal=refusal, length=length)

    if pseudo[b":method"] != b"POST":
        return refused(replies.http_refusal(405, "gRPC calls are POST requests"))
    if not _CONTENT_TYPE.fullmatch(found.get(b"content-type", b"")):
        return refused(replies.http_refusal(415, "expected content-type application/grpc"))
    encoding = found.get(b"grpc-encoding", b"identity")
    if encoding not in ENCODINGS:
        shown = encoding[:80].decode("latin-1")
        message = f"grpc-encoding: expected one of identity, gzip and deflate, found {shown!r}"
        return refused(replies.refusal(replies.UNIMPLEMENTED, message))
    found_hot = hot.get(pseudo[b":path"])
    if isinstance(found_hot, Streamed):
        return Head(path, None, None, encoding, length, streamed=found_hot)
    if found_hot is not None:
        return Head(path, found_hot, None, encoding, length)
    if (nobody := unknown(path)) is not None:
        return refused(replies.refusal(replies.UNIMPLEMENTED, nobody))
    try:
        metadata = tuple(pair for field in regular if field[0] not in _NOT_METADATA for pair in _metadata(*field))
    except ValueError as error:
        return refused(replies.refusal(replies.INTERNAL, str(error)))
    return Head(path, None, None, encoding, length, metadata)


def _sort(fields: list[Field]) -> tuple[dict[bytes, bytes], list[Field]]:
    pseudo: dict[bytes, bytes] = {}
    regular: list[Field] = []
    for name, value in fields:
        if not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
            raise Malformed
        if name.startswith(b":"):
            if regular or name in pseudo or name not in _PSEUDO:
                raise Malformed
            pseudo[name] = value
            continue
        if name in _OF_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
            raise Malformed
        regular.append((name, value))
    if not (pseudo.get(b":method") and _PATH.fullmatch(pseudo.get(b":path", b"")) and pseudo.get(b":scheme")):
        raise Malformed
    return pseudo, regular


def _length(fields: list[Field]) -> int:
    lengths = {value for name, value in fields if name == b"content-length"}
    if not lengths:
        return -1
    text = lengths.pop()
    if lengths or not re.fullmatch(rb"[0-9]{1,18}", text):
        raise Malformed
    return int(text)


def _metadata(name: bytes, value: bytes) -> list[tuple[str, str | bytes]]:
    key = name.decode()
    if not name.endswith(b"-bin"):
        if not _PRINTABLE.fullmatch(value):
            raise ValueError(f"{key}: expected printable ASCII; names that end in -bin may hold other bytes, as base64")
        return [(key, value.decode())]
    pairs: list[tuple[str, str | bytes]] = []
    for part in value.split(b","):
        part = part.strip().rstrip(b"=")
        try:
            pairs.append((key, base64.b64decode(part + b"=" * (-len(part) % 4), validate=True)))
        except binascii.Error:
            raise ValueError(f"{key}: expected base64") from None
    return pairs
