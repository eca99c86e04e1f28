"""The JSON of an Open Inference request: what it says, and the values of its tensors.

`data` is row-major, flat or nested. Clients send the same JSON again and again with other values in it: `cut` takes
these out, and what is left may have been read before.
"""

import math
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson

from app.errors import InvalidArgument
from app.protocols import json_pieces, json_values
from app.protocols.call import Form
from app.protocols.infer_request import NO_SHARED_MEMORY, members
from app.protocols.infer_tensors import Takes
from app.protocols.json_buffer import BufferReader
from app.protocols.json_convert import convert
from app.protocols.json_shape import Skeleton
from app.protocols.json_values import describe
from app.tensors import FREE, Array, Shape, TensorSpec, show_shape

_DATA = b'"data"'
_GAP = 8
"""Bytes between that and its list, at most."""

_DEEPEST = 32

_KINDS: dict[str, set[type]] = {"f": {int, float}, "i": {int}, "u": {int}, "b": {bool}, "O": {str}}
"""What a value of JSON is, by the kind of dtype that takes it."""


class Given(NamedTuple):
    """One input as a request declares it.

    Args:
        which: its place in the signature.
        size: bytes that lie behind the JSON; -1 where its values are in there, as `data`.
    """

    which: int
    shape: Shape
    size: int


class Values(NamedTuple):
    """A list that was cut out of JSON, and how many brackets it begins with."""

    text: bytes
    depth: int


def given_by(item: Any, place: str, takes: Takes) -> Given:
    """Read what is said of one input.

    Raises:
        InvalidArgument: it is not what the model takes, or no input at all.
    """
    if type(item) is not dict:
        raise InvalidArgument(f"Unable to parse 'inputs': {place}: expected an object, found {describe(item)}")
    name, datatype = (_string(item, key, place) for key in ("name", "datatype"))
    shape = item.get("shape")
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        found = describe(shape) if type(shape) is not list else _odd_size(shape)
        raise InvalidArgument(f"Unable to parse 'shape': {place}: expected a list of sizes of 0 or more, found {found}")
    parameters = members(item.get("parameters"), f"{place}.parameters")
    fields = [
        *(["'data'"] if "data" in item else []),
        *(
            f"{key!r} in 'parameters'"
            for key in ("binary_data_size", "shared_memory_region")
            if parameters.get(key) is not None
        ),
    ]
    if len(fields) != 1:
        raise InvalidArgument(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
            f"'shared_memory_region' in 'parameters'. But {' and '.join(fields) or 'no field'} "
            f"{'are' if len(fields) > 1 else 'is'} set for input {name[:80]!r}"
        )
    if "shared_memory_region" in parameters:
        raise InvalidArgument(f"input {name[:80]!r}: {NO_SHARED_MEMORY}")
    index = takes.input(name, datatype, tuple(shape))
    if "data" in item:
        if datatype == "FP16":
            raise InvalidArgument(
                f"receiving FP16 data via JSON is not supported. Please use the binary data format for input {name!r}"
            )
        return Given(index, tuple(shape), -1)
    size = parameters["binary_data_size"]
    if type(size) is not int or not 0 <= size < 1 << 63:
        raise InvalidArgument(
            f"Unable to parse 'binary_data_size': input {name!r}: expected a number of bytes, found {describe(size)}"
        )
    return Given(index, tuple(shape), size)


def _string(item: dict[str, Any], key: str, place: str) -> str:
    value = item.get(key)
    if type(value) is not str:
        raise InvalidArgument(f"Unable to parse {key!r}: {place}: expected a string, found {describe(value)}")
    return value


def _odd_size(shape: list[Any]) -> str:
    return next(describe(size) for size in shape if type(size) is not int or size < 0)


def quick(value: Any, spec: TensorSpec, shape: Shape, _: str = "") -> Array | None:
    """The values of `data` as an array of `shape`; None wherever `exact` must look.

    Args:
        value: what orjson gave.
    """
    if type(value) is not list:
        return None
    if _is_nested(value, shape):
        for size in shape[1:]:
            if set(map(type, value)) != {list} or set(map(len, value)) != {size}:
                return None
            value = list(chain.from_iterable(value))
    count = math.prod(shape)
    # NumPy takes true for 1 among numbers, and makes of numbers and a long string as many long strings.
    if len(value) != count or not set(map(type, value)) <= _KINDS[spec.dtype.kind]:
        return None
    array = convert(value, spec, (count,))
    return None if array is None else array.reshape(shape)


