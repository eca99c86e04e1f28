"""What the express connections of one worker share: paths, heads seen before, and what answers begin with."""

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.bound import Route, Wants
from app.dataplane import DataPlane
from app.errors import Code, LitepoolError, Unavailable, UnsupportedFormat
from app.protocols.call import JSON, OCTETS, Answer, Wire
from app.protocols.npy import MEDIA_TYPE as NPY
from app.protocols.wires import MAKERS
from app.repository.manager import Target
from app.runtime.job import Job
from app.server.errors import STATUS, STATUSES, error_body
from app.server.paths import TEMPLATES, path_of
from app.server.predict import WANTS, unsupported, wants_of
from app.server.sequence import SEQUENCE_HEADERS

_HEADS_KEPT = 4096
_LONGEST_KEPT = 1024
"""Heads kept, and bytes of the longest of them: 4 MB at the very most."""

KIND = {
    media_type: b"content-type: " + media_type.encode() + b"\r\ncontent-length: " for media_type in (JSON, NPY, OCTETS)
}
"""For each media type of an answer what its head ends in, up to where the length goes."""

_LARGE_ANSWER = 1 << 16
"""Bytes of an answer above which it is not copied once more to stand behind its head."""


class Head(NamedTuple):
    """What an express request's line and headers come to.

    `length` is the body's in bytes, -1 when the head does not say. `refusal` is why no body under it can be read.
    `route` is what serves it, of a head that is kept. `statuses` are those of errors, as its wire format has them.
    """

    target: Target
    wants: Wants
    length: int
    keep_alive: bool
    url: bytes
    refusal: UnsupportedFormat | None
    statuses: Mapping[Code, int]
    route: Route | None = None


class Lane:
    """One worker's.

    Args:
        max_body: the largest body taken, in bytes.
        closed: called when a connection has closed.
        aside: names of headers, in lower case, that no express request has.
    """

    def __init__(
        self,
        max_body: int,
        closed: Callable[[], None] | None = None,
        aside: frozenset[bytes] = SEQUENCE_HEADERS,
    ) -> None:
        self.max_body = max_body
        self.aside = aside
        self.closed = closed
        self.dataplane: DataPlane
        self.paths: Mapping[bytes, tuple[Target, Wire]] = {}
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
        self.good = b""
        """What a good answer begins with,"""
        self.begins: dict[bytes, bytes] = {}
        """and up to where its length goes, by its kind."""

    def open(self, dataplane: DataPlane) -> None:
        """Make the prediction routes of what serves express; to be called whenever that changes."""
        self.dataplane = dataplane
        self.paths = {
            path_of(target, wire): (target, wire)
            for target in (*dataplane.targets, Target())
            for wire in MAKERS.keys() & TEMPLATES.keys()
            # Of Open Inference the body may name a sequence, and that another worker may have.
            if target.model is not None or wire is Wire.PREDICT
            if not (wire is Wire.INFER and (target.label is not None or dataplane.keeps_state(target)))
        }
        self.heads.clear()

    def head(self, url: bytes, headers: list[tuple[bytes, bytes]], keep_alive: bool) -> Head:
        """What a request's parsed head comes to; its path is one of `paths`."""
        target, wire = self.paths[url]
        found = dict(headers)
        coding, content_type = found.get(b"content-encoding", b""), found.get(b"content-type", b"")
        refusal = unsupported(coding, content_type, wire) if coding or b";" in content_type else None
        length = found.get(b"content-length")
        # The parser has refused a length that is no number, or that does not fit 64 bits.
        return Head(
            target,
            wants_of([found.get(name, b"") for name in WANTS], wire),
            int(length) if length else -1,
            keep_alive,
            url,
            refusal,
            STATUSES[wire],
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
        self.good = STATUS_LINE[200] + self.lines
        self.begins = {kind: self.good + kind for kind in KIND.values()}


class Turn:
    """One express request's place in the order of its connection's answers: the caller that the dataplane answers.

    Args:
        advance: called when there is an answer.
        last: whether the connection closes behind it.
        line: of the access log; None when there is none.
        statuses: by the code of an error.
    """

    __slots__ = ("_advance", "_statuses", "body", "job", "kind", "last", "line", "status", "tail")

    def __init__(
        self, advance: Callable[[], None], last: bool, line: str | None, statuses: Mapping[Code, int] = STATUS
    ) -> None:
        self._advance = advance
        self._statuses = statuses
        self.last = last
        self.line = line
        self.job: Job | None = None
        self.status = 200
        self.kind = b""
        self.body: bytes | memoryview | None = None
        """The answer's; None until there is one."""
        self.tail: tuple[bytes | memoryview, ...] = ()
        """What comes behind that."""

    def answer(self, body: bytes | Answer, media_type: str) -> None:
        if type(body) is bytes:
            self.body, self.kind = body, KIND[media_type]
        else:
            assert isinstance(body, Answer)
            pieces, media_type, headers = body
            self.kind = b"".join([*(b"%b: %b\r\n" % header for header in headers), KIND[media_type]])
            if len(pieces) > 1 and sum(map(len, pieces)) < _LARGE_ANSWER:
                self.body = b"".join(pieces)
            else:
                self.body, *tail = pieces
                self.tail = tuple(tail)
        self.job = None
        self._advance()

    def refuse(self, error: LitepoolError) -> None:
        self.set_error(self._statuses[error.code], error.message)
        if isinstance(error, Unavailable) and error.retry_after is not None:
            self.kind = b"retry-after: %d\r\n" % error.retry_after + self.kind
        self.job = None
        self._advance()

    def set_error(self, status: int, message: str) -> None:
        self.status, self.kind, self.body, self.tail = status, KIND[JSON], error_body(message), ()

    def write(self, transport: asyncio.WriteTransport, head: bytes) -> None:
        """Write the answer behind `head`, in as many pieces as it is worth."""
        body = self.body
        assert body is not None
        if not self.tail and len(body) < _LARGE_ANSWER:
            transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))  # type: ignore[str-format]
        else:
            length = len(body) + sum(map(len, self.tail))
            transport.writelines((b"%b%d\r\n\r\n" % (head, length), body, *self.tail))
