"""What the express connections of one worker share: paths, heads seen before, and what answers begin with."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.dataplane import JSON, DataPlane, Route, Wants
from app.errors import LitepoolError, Unavailable, UnsupportedFormat
from app.protocols.npy import MEDIA_TYPE as NPY
from app.repository.manager import Target
from app.runtime.job import Job
from app.server.errors import STATUS, error_body
from app.server.predict import path_of, unsupported, wants_of

_HEADS_KEPT = 4096
_LONGEST_KEPT = 1024
"""Heads kept, and bytes of the longest of them: 4 MB at the very most."""

KIND = {media_type: b"content-type: " + media_type.encode() + b"\r\ncontent-length: " for media_type in (JSON, NPY)}
"""For each media type of an answer what its head ends in, up to where the length goes."""


class Head(NamedTuple):
    """What an express request's line and headers come to.

    `length` is the body's in bytes, -1 when the head does not say. `refusal` is why no body under it can be read.
    `route` is what serves it, of a head that is kept.
    """

    target: Target
    wants: Wants
    length: int
    keep_alive: bool
    url: bytes
    refusal: UnsupportedFormat | None
    route: Route | None = None


class Lane:
    """One worker's.

    Args:
        max_body: the largest body taken, in bytes.
        closed: called when a connection has closed.
    """

    def __init__(self, max_body: int, closed: Callable[[], None] | None = None) -> None:
        self.max_body = max_body
        self.closed = closed
        self.dataplane: DataPlane
        self.paths: Mapping[bytes, Target] = {}
        self.heads: dict[bytes, Head] = {}
        """What heads mean, by their very bytes: clients send the same few again and again, and reading one costs as
        much as decoding the body under it. Only heads that uvicorn's parser has taken, each of a request that came in
        one piece."""
        self.headers: list[tuple[bytes, bytes]] | None = None
        """uvicorn's default headers, from which these are made:"""
        self.closing = False
        """Whether they tell clients to close, as they do when the server drains."""
        self.lines = b""
        """They as bytes, but for `Connection: close`."""
        self.begins: dict[bytes, bytes] = {}
        """What a good answer begins with, up to where its length goes, by its kind."""

    def open(self, dataplane: DataPlane) -> None:
        """Make the prediction routes of what serves express; to be called whenever that changes."""
        self.dataplane = dataplane
        self.paths = {path_of(target): target for target in (*dataplane.targets, Target())}
        self.heads.clear()

    def head(self, url: bytes, headers: list[tuple[bytes, bytes]], keep_alive: bool) -> Head:
        """What a request's parsed head comes to; its path is one of `paths`."""
        content_type = accept = length = coding = signature = numbers = b""
        for name, value in headers:
            if name == b"content-type":
                content_type = value
            elif name == b"accept":
                accept = value
            elif name == b"content-length":
                length = value
            elif name == b"content-encoding":
                coding = value
            elif name == b"litepool-signature":
                signature = value
            elif name == b"litepool-numbers":
                numbers = value
        refusal = unsupported(coding, content_type) if coding or b";" in content_type else None
        # The parser has refused a length that is no number, or that does not fit 64 bits.
        return Head(
            self.paths[url],
            wants_of(content_type, accept, signature, numbers),
            int(length) if length else -1,
            keep_alive,
            url,
            refusal,
        )

    def keep(self, text: bytes, head: Head) -> None:
        """Remember what these bytes, a whole head up to its empty line, come to."""
        if len(text) <= _LONGEST_KEPT and head.refusal is None and head.length <= self.max_body:
            try:
                route = self.dataplane.route(head.target, head.wants)
            except LitepoolError:
                return
            if len(self.heads) >= _HEADS_KEPT:
                del self.heads[next(iter(self.heads))]
            self.heads[text] = head._replace(route=route)

    def take(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Make `begins` anew from uvicorn's default headers, which are a new list each second."""
        self.headers = headers
        self.closing = CLOSE_HEADER in headers
        self.lines = b"".join(b"%b: %b\r\n" % header for header in headers if header != CLOSE_HEADER)
        self.begins = {kind: STATUS_LINE[200] + self.lines + kind for kind in KIND.values()}


class Turn:
    """One express request's place in the order of its connection's answers: the caller that the dataplane answers.

    Args:
        advance: called when there is an answer.
        last: whether the connection closes behind it.
        line: of the access log; None when there is none.
    """

    __slots__ = ("_advance", "body", "job", "kind", "last", "line", "status")

    def __init__(self, advance: Callable[[], None], last: bool, line: str | None) -> None:
        self._advance = advance
        self.last = last
        self.line = line
        self.job: Job | None = None
        self.status = 200
        self.kind = b""
        self.body: bytes | None = None
        """The answer's; None until there is one."""

    def answer(self, body: bytes, media_type: str) -> None:
        self.body, self.kind = body, KIND[media_type]
        self.job = None
        self._advance()

    def refuse(self, error: LitepoolError) -> None:
        self.set_error(STATUS[error.code], error.message)
        if isinstance(error, Unavailable) and error.retry_after is not None:
            self.kind = b"retry-after: %d\r\n" % error.retry_after + self.kind
        self.job = None
        self._advance()

    def set_error(self, status: int, message: str) -> None:
        self.status, self.kind, self.body = status, KIND[JSON], error_body(message)
