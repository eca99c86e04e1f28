"""Protocol Buffers' wire format, by hand: a message's fields as views of its bytes, and fields as bytes.

A message of tensors is a few small fields and some large ones. The runtime library copies the large ones, twice for a
float tensor that becomes an array; here they stay where they lie. Which fields there are, and what is in them, is for
the formats that use this to know: of a message the fields come one by one, those within another message when that is
read in turn, so that nothing here goes deeper than its caller does.

Source: https://protobuf.dev/programming-guides/encoding/. Groups, which were given up before either of the services
spoken here was made, are not read.
"""

import struct
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from app.errors import InvalidArgument
from app.tensors import Array

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""The wire types."""

_FIXED = {FIXED64: 8, FIXED32: 4}

_LONGEST_VARINT = 10
_MASK = (1 << 64) - 1
_CHUNK = 1 << 18
"""Bytes of packed varints that are taken at a time: the work on them needs forty times as much memory."""

_FLOAT = struct.Struct("<f")

Value = memoryview | int
"""Of a varint its bits as an unsigned number, of anything else its bytes."""


def fields(view: memoryview, name: str = "the message") -> Iterator[tuple[int, int, Value]]:
    """A message's fields in the order in which they lie: each one's number, wire type and value.

    A field that its reader does not know, or that has another wire type than it should, is to be passed over.

    Args:
        view: of bytes.
        name: what messages of errors call it.

    Raises:
        InvalidArgument: it is damaged.
    """
    at, end = 0, len(view)
    try:
        while at < end:
            start = at
            tag = view[at]
            at += 1
            if tag > 127:
                tag, at = _varint(view, start, name)
            number, kind = tag >> 3, tag & 7
            if kind == LENGTH:
                length = view[at]
                at += 1
                if length > 127:
                    length, at = _varint(view, at - 1, name)
                stop = at + length
                if stop > end:
                    raise _damage(f"field {number} has {length} bytes, of which {end - at} are there", start, name)
                value: Value = view[at:stop]
                at = stop
            elif kind == VARINT:
                value = view[at]
                at += 1
                if value > 127:
                    value, at = _varint(view, at - 1, name)
            elif kind in _FIXED:
                stop = at + _FIXED[kind]
                if stop > end:
                    raise _damage(f"field {number} ends too soon", start, name)
                value = view[at:stop]
                at = stop
            else:
                raise _damage(f"field {number} has wire type {kind}, which is none that is in use", start, name)
            if not 0 < number < 1 << 29:
                raise _damage(f"{number} is no field's number", start, name)
            yield number, kind, value
    except IndexError:
        raise _damage("the bytes end within a field", start, name) from None


def _varint(view: memoryview, at: int, name: str) -> tuple[int, int]:
    """The unsigned number that begins at a place, and the place behind it.

    Raises:
        IndexError: the bytes end before it does.
    """
    value = shift = 0
    for place in range(at, at + _LONGEST_VARINT):
        byte = view[place]
        value |= (byte & 127) << shift
        if byte < 128:
            return value & _MASK, place + 1
        shift += 7
    raise _damage(f"a number has more than {_LONGEST_VARINT} bytes", at, name)


def _damage(what: str, at: int, name: str) -> InvalidArgument:
    return InvalidArgument(f"{name} is no protobuf message of its type: at byte {at} {what}")


def entry(view: memoryview, name: str) -> tuple[memoryview, Value]:
    """An entry of a map from strings to messages: its key and value, each an empty view where there is none.

    Raises:
        InvalidArgument: it is damaged.
    """
    key = view[:0]
    value: Value = view[:0]
    parts: list[Value] = []
    for number, kind, found in fields(view, name):
        if number == 1 and kind == LENGTH:
            key = found  # type: ignore[assignment]
        elif number == 2:
            value = found
            parts.append(found)
    if len(parts) > 1:
        value = memoryview(joined(parts))
    return key, value


def joined(parts: Iterable[Value]) -> bytes:
    """A message that comes in parts, which is one."""
    return b"".join([part for part in parts if isinstance(part, memoryview)])


def text(value: Value, name: str) -> str:
    """A field of type `string`.

    Raises:
        InvalidArgument: it is no UTF-8, as all strings are.
    """
    try:
        return str(value, "utf-8")  # type: ignore[arg-type]
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{name} is no UTF-8 text: at byte {error.start} {error.reason}") from None


def signed(value: int) -> int:
    """A field of type `int64` or `int32`, whose negative numbers have all their 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def fixed(pieces: list[memoryview], dtype: npt.DTypeLike, name: str) -> Array:
    """A repeated field of numbers of four or eight bytes, packed or not: of one piece a view, else a copy.

    Args:
        pieces: the field's values in their order.
        dtype: of the elements, little-endian.

    Raises:
        InvalidArgument: a piece holds no whole number of elements.
    """
    dtype = np.dtype(dtype)
    for piece in pieces:
        if len(piece) % dtype.itemsize:
            raise InvalidArgument(
                f"{name} has {len(piece)} bytes: expected a multiple of {dtype.itemsize}, for {dtype.name}"
            )
    return np.frombuffer(pieces[0] if len(pieces) == 1 else b"".join(pieces), dtype)


