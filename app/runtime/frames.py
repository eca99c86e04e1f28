"""What the server and the process that runs TensorFlow say to each other: a JSON header, then arrays as they lie.

Both ends are on one machine, so that numbers have its byte order. A message is the header's length in 4 bytes, the
header, `{"arrays": [[dtype, shape, bytes], ...], ...}`, and the arrays' own bytes in C order. An array of byte strings
has dtype `object`; its bytes are the lengths, 4 bytes each, and then the strings. Nothing is ever unpickled, and no
length is believed that the rest does not bear out: the model at the other end may have been made to harm.

The other end takes this file by its path, since it is to know nothing else of ours: this imports nothing of ours.
"""

import json
import math
import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DTYPES = {
    name: np.dtype(name)
    for name in (
        *("bool", "float16", "float32", "float64", "complex64", "complex128", "object"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
}
"""The dtypes that a message can carry."""

MOST_BYTES = 1 << 30
"""All the arrays of a message may have so many."""
LONGEST_HEADER = 1 << 20
_MOST_DIMENSIONS = 32
_MOST_BUFFERS = 512
"""Given to the system at once; Linux takes 1024."""
_LENGTH = struct.Struct("=I")


class Ended(Exception):
    """The other end has closed the connection, in or between messages."""


class Broken(Exception):
    """The other end sent what is no message."""


class Oversized(Exception):
    """A message would be larger than any may be. Nothing of it has been sent."""


def send(connection: socket.socket, header: dict[str, Any], arrays: Sequence[Array] = ()) -> None:
    """Send a message.

    Args:
        header: what JSON can hold.
        arrays: of the dtypes in `DTYPES`; of dtype object when their items are bytes.

    Raises:
        Oversized
        OSError: the connection is closed, or its time-out has passed.
    """
    described, parts = [], []
    for array in arrays:
        packed = _pack(array)
        size = sum(len(part) for part in packed)
        described.append([array.dtype.name, array.shape, size])
        parts += packed
    if sum(map(len, parts)) > MOST_BYTES:
        raise Oversized(f"the arrays have {sum(map(len, parts)) >> 20} MiB, and may have {MOST_BYTES >> 20}")
    text = json.dumps({"arrays": described, **header}).encode()
    if len(text) > LONGEST_HEADER:
        raise Oversized(f"the header has {len(text)} bytes, and may have {LONGEST_HEADER}")
    _send_all(connection, [memoryview(_LENGTH.pack(len(text)) + text), *parts])


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[Array]]:
    """Wait for a message: its header, and its arrays, which are the caller's own.

    Raises:
        Ended, Broken
        OSError: the connection is broken, or its time-out has passed.
    """
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size).data)
    if length > LONGEST_HEADER:
        raise Broken(f"a header of {length} bytes")
    try:
        header = json.loads(_read(connection, length).tobytes())
    except (ValueError, RecursionError) as error:
        raise Broken("a header that is not JSON") from error
    described = header.pop("arrays", []) if isinstance(header, dict) else None
    if not isinstance(described, list):
        raise Broken("a header without a list of arrays")
    arrays, left = [], MOST_BYTES
    for item in described:
        dtype, shape, size = _understand(item, left)
        left -= size
        arrays.append(_unpack(_read(connection, size), dtype, shape))
    return header, arrays


def _pack(array: Array) -> list[memoryview]:
    if array.dtype.kind != "O":
        return [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data]
    items = array.ravel().tolist()
    text = b"".join(items)
    # No length can be too large for its 4 bytes when all of them are not.
    if len(text) > MOST_BYTES:
        raise Oversized(f"the strings have {len(text) >> 20} MiB, and may have {MOST_BYTES >> 20}")
    return [memoryview(np.fromiter(map(len, items), np.uint32, len(items)).tobytes()), memoryview(text)]


def _understand(item: Any, left: int) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """The description of one array, if it is one and agrees with itself."""
    match item:
        case [str(name), list(shape), int(size)] if name in DTYPES and len(shape) <= _MOST_DIMENSIONS:
            dtype = DTYPES[name]
        case _:
            raise Broken(f"an array described as {str(item)[:100]}")
    if not all(type(part) is int and 0 <= part <= MOST_BYTES for part in shape) or not 0 <= size <= left:
        raise Broken(f"an array of shape {str(shape)[:100]} in {size} bytes")
    count = math.prod(shape)
    # Of strings the lengths are certain.
    if 4 * count > size if dtype.kind == "O" else dtype.itemsize * count != size:
        raise Broken(f"{count} items of {dtype.name} in {size} bytes")
    return dtype, tuple(shape), size


def _unpack(data: npt.NDArray[np.uint8], dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    if dtype.kind == "O":
        data = _strings(data, math.prod(shape))
    elif dtype.kind == "b":
        # Other bytes than 0 and 1 would be booleans that are neither.
        data = data != 0
    try:
        return data.view(dtype).reshape(shape)
    except ValueError as error:
        raise Broken(f"an array of shape {shape}, which is none") from error


def _strings(data: npt.NDArray[np.uint8], count: int) -> Array:
    ends = np.cumsum(data[: 4 * count].view(np.uint32), dtype=np.uint64)
    text = data[4 * count :].tobytes()
    if (int(ends[-1]) if count else 0) != len(text):
        raise Broken(f"{count} strings whose lengths are not those of their {len(text)} bytes")
    strings, start = np.empty(count, object), 0
    for place, end in enumerate(ends.tolist()):
        strings[place] = text[start:end]
        start = end
    return strings


def _read(connection: socket.socket, size: int) -> npt.NDArray[np.uint8]:
    """Exactly so many bytes."""
    data = np.empty(size, np.uint8)
    left = data.data
    while left:
        got = connection.recv_into(left)
        if not got:
            raise Ended
        left = left[got:]
    return data


def _send_all(connection: socket.socket, parts: list[memoryview]) -> None:
    parts = [part for part in parts if part]
    while parts:
        sent = connection.sendmsg(parts[:_MOST_BUFFERS])
        whole = 0
        while whole < len(parts) and sent >= len(parts[whole]):
            sent -= len(parts[whole])
            whole += 1
        parts = parts[whole:]
        if sent:
            parts[0] = parts[0][sent:]
