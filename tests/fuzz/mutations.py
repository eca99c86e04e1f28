"""What is done to well-formed bytes so that they are nearly so no more.

Each mutation takes the bytes, where its choices come from, and other bytes to take parts of. Those that know a format
do more harm than those that do not: they keep the rest in order, so that the damage gets past the parser.
"""

import re
from collections.abc import Callable, Sequence
from random import Random

from tests.protobuf import varint

Mutation = Callable[[bytes, Random, bytes], bytes]

Steps = Sequence[tuple[int, int]]
"""Mutations, each by its number and the seed of its choices."""

LARGEST = 1 << 15
"""Bytes of a body; what grows beyond that is cut."""

_SIZES = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)

ODD_JSON = [
    *(b"true", b"false", b"null", b'""', b'"1"', b"{}", b"[]", b"[[]]", b"[1,2]", b'{"x":1}', b'{"b64":"YQ=="}'),
    *(b"NaN", b"Infinity", b"-Infinity", b"nan", b"1e39", b"1e400", b"-1e400", b"3.4028236e38", b"1.0", b"0.5", b"-0"),
    *(b"-1", b"256", b"2147483648", b"9223372036854775808", b"18446744073709551616", b"1" + b"0" * 400, b"9" * 5000),
    *(b'{"b64":"*"}', b'{"b64":1}', b'"\\ud800"', b'"\\u0000\\n\\u202e"', b'"' + b"y" * 2000 + b'"', b"[" * 2000),
    *(b'{"a":' * 500, b"[" * 40 + b"1" + b"]" * 40, b"1" + b",1" * 3000, b"01", b".5", b"0x1", b"// 1", b"\xff", b"-"),
    *(b'"data"', b'"binary_data_size"', b'"instances"', b'"inputs"', b'"signature_name"', b'"shape"', b'"\xc3\xbc"'),
    *(b"[0]", b"[4294967296,4294967296]", b"[9223372036854775807]", b"[1e3]", b'"FP32"', b'"BYTES"', b"\xef\xbb\xbf"),
]

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|NaN|Infinity')
_LIST = re.compile(rb"\[[^\[\]]*\]|\{[^{}]*\}")


def _span(data: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 1, 2, 4, 8, 64, len(data))))


def flip(data: bytes, rng: Random, _: bytes) -> bytes:
    if not data:
        return data
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def put(data: bytes, rng: Random, _: bytes) -> bytes:
    start, end = _span(data, rng)
    odd = rng.choice((b"\0", b"\xff", b"\x80", b'"', b"[", b"]", b"{", b"}", b",", b":", b"\\", b"\n", b"9"))
    return data[:start] + odd * (end - start) + data[end:]


def put_size(data: bytes, rng: Random, _: bytes) -> bytes:
    """A number of four or eight bytes, little-endian, as lengths of strings are."""
    width = rng.choice((4, 8))
    start = rng.randrange(len(data) + 1)
    return data[:start] + (rng.choice(_SIZES) & (1 << 8 * width) - 1).to_bytes(width, "little") + data[start + width :]


def delete(data: bytes, rng: Random, _: bytes) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def repeat(data: bytes, rng: Random, _: bytes) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[start:end] * rng.choice((2, 3, 100)) + data[end:]


def insert(data: bytes, rng: Random, _: bytes) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 2, 8))) + data[place:]


