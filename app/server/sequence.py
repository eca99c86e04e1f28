"""The headers by which a request names its place in a sequence of requests that share a model's state.

Litepool-Sequence-Id: any name of the client's choice       Litepool-Sequence-Start: true
                                                            Litepool-Sequence-End: true
"""

from collections.abc import Iterable

from app.errors import InvalidArgument
from app.runtime.job import Step

SEQUENCE_HEADER = b"litepool-sequence-id"
_START, _END = b"litepool-sequence-start", b"litepool-sequence-end"
SEQUENCE_HEADERS = frozenset({SEQUENCE_HEADER, _START, _END})

_LONGEST_ID = 128
_WORDS = {"true": True, "1": True, "false": False, "0": False}


def sequence_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The sequence that a request belongs to; None for a request by itself.

    Raises:
        InvalidArgument: the header is there, and names none.
    """
    found = [value for name, value in headers if name == SEQUENCE_HEADER]
    if not found:
        return None
    if len(found) > 1:
        raise InvalidArgument(f"Litepool-Sequence-Id: expected one, found {len(found)}")
    identity = found[0].decode("latin-1")
    if not (0 < len(identity) <= _LONGEST_ID and identity.isascii() and identity.isprintable()):
        raise InvalidArgument(
            f"Litepool-Sequence-Id: expected 1 to {_LONGEST_ID} printable ASCII characters, found {identity[:80]!r}"
        )
    return identity


def step_of(headers: Iterable[tuple[bytes, bytes]]) -> Step | None:
    """A request's place in its sequence; None for a request by itself.

    Raises:
        InvalidArgument: a header has no value that it may have, or there is a start or an end of nothing.
    """
    given = list(headers)
    name = sequence_of(given)
    flags = {_START: False, _END: False}
    for header, value in given:
        if header in flags:
            shown, word = header.decode().title(), value.decode("latin-1").strip().lower()
            if name is None:
                raise InvalidArgument(f"{shown} without Litepool-Sequence-Id: name the sequence")
            if word not in _WORDS:
                raise InvalidArgument(f"{shown}: expected true or false, found {word[:80]!r}")
            flags[header] = _WORDS[word]
    return None if name is None else Step(name, flags[_START], flags[_END])
