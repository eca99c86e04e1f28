"""TensorFlow's `TensorProto`, as bytes.

What is in it lies either in `tensor_content`, as it lies in memory, or in a repeated field of its dtype; of the latter
too many values may be missing, which are like the last one that is there. Fields of floats and of booleans are the same
bytes as memory, and so are read and written without a copy. Answers use the repeated fields, as TensorFlow Serving's do
unless it is told otherwise: programs without TensorFlow read `float_val` and know nothing else.

Source: tensor.proto, tensor_shape.proto and types.proto of tensorflow/core/framework.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.errors import InvalidArgument
from app.protocols import protobuf
from app.protocols.protobuf import LENGTH, VARINT, Value
from app.tensors import STRING, Array, Shape, TensorSpec, fits, show_shape

_DTYPE, _SHAPE, _CONTENT, _STRINGS = 1, 2, 4, 8
_DIM, _SIZE, _UNKNOWN_RANK = 2, 1, 3

_MOST_FILLED = 1 << 22
"""Bytes of a tensor whose values are not all in the message. A few bytes could ask for any number of them: small
messages are read on the event loop, and hundreds may wait for a model, so this much is a millisecond and a gigabyte."""

_MOST_DIMENSIONS = 32

_LONGEST_KEPT = 256
"""Bytes of a shape that is remembered."""

_CHUNK = 1 << 16
"""Integers written at a time: the work on them needs a hundred bytes for each."""


class Kind(NamedTuple):
    """How values of a dtype are put.

    Args:
        number: TensorFlow's for the dtype.
        field: of its values.
        read: makes an array of the field's values.
        write: makes the field's bytes.
    """

    number: int
    name: str
    field: int
    read: Callable[[list[Value], np.dtype[Any], str], Array]
    write: Callable[[Array], bytes | memoryview]


def _read_fixed(pieces: list[Value], dtype: np.dtype[Any], name: str) -> Array:
    # A repeated field of a fixed size never comes as a varint: `_parts` has seen to that.
    return protobuf.fixed(pieces, dtype, name)  # type: ignore[arg-type]


def _read_complex(pieces: list[Value], dtype: np.dtype[Any], name: str) -> Array:
    parts = _read_fixed(pieces, np.dtype(f"f{dtype.itemsize // 2}"), name)
    if len(parts) % 2:
        raise InvalidArgument(f"{name} has {len(parts)} parts of complex numbers: expected a real and an imaginary one")
    whole: Array = parts.view(dtype)
    return whole


def _read_integers(pieces: list[Value], dtype: np.dtype[Any], name: str) -> Array:
    wide = protobuf.varints(pieces, np.uint64 if dtype.kind == "u" and dtype.itemsize == 8 else np.int64, name)
    limits = np.iinfo(dtype)
    if dtype.itemsize < 8 and len(wide) and not (limits.min <= wide.min() and wide.max() <= limits.max):
        worst = wide.min() if wide.min() < limits.min else wide.max()
        raise InvalidArgument(f"{name} holds {worst}, out of range for {dtype.name}, {limits.min} to {limits.max}")
    return wide.astype(dtype, copy=False)


def _read_half(pieces: list[Value], dtype: np.dtype[Any], name: str) -> Array:
    halves: Array = _read_integers(pieces, np.dtype(np.uint16), name).view(dtype)
    return halves


def _read_bools(pieces: list[Value], _: np.dtype[Any], name: str) -> Array:
    bools: Array = protobuf.varints(pieces, np.uint64, name) != 0
    return bools


def _read_strings(pieces: list[Value], dtype: np.dtype[Any], _: str) -> Array:
    strings = np.empty(len(pieces), dtype)
    strings[:] = [bytes(piece) for piece in pieces]
    return strings


def _in_memory(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _as_varints(array: Array) -> bytes:
    values: Any = array.reshape(-1)
    if not values.size:
        return b""
    if values.min() >= 0 and values.max() < 128:
        return bytes(values.astype(np.uint8).data)
    wide = values.astype(np.uint64 if values.dtype.kind == "u" else np.int64).view(np.uint64)
    return b"".join(_groups(wide[start : start + _CHUNK]) for start in range(0, len(wide), _CHUNK))


def _groups(values: npt.NDArray[np.uint64]) -> bytes:
    """Seven bits a byte, the lowest first, and a bit more that says whether another byte follows."""
    most = -(-max(int(values.max()).bit_length(), 1) // 7)
    rest = values[:, np.newaxis] >> (7 * np.arange(most + 1, dtype=np.uint64))
    rest[:, most] = 0
    there = rest[:, :most] != 0
    there[:, 0] = True
    groups = (rest[:, :most] & 127).astype(np.uint8)
    groups |= (rest[:, 1:] != 0).astype(np.uint8) << 7
    return bytes(groups[there].data)


def _half_as_varints(array: Array) -> bytes:
    return _as_varints(np.ascontiguousarray(array).view(np.uint16))


def _as_strings(array: Array) -> bytes:
    """Each as a field of its own: strings are never packed."""
    strings = array.reshape(-1).tolist()
    return b"".join([part for text in strings for part in (protobuf.write_head(_STRINGS, len(text)), text)])


_KINDS = {
    np.dtype(name): kind
    for name, kind in {
        "float32": Kind(1, "DT_FLOAT", 5, _read_fixed, _in_memory),
        "float64": Kind(2, "DT_DOUBLE", 6, _read_fixed, _in_memory),
        "int32": Kind(3, "DT_INT32", 7, _read_integers, _as_varints),
        "uint8": Kind(4, "DT_UINT8", 7, _read_integers, _as_varints),
        "int16": Kind(5, "DT_INT16", 7, _read_integers, _as_varints),
        "int8": Kind(6, "DT_INT8", 7, _read_integers, _as_varints),
        "object": Kind(7, "DT_STRING", _STRINGS, _read_strings, _as_strings),
        "complex64": Kind(8, "DT_COMPLEX64", 9, _read_complex, _in_memory),
        "int64": Kind(9, "DT_INT64", 10, _read_integers, _as_varints),
        "bool": Kind(10, "DT_BOOL", 11, _read_bools, _in_memory),
        "uint16": Kind(17, "DT_UINT16", 7, _read_integers, _as_varints),
        "complex128": Kind(18, "DT_COMPLEX128", 12, _read_complex, _in_memory),
        "float16": Kind(19, "DT_HALF", 13, _read_half, _half_as_varints),
        "uint32": Kind(22, "DT_UINT32", 16, _read_integers, _as_varints),
        "uint64": Kind(23, "DT_UINT64", 17, _read_integers, _as_varints),
    }.items()
}

_NAMES = {kind.number: kind.name for kind in _KINDS.values()} | {14: "DT_BFLOAT16"}
"""For messages: of those that no model here takes, the one that clients have."""

_FIXED_FIELDS = {5: 5, 9: 5, 6: 1, 12: 1}
"""The wire type of fields of floats and doubles where they are not packed."""


def dtype_name(dtype: np.dtype[Any]) -> str:
    """`DT_FLOAT` and so on."""
    return _KINDS[dtype].name


def read(view: memoryview, spec: TensorSpec, wanted: Shape) -> Array:
    """A message as an array, which is a view of it where that can be.

    Args:
        wanted: the shape that the model takes, with -1 for free dimensions.

    Raises:
        InvalidArgument: it is damaged, or is not of the dtype and a shape that are wanted.
    """
    kind = _KINDS[spec.dtype]
    name = f"input {spec.name!r}"
    number, shape, content, values = _parts(view, kind.field, name)
    if number != kind.number:
        found = _NAMES.get(number, f"the dtype {number}" if number else "no dtype")
        raise InvalidArgument(f"{name}: expected {kind.name}, found {found}")
    # A size of -1 is the caller's to choose only in what is wanted.
    if shape is None or min(shape, default=1) < 1 or not fits(shape, wanted):
        found = "an unknown rank" if shape is None else show_shape(shape)
        if shape is not None and min(shape, default=1) < 1:
            found += ", and a tensor's sizes are 1 at least"
        raise InvalidArgument(f"{name}: expected shape {show_shape(wanted)}, found {found}")
    size = math.prod(shape)
    if content is not None and len(content):
        return _of_content(content, spec.dtype, size, name).reshape(shape)
    found_values = kind.read(values, spec.dtype, name)
    if len(found_values) != size:
        found_values = _filled(found_values, size, spec.dtype, f"{name} of shape {show_shape(shape)}")
    return found_values.reshape(shape)


def _parts(view: memoryview, field: int, name: str) -> tuple[int, Shape | None, memoryview | None, list[Value]]:
    """The dtype's number, the shape (None where its rank is unknown), `tensor_content`, and a field's values."""
    dtype = 0
    shapes: list[Value] = []
    content = None
    values: list[Value] = []
    scalar = _FIXED_FIELDS.get(field, LENGTH if field == _STRINGS else VARINT)
    for number, wire, value in protobuf.fields(view, name):
        if number == field and wire in (LENGTH, scalar):
            values.append(value)
        elif number == _DTYPE and wire == VARINT:
            dtype = value  # type: ignore[assignment]
        elif number == _SHAPE and wire == LENGTH:
            shapes.append(value)
        elif number == _CONTENT and wire == LENGTH:
            content = value
    sizes = protobuf.joined(shapes)
    # Clients send the same few again and again.
    shape = (_shape if len(sizes) <= _LONGEST_KEPT else _shape.__wrapped__)(sizes, name)
    return dtype, shape, content, values  # type: ignore[return-value]


@lru_cache(1024)
def _shape(data: bytes, name: str) -> Shape | None:
    sizes = []
    for number, wire, value in protobuf.fields(memoryview(data), f"the shape of {name}"):
        if number == _DIM and wire == LENGTH:
            size = 0
            for part, kind, found in protobuf.fields(value, f"the shape of {name}"):  # type: ignore[arg-type]
                if part == _SIZE and kind == VARINT:
                    size = protobuf.signed(found)  # type: ignore[arg-type]
            sizes.append(size)
            if len(sizes) > _MOST_DIMENSIONS:
                raise InvalidArgument(f"the shape of {name} has more than {_MOST_DIMENSIONS} dimensions")
        elif number == _UNKNOWN_RANK and wire == VARINT and value:
            return None
    return tuple(sizes)


def _of_content(content: memoryview, dtype: np.dtype[Any], size: int, name: str) -> Array:
    if dtype == STRING:
        return _strings_of_content(content, size, name)
    if len(content) != size * dtype.itemsize:
        raise InvalidArgument(
            f"{name}: tensor_content has {len(content)} bytes: expected {size * dtype.itemsize}, for {size} "
            f"{dtype.name} values"
        )
    if dtype.kind == "b":
        # Bytes that are neither 0 nor 1 are no booleans to those who compute with them.
        bools: Array = np.frombuffer(content, np.uint8) != 0
        return bools
    return np.frombuffer(content, dtype)


def _strings_of_content(content: memoryview, size: int, name: str) -> Array:
    """All lengths, as varints, and then all the bytes."""
    lengths = []
    at = 0
    for _ in range(min(size, len(content))):
        length = shift = 0
        while at < len(content) and shift < 35:
            byte = content[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        lengths.append(length)
    if len(lengths) != size or at + sum(lengths) != len(content):
        raise InvalidArgument(
            f"{name}: tensor_content has {len(content)} bytes, which are not {size} strings behind their lengths"
        )
    strings = np.empty(size, STRING)
    for index, length in enumerate(lengths):
        strings[index] = bytes(content[at : at + length])
        at += length
    return strings


def _filled(values: Array, size: int, dtype: np.dtype[Any], name: str) -> Array:
    """Values of which the last, or nothing, stands for all that are missing."""
    if len(values) > size:
        raise InvalidArgument(f"{name} has {len(values)} values: expected {size}")
    if size * dtype.itemsize > _MOST_FILLED:
        raise InvalidArgument(
            f"{name} has {len(values)} values: expected {size}; a tensor of more than {_MOST_FILLED} bytes is not "
            "filled up with the last one: send them all, best in tensor_content"
        )
    last = values[-1] if len(values) else b"" if dtype == STRING else dtype.type(0)
    whole = np.empty(size, dtype)
    whole[: len(values)] = values
    whole[len(values) :] = last
    return whole


class Writer:
    """Writes one output of a signature as an entry of a map from names to tensors, which is field `number`.

    Args:
        shape: as callers see it, with -1 for free dimensions.
    """

    def __init__(self, spec: TensorSpec, number: int) -> None:
        self._kind = _KINDS[spec.dtype]
        self._number = number
        self._key = protobuf.write_bytes(1, spec.name.encode())
        self._dtype = protobuf.write_int(_DTYPE, self._kind.number)
        self._heads: dict[tuple[Shape, int], bytes] = {}

    def pieces(self, array: Array) -> Iterator[bytes | memoryview]:
        """The entry's bytes."""
        data = self._kind.write(array)
        size = len(data)
        head = self._heads.get((array.shape, size))
        if head is None:
            head = self._head(array.shape, size)
            if len(self._heads) < _CHUNK >> 8:
                self._heads[array.shape, size] = head
        yield head
        yield data

    def _head(self, shape: Shape, size: int) -> bytes:
        tensor = self._dtype + protobuf.write_bytes(_SHAPE, shape_bytes(shape))
        if self._kind.field != _STRINGS:
            tensor += protobuf.write_head(self._kind.field, size) if size else b""
        entry = self._key + protobuf.write_head(2, len(tensor) + size)
        return protobuf.write_head(self._number, len(entry) + len(tensor) + size) + entry + tensor


def shape_bytes(shape: Shape) -> bytes:
    """A `TensorShapeProto`."""
    # A size of 0 is not written, being the default.
    return b"".join(protobuf.write_bytes(_DIM, protobuf.write_int(_SIZE, size) if size else b"") for size in shape)