def cut(data: bytes, rng: Random, _: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def splice(data: bytes, rng: Random, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def borrow(data: bytes, rng: Random, other: bytes) -> bytes:
    start, end = _span(data, rng)
    first, last = _span(other, rng)
    return data[:start] + other[first:last] + data[end:]


ANY: tuple[Mutation, ...] = (flip, put, put_size, delete, repeat, insert, cut, splice, borrow)
"""Those that know no format."""


def _replaced(found: Sequence[re.Match[bytes]], data: bytes, rng: Random, new: bytes) -> bytes:
    if not found:
        return data
    one = rng.choice(found)
    return data[: one.start()] + new + data[one.end() :]


def odd_token(data: bytes, rng: Random, _: bytes) -> bytes:
    """Something else in the place of a name, a string or a number."""
    return _replaced(list(_TOKEN.finditer(data)), data, rng, rng.choice(ODD_JSON))


def other_token(data: bytes, rng: Random, other: bytes) -> bytes:
    """A token of other JSON, or of this, in the place of one."""
    tokens: list[bytes] = _TOKEN.findall(rng.choice((data, other)))
    return _replaced(list(_TOKEN.finditer(data)), data, rng, rng.choice(tokens)) if tokens else data


def odd_list(data: bytes, rng: Random, other: bytes) -> bytes:
    """Something else in the place of an innermost list or object, or around it, or twice."""
    found = list(_LIST.finditer(data))
    if not found:
        return data
    one = rng.choice(found)
    text = one[0]
    news = (b"[" + text + b"]", text + b"," + text, b"", rng.choice(ODD_JSON), b"[" * 50 + text + b"]" * 50, text[1:-1])
    others: list[bytes] = _LIST.findall(other)
    return data[: one.start()] + rng.choice((*news, *others[:1])) + data[one.end() :]


def odd_gap(data: bytes, rng: Random, _: bytes) -> bytes:
    """White space, and what is like it, around a token."""
    gap = rng.choice((b" ", b"\n", b"\t\r\n ", b"\x0b", b"\xc2\xa0", b" " * 300))
    found = list(_TOKEN.finditer(data))
    place = rng.choice(found).end() if found else 0
    return data[:place] + gap + data[place:]


JSON: tuple[Mutation, ...] = (odd_token, odd_token, other_token, odd_list, odd_gap, *ANY)


class _Node:
    """A field of a message, which may be one itself."""

    def __init__(self, number: int, kind: int, value: "int | bytes | list[_Node]") -> None:
        self.number = number
        self.kind = kind
        self.value = value

    def written(self) -> bytes:
        tag = varint(self.number << 3 | self.kind)
        if isinstance(self.value, int):
            return tag + varint(self.value)
        data = self.value if isinstance(self.value, bytes) else b"".join(node.written() for node in self.value)
        return tag + (varint(len(data)) if self.kind == 2 else b"") + data


def _parsed(data: bytes, depth: int = 0) -> list[_Node] | None:
    """The fields of a message; None for what is none."""
    nodes = []
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    try:
        while place < len(data):
            tag = number()
            kind = tag & 7
            if not tag >> 3 or kind not in (0, 1, 2, 5):
                return None
            if kind == 0:
                nodes.append(_Node(tag >> 3, kind, number()))
                continue
            length = number() if kind == 2 else 8 if kind == 1 else 4
            value = data[place : place + length]
            if len(value) < length:
                return None
            place += length
            within = _parsed(value, depth + 1) if kind == 2 and value and depth < 8 else None
            nodes.append(_Node(tag >> 3, kind, value if within is None else within))
    except IndexError:
        return None
    return nodes


def _all(nodes: list[_Node]) -> list[tuple[list[_Node], int]]:
    """Every place of a field, in whatever message."""
    places = []
    for index, node in enumerate(nodes):
        places.append((nodes, index))
        if isinstance(node.value, list):
            places += _all(node.value)
    return places


def odd_field(data: bytes, rng: Random, other: bytes) -> bytes:
    """A field changed, gone, twice, or in another's place; the lengths around it are right again."""
    nodes = _parsed(data)
    if not nodes:
        return data
    at, index = rng.choice(_all(nodes))
    node = at[index]
    match rng.randrange(7):
        case 0:
            del at[index]
        case 1:
            at.insert(rng.randrange(len(at) + 1), node)
        case 2:
            others = _parsed(other) or _parsed(data) or nodes
            there, place = rng.choice(_all(others))
            at[index] = there[place]
        case 3:
            at[index] = _Node(rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 13, 16, 2**29 - 1)), node.kind, node.value)
        case 4:
            at[index] = _Node(node.number, 0, rng.choice(_SIZES))
        case 5:
            at[index] = _Node(node.number, rng.choice((1, 3, 4, 5, 6, 7)), rng.randbytes(rng.choice((4, 8))))
        case _:
            whole = node.value if isinstance(node.value, bytes) else b""
            new = rng.choice(
                (b"", b"\xff", whole[:-1], whole + b"\0", whole * 2, varint(rng.choice(_SIZES)), b"x" * 3000)
            )
            at[index] = _Node(node.number, 2, new)
    return b"".join(node.written() for node in nodes)


MESSAGE: tuple[Mutation, ...] = (odd_field, odd_field, odd_field, odd_field, *ANY)


def mutated(data: bytes, steps: Steps, kinds: Sequence[Mutation], other: bytes) -> bytes:
    """Bytes after some mutations."""
    for kind, seed in steps:
        data = kinds[kind % len(kinds)](data, Random(seed), other)[:LARGEST]
    return data
