"""Large JSON lists a piece at a time, so that no single call keeps other threads from running for long.

One call of a C parser on 10 MB holds the interpreter lock for tens of milliseconds, and a prediction on the event loop
would wait for it. Pieces of a list of records are lists of records: each is read by the same roads as a small body.
"""

import re
import time
from collections.abc import Iterator, Mapping

LARGE = 1 << 18
"""Bodies of this many bytes, and more, are read in pieces."""

_PIECE = 1 << 17
"""Bytes of a piece: a fraction of a millisecond to parse."""

_GAP = rb"[ \t\n\r]*"
"""White space as JSON has it, which is less than what `\\s` stands for."""

_HEAD = re.compile(rb'S\{S"(instances|inputs|instance)"S:S\['.replace(b"S", _GAP))
_TAIL = re.compile(rb"\]S\}S\Z".replace(b"S", _GAP))
_HEAD_OF_OBJECTS = re.compile(rb'S\{S"instances"S:S\[(?=S\{)'.replace(b"S", _GAP))
_BETWEEN_OBJECTS = re.compile(rb"\}S,(?=S\{)".replace(b"S", _GAP))
_LONGEST_TAIL = 64


def pieces(body: bytes, ranks: Mapping[str, int]) -> tuple[str, Iterator[bytes]] | None:
    """Cut `{KEY: [ITEM, ...]}` between its items, which are lists: records, or the parts of a single one.

    Args:
        ranks: of the whole list, by key; one of rank 1 is not cut.

    Returns:
        The key, and lists of items as JSON texts that together are the whole; None for a body of another outline.
    """
    head = _HEAD.match(body)
    tail = _TAIL.search(body, max(0, len(body) - _LONGEST_TAIL))
    if head is None or tail is None or body.count(b'"') != 2:
        return None
    key = head[1].decode()
    if ranks[key] < 2:
        return None
    between = re.compile((rb"\]" + _GAP) * (ranks[key] - 1) + rb",")
    return key, _cut(body, head.end(), tail.start(), between)


def object_pieces(body: bytes) -> Iterator[bytes] | None:
    """Cut `{"instances": [{...}, ...]}` between records that are objects of lists.

    Returns:
        Lists of records as JSON texts that together are the whole; None for a body of another outline.
    """
    head = _HEAD_OF_OBJECTS.match(body)
    tail = _TAIL.search(body, max(0, len(body) - _LONGEST_TAIL))
    if head is None or tail is None:
        return None
    return _cut(body, head.end(), tail.start(), _BETWEEN_OBJECTS)


def list_pieces(text: bytes, rank: int) -> Iterator[bytes]:
    """Cut a list, of which the brackets are its first and last bytes, between its items, which are of `rank - 1`.

    Returns:
        Lists of items as JSON texts that together are the whole, if none of them is empty.
    """
    between = re.compile((rb"\]" + _GAP) * (rank - 1) + rb",")
    return _cut(text, 1, len(text) - 1, between)


def _cut(body: bytes, start: int, end: int, between: re.Pattern[bytes]) -> Iterator[bytes]:
    while True:
        found = between.search(body, start + _PIECE, end)
        stop = end if found is None else found.end() - 1
        yield b"[" + body[start:stop] + b"]"
        if found is None:
            return
        start = stop + 1
        give_way()


def give_way() -> None:
    """Let a thread that waits for the interpreter lock have it now, not at the end of the switch interval."""
    time.sleep(0)
