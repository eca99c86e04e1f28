"""Requests to the server's port that were right before they were mutated: in a part of theirs, or anywhere."""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from hypothesis import strategies as st

from app.protocols.call import Wire
from app.protocols.wires import MAKERS
from app.repository.manager import Target
from app.server.paths import TEMPLATES, path_of
from app.tensors import Signature
from tests.fuzz import mutations
from tests.fuzz.bodies import BODIES, Body, npy
from tests.fuzz.mutations import Steps
from tests.fuzz.targets import mutated_body

PATHS = [
    *(b"/", b"/models", b"/models/affine", b"/healthz", b"/livez", b"/readyz", b"/metrics", b"/openapi.json", b"/docs"),
    *(b"/v1/models", b"/v1/models/affine", b"/v1/models/affine/versions/1", b"/v1/models/pair/metadata"),
    *(b"/v1/models/affine/labels/x", b"/v2", b"/v2/health/live", b"/v2/health/ready", b"/v2/models/affine"),
    *(b"/v2/models/affine/versions/1/ready", b"/v2/models/affine/config", b"/v2/models/stats", b"/v2/repository/index"),
    *(b"/v2/models/affine/stats", b"/v2/repository/models/affine/load", b"/models/affine/unload"),
]
"""Of what is answered beside predictions."""

_HEADERS = [
    *((b"Accept", b"application/x-npy"), (b"Accept-Encoding", b"gzip"), (b"Accept-Encoding", b"deflate")),
    *((b"Litepool-Numbers", b"real"), (b"Litepool-Signature", b"serving_default"), (b"Connection", b"close")),
    *(
        (b"Litepool-Sequence-Id", b"a"),
        (b"Litepool-Sequence-Start", b"true"),
        (b"Expect", b"100-continue"),
        (b"X-Other", b"1"),
    ),
]

READ = [
    *(b"Inference-Header-Content-Length", b"Content-Encoding", b"Content-Type", b"Host", b"Transfer-Encoding"),
    *(name for name, _ in _HEADERS),
]

STRANGE = [
    b"",
    b"\x00",
    b"\xff\xfe",
    b"x" * 3000,
    b"-1",
    b"0",
    b"9" * 30,
    b"gzip, br",
    b"*/*;q=0",
    b"\t",
    b"%00",
    b"\xc3\xbc",
]


class Request(NamedTuple):
    method: bytes
    path: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def written(self) -> bytes:
        lines = [b"%b %b HTTP/1.1" % (self.method, self.path), *(b"%b: %b" % header for header in self.headers)]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


Prediction = tuple[bytes, Sequence[Body], tuple[tuple[bytes, bytes], ...]]
"""A path, bodies that are right for it, and the headers that they need."""


def predictions(signatures: Mapping[str, Signature]) -> list[Prediction]:
    """All paths by which models, given by their names, are asked."""
    found: list[Prediction] = []
    for name, signature in signatures.items():
        for wire in sorted(MAKERS.keys() & TEMPLATES.keys(), key=lambda wire: wire.value):
            json = ((b"Content-Type", b"application/json"),)
            bodies = list(BODIES[wire](signature))
            found += [(path_of(target, wire), bodies, json) for target in (Target(name), Target(name, 1))]
        tensors = list(npy(signature))
        if tensors:
            found.append((path_of(Target(name), Wire.PREDICT), tensors, ((b"Content-Type", b"application/x-npy"),)))
    return found


def requests(known: Sequence[Prediction]) -> st.SearchStrategy[bytes]:
    """As bytes: one part of each is mutated, or the whole."""
    known = [(path, bodies, headers) for path, bodies, headers in known if bodies]

    def make(which: int, what: int, seed: int, steps: Steps) -> bytes:
        rng = Random(seed)
        path, bodies, headers = known[which % len(known)]
        body = rng.choice(bodies)
        if what < 2:
            body = mutated_body(body, steps, mutations.JSON, rng.choice(bodies), rng.randrange(4))
        request = Request(b"POST", path, headers, body.data)
        if what == 2:
            request = request._replace(headers=(*headers, (rng.choice(READ), rng.choice(STRANGE))))
        if what == 3:
            request = _elsewhere(request, rng, steps)
        whole = _finished(request, body.length, rng)
        return mutations.mutated(whole, steps if what == 4 else [], mutations.ANY, whole)

    steps = st.tuples(st.integers(0, 20), st.integers(0, 2**32 - 1))
    return st.builds(
        make, st.integers(0, 200), st.integers(0, 4), st.integers(0, 2**32 - 1), st.lists(steps, max_size=4)
    )


def _elsewhere(request: Request, rng: Random, steps: Steps) -> Request:
    path = mutations.mutated(rng.choice((request.path, *PATHS)), steps, mutations.ANY, rng.choice(PATHS))
    for byte in b" \n\r\0":
        path = path.replace(bytes([byte]), b"%%%02x" % byte)
    return request._replace(path=path, method=rng.choice((b"GET", b"POST", b"PUT", b"OPTIONS", b"DELETE")))


def _finished(request: Request, length: str, rng: Random) -> bytes:
    """With the headers that say how long the body is, and some that nobody needs."""
    headers = [(b"Host", b"x"), *request.headers, *rng.sample(_HEADERS, rng.choice((0, 0, 1, 2)))]
    body = request.body
    if length:
        headers.append((b"Inference-Header-Content-Length", length.encode()))
    match rng.randrange(8):
        case 0:
            body = gzip.compress(body, 1)
            headers.append((b"Content-Encoding", b"gzip"))
        case 1:
            body = mutations.flip(zlib.compress(body), rng, b"")
            headers.append((b"Content-Encoding", b"deflate"))
    if rng.randrange(8):
        headers.append((b"Content-Length", b"%d" % len(body)))
    else:
        headers.append((b"Transfer-Encoding", b"chunked"))
        middle = rng.randrange(len(body) + 1)
        chunks = (chunk for chunk in (body[:middle], body[middle:]) if chunk)
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return request._replace(headers=tuple(headers), body=body).written()
