"""Arrays as JSON text, which is what answers hold.

Numbers go straight from memory to text, and those that are not finite become `null`, or on demand a token. A complex
number is a pair `[real, imaginary]`. A string is a JSON string where its bytes are UTF-8, and else `{"b64": base64}`,
as TensorFlow Serving has it.
"""

import base64
from typing import Any

import numpy as np
import orjson

from app.protocols.json_pieces import give_way
from app.tensors import STRING, Array

_LARGE = 1 << 15
"""Numbers in an answer above which it is written in pieces."""

_PIECE = 1 << 14
"""Numbers of a piece of an answer."""


_TOKENS = {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}


def dump(value: Any) -> bytes:
    """Arrays, single values of them, and lists and dictionaries of both."""
    return orjson.dumps(value, _other, orjson.OPT_SERIALIZE_NUMPY)


def dump_array(array: Any) -> bytes:
    """An array, or a single value of one; in pieces where it is large."""
    if isinstance(array, np.ndarray) and array.size >= _LARGE and array.ndim:
        return dump_rows(array)
    return dump(array)


def dump_tokens(array: Any) -> bytes:
    """As `dump_array`, with `NaN`, `Infinity` and `-Infinity` for numbers that are not finite, which JSON has not."""
    text = dump_array(array)
    # A single string is bytes, and no value of NumPy's.
    if b"n" not in text or getattr(array, "dtype", STRING).kind not in "fc":
        return text
    # Each `null` stands for one of them, in the order in which they lie.
    numbers = np.ascontiguousarray(array).reshape(-1)
    numbers = numbers.view(numbers.real.dtype)
    tokens = [_TOKENS[str(number)] for number in numbers[~np.isfinite(numbers)].tolist()]
    parts = text.split(b"null")
    return b"".join(part for pair in zip(parts, [*tokens, b""], strict=True) for part in pair)


def dump_rows(array: Array) -> bytes:
    """A list of records, or of a single one's parts, in pieces; not of nothing."""
    rows = max(1, _PIECE * len(array) // array.size)
    texts = []
    for start in range(0, len(array), rows):
        texts.append(dump(array[start : start + rows])[1:-1])
        give_way()
    return b"[" + b",".join(texts) + b"]"


def _other(value: Any) -> Any:
    """What orjson asks for when it is given something that it cannot write as it lies in memory."""
    match value:
        case np.ndarray() if value.dtype.kind == "c":
            return np.ascontiguousarray(value).view(value.real.dtype).reshape(*value.shape, 2)
        case np.ndarray() if value.dtype.hasobject:
            return value.tolist()
        case np.ndarray():
            return np.ascontiguousarray(value) if value.ndim else value[()]
        case np.complexfloating():
            return [value.real, value.imag]
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return {"b64": base64.b64encode(value).decode()}
    raise TypeError