def exact(value: Any, spec: TensorSpec, shape: Shape, place: str) -> Array:
    """The same.

    Args:
        value: what `json_values.parse` gave.

    Raises:
        InvalidArgument: they are not as many as the shape says, or one does not fit.
    """
    if type(value) is not list:
        raise InvalidArgument(f"Unable to parse 'data': {place}: expected a list, found {describe(value)}")
    wanted = _wanted(value, shape)
    if len(value) != wanted[0]:
        raise InvalidArgument(
            "Unable to parse 'data': Shape does not match true shape of 'data' field: the shape "
            f"{show_shape(shape)} of input {spec.name!r} is of {wanted[0]} items, and {place} is {describe(value)}"
        )
    try:
        return json_values.tensor(value, spec, wanted, place).reshape(shape)
    except InvalidArgument as error:
        raise InvalidArgument(f"Unable to parse 'data': {error.message}") from None


def _wanted(value: list[Any], shape: Shape) -> Shape:
    """The shape that the lists themselves should have."""
    return shape if _is_nested(value, shape) else (math.prod(shape),)


def _is_nested(value: list[Any], shape: Shape) -> bool:
    return len(shape) > 1 and bool(value) and type(value[0]) is list


def cut(body: bytes) -> tuple[tuple[bytes, ...], list[Values]] | None:
    """Take the lists out of a body that stand as `"data"`; None where their ends are not plain to see.

    Returns:
        What is left, cut at each of them, and they.
    """
    left, values = [], []
    end = 0
    at = body.find(_DATA)
    while at >= 0:
        start = body.find(b"[", at, at + len(_DATA) + _GAP)
        if start < 0:
            return None
        depth = 1
        while depth <= _DEEPEST and body.startswith(b"[", start + depth):
            depth += 1
        left.append(body[end:start])
        end = _end(body, start, depth)
        if end <= start:
            return None
        values.append(Values(body[start:end], depth))
        at = body.find(_DATA, end)
    left.append(body[end:])
    return tuple(left), values


def _end(body: bytes, start: int, depth: int) -> int:
    """Where a list of lists of numbers ends that begins with `depth` brackets, if there is no gap between its last."""
    if depth == 1:
        return body.find(b"]", start) + 1
    # What comes behind it on its own level has a name.
    limit = body.find(b'"', start)
    return body.rfind(b"]" * depth, start, limit if limit >= 0 else len(body)) + depth


def outline(first: bytes, others: tuple[bytes, ...]) -> Any:
    """The document whose lists `cut` took out, with its inputs' places as `data`; None where they are not all theirs.

    Whatever JSON list stands in place of such a number is then that input's `data`, and nothing else changes.
    """
    found = None
    count = len(others)
    # Twice, since a number may be there for another reason.
    for offset in (1000, 0):
        behind = (b"%d%b" % (offset + index, piece) for index, piece in enumerate(others))
        try:
            found = orjson.loads(b"".join((first, *behind)))
        except orjson.JSONDecodeError:
            return None
        inputs = found.get("inputs") if type(found) is dict else None
        if type(inputs) is not list or len(inputs) != count:
            return None
        for index, item in enumerate(inputs):
            if type(item) is not dict or type(item.get("data")) is not int or item["data"] != offset + index:
                return None
    return found


class NumberReader:
    """Reads lists of numbers, flat or nested, for one input; any thread may use it."""

    def __init__(self, spec: TensorSpec) -> None:
        self._buffer = BufferReader(spec, {Form.INSTANCES: (FREE,)})
        self.reads = spec.dtype.kind in "fiu" and spec.dtype != np.float16
        """Whether it does for this input at all."""

    def read(self, values: Values, shape: Shape) -> Array | None:
        """The array; None wherever another road must look."""
        text, depth = values
        if depth > 1 and depth != len(shape):
            return None
        if len(text) < json_pieces.LARGE:
            numbers = self._buffer.numbers(text)
            if numbers is None or len(numbers) != math.prod(shape):
                return None
            if depth > 1 and not (_is_lone_row(text, shape) or Skeleton(shape[1:]).fits(text, shape[0])):
                return None
            return numbers.reshape(shape)
        arrays = []
        each = math.prod(shape[1:]) if depth > 1 else 1
        for piece in json_pieces.list_pieces(text, depth):
            numbers = self._buffer.numbers(piece)
            if numbers is None or not len(numbers) or len(numbers) % each:
                return None
            if depth > 1 and not Skeleton(shape[1:]).fits(piece, len(numbers) // each):
                return None
            arrays.append(numbers)
        if sum(map(len, arrays)) != math.prod(shape):
            return None
        return np.concatenate(arrays).reshape(shape)


def _is_lone_row(text: bytes, shape: Shape) -> bool:
    """Whether nested lists, which begin and end with as many brackets as they are deep, have one list at each depth."""
    return math.prod(shape[:-1]) == 1 and text.find(b"[", len(shape)) < 0
