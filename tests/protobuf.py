"""Protobuf's wire format, written and read plainly: what the server makes of messages is held against it.

Source: the "Encoding" page of protobuf's documentation.
"""

from collections.abc import Iterator

Value = int | bytes


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: Value | str) -> bytes:
    """A varint for a number, else a string of bytes; nested messages are such strings."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def message(*fields: tuple[int, Value | str]) -> bytes:
    return b"".join(field(*each) for each in fields)


def read(data: bytes) -> Iterator[tuple[int, Value]]:
    """The fields in order."""
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

    while place < len(data):
        tag = number()
        match tag & 7:
            case 0:
                yield tag >> 3, number()
            case 2:
                length = number()
                yield tag >> 3, data[place : place + length]
                place += length
            case 1 | 5 as kind:
                length = 8 if kind == 1 else 4
                yield tag >> 3, data[place : place + length]
                place += length


def one(data: bytes, *path: int) -> bytes:
    """The only string of bytes at a path of field numbers."""
    for step in path:
        (data,) = [value for number, value in read(data) if number == step and isinstance(value, bytes)]
    return data