def varints(pieces: list[Value], dtype: npt.DTypeLike, name: str) -> Array:
    """A repeated field of numbers as varints, packed or not.

    Args:
        pieces: the field's values in their order.
        dtype: of the field: int64, int32, uint64, uint32 or bool. What has more bits is cut, as the library cuts it.

    Raises:
        InvalidArgument: a number is longer than it may be, or has no end.
    """
    found: Array
    if len(pieces) == 1 and isinstance(pieces[0], memoryview):
        packed = pieces[0]
    else:
        packed = memoryview(b"".join(write_varint(piece) if isinstance(piece, int) else piece for piece in pieces))
    data = np.frombuffer(packed, np.uint8)
    found = _bits(data, name) if len(data) and data.max() > 127 else data
    return found.astype(dtype)


def few(pieces: list[Value], name: str) -> list[int]:
    """As `varints`, of a field of type `int64` with a few numbers, for which arrays take longer.

    Raises:
        InvalidArgument: a number is longer than it may be, or has no end.
    """
    found = []
    for piece in pieces:
        if isinstance(piece, int):
            found.append(signed(piece))
            continue
        at = 0
        try:
            while at < len(piece):
                value, at = _varint(piece, at, name)
                found.append(signed(value))
        except IndexError:
            raise InvalidArgument(f"{name}: the bytes end within a number") from None
    return found


def _bits(data: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint64]:
    """The numbers of which some have more bytes than one."""
    too_long = f"{name}: a number has more than {_LONGEST_VARINT} bytes"
    if data[-1] > 127:
        raise InvalidArgument(f"{name}: the bytes end within a number")
    chunks = []
    start = 0
    while start < len(data):
        chunk = data[start : start + _CHUNK]
        ends = np.flatnonzero(chunk < 128)
        if not len(ends):
            raise InvalidArgument(too_long)
        chunk = chunk[: ends[-1] + 1]
        starts = np.concatenate(([0], ends[:-1] + 1))
        lengths = ends - starts + 1
        if lengths.max() > _LONGEST_VARINT:
            raise InvalidArgument(too_long)
        places = np.arange(len(chunk)) - np.repeat(starts, lengths)
        bits = (chunk & 127).astype(np.uint64) << (7 * places).astype(np.uint64)
        chunks.append(np.bitwise_or.reduceat(bits, starts))
        start += len(chunk)
    return np.concatenate(chunks)


_BYTES = tuple(bytes([value]) for value in range(128))


def write_varint(value: int) -> bytes:
    """A number's bytes; a negative one's are those of its 64 bits."""
    if 0 <= value < 128:
        return _BYTES[value]
    value &= _MASK
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


def write_head(number: int, length: int) -> bytes:
    """What stands before a field's bytes: its number, and how many there are."""
    return write_varint(number << 3 | LENGTH) + write_varint(length)


def write_bytes(number: int, data: bytes) -> bytes:
    """A field of type `bytes` or `string`, or of a message's."""
    return write_head(number, len(data)) + data


def write_int(number: int, value: int) -> bytes:
    """A field of an integer type, an enum or a `bool`."""
    return write_varint(number << 3) + write_varint(value)


def write_float(number: int, value: float) -> bytes:
    """A field of type `float`."""
    return write_varint(number << 3 | FIXED32) + _FLOAT.pack(value)


def write_ints(number: int, values: Iterable[int]) -> bytes:
    """A repeated field of integers, packed; nothing if there are none."""
    packed = b"".join(map(write_varint, values))
    return write_bytes(number, packed) if packed else b""
