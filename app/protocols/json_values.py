"""The slow, obviously right road from JSON text to arrays: it says exactly what is wrong and where.

Codecs come here only when their fast road declined a body, which is nearly always because the body is bad. Beyond
standard JSON this reads the tokens `NaN`, `Infinity` and `-Infinity`, as TensorFlow Serving does.
"""

import binascii
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.errors import InvalidArgument
from app.tensors import FREE, Array, Shape, TensorSpec, dtype_name, show_shape

_SHOWN = 40


class _TooLargeForDouble(str):
    """A number token beyond the range of a double, kept as its text so that its place can be named."""


def parse(body: bytes, where: str = "") -> Any:
    """Parse a JSON document.

    Args:
        where: what part of the body this is, if not the whole of it.

    Raises:
        InvalidArgument: saying where the text stops being JSON.
    """
    if not body.strip():
        raise InvalidArgument("the body is empty: expected a JSON object")
    try:
        return json.loads(body.decode("utf-8"), parse_float=_parse_float)
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"the body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}") from None
    except json.JSONDecodeError as error:
        place = where or f"at line {error.lineno} column {error.colno}"
        raise InvalidArgument(f"the body is not JSON: {error.msg} {place}, found {_near(error)}") from None
    except RecursionError:
        raise InvalidArgument("the body is nested too deeply to be a tensor") from None
    except ValueError:
        # The one thing that int() refuses among number tokens: thousands of digits.
        raise InvalidArgument("the body holds an integer with too many digits to be a number here") from None


def _parse_float(token: str) -> float | _TooLargeForDouble:
    value = float(token)
    return _TooLargeForDouble(token) if math.isinf(value) else value


def _near(error: json.JSONDecodeError) -> str:
    text = error.doc[error.pos : error.pos + 20]
    return repr(text) if text else "the end of the body"


def describe(value: Any) -> str:
    """Name a JSON value as a message does: its kind and a little of it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case _TooLargeForDouble():
            return f"the number {_cut(value)}"
        case str():
            return f"the string {_cut(json.dumps(value))}"
        case int() | float():
            return f"the number {_cut(json.dumps(value))}"
        case list():
            return f"a list of {len(value)}"
        case _:
            keys = _cut(", ".join(map(json.dumps, value)))
            return f"an object with the key{'s' * (len(value) > 1)} {keys}" if keys else "an object without keys"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def tensor(value: Any, spec: TensorSpec, wanted: Shape, where: str, first: int = 0) -> Array:
    """Turn nested lists into an array of `spec.dtype` whose shape `wanted` admits.

    Args:
        value: what `parse` gave.
        spec: the input's name and dtype.
        wanted: the shape, with -1 where the first list met at that depth decides.
        where: what `value` is called in messages, for example `instances[3]`.
        first: the index by which messages call the first item of `value`.

    Raises:
        InvalidArgument: at the first value, in reading order, that does not fit.
    """
    sizes = list(wanted)
    flat: list[Any] = []

    def walk(part: Any, depth: int, place: str) -> None:
        if depth == len(sizes):
            flat.append(scalar(part, spec, place))
            return
        if type(part) is not list:
            raise InvalidArgument(
                f"{place}: expected {_expected(spec, sizes[depth:])} for input {spec.name!r}, found {describe(part)}"
            )
        if sizes[depth] == FREE and part:
            sizes[depth] = len(part)
        elif len(part) != sizes[depth]:
            like = ", as in the first list at this depth," if wanted[depth] == FREE and sizes[depth] != FREE else ""
            raise wrong_size(spec, sizes[depth:], place, len(part), like)
        for index, item in enumerate(part):
            walk(item, depth + 1, f"{place}[{index if depth else first + index}]")

    walk(value, 0, where)
    return np.array(flat, dtype=spec.dtype).reshape(sizes)


def wrong_size(spec: TensorSpec, sizes: Sequence[int], place: str, found: int, like: str = "") -> InvalidArgument:
    """The error for a list at `place` that has `found` items, where lists of `sizes` were wanted."""
    return InvalidArgument(
        f"{place}: expected {_expected(spec, list(sizes))}{like} for input {spec.name!r}, "
        f"found {f'a list of {found}' if found else 'an empty list'}"
    )


def _expected(spec: TensorSpec, sizes: list[int]) -> str:
    values = f"{dtype_name(spec.dtype)} values"
    if len(sizes) == 1:
        return f"a list of {values}" if sizes[0] == FREE else f"a list of {sizes[0]} {values}"
    return f"lists of {values} of shape {show_shape(tuple(sizes))}"


def scalar(value: Any, spec: TensorSpec, place: str) -> Any:
    """One value of a tensor, as NumPy takes it.

    Args:
        place: what it is called in messages.

    Raises:
        InvalidArgument: it is not of `spec.dtype`.
    """
    match spec.dtype.kind:
        case "f":
            return _float(value, spec, place)
        case "c":
            return _complex(value, spec, place)
        case "O":
            return _string(value, spec, place)
        case "b":
            if type(value) is bool:
                return value
        case _:
            if type(value) is int:
                return _integer(value, spec, place)
    raise _wrong_kind(value, spec, place)


def _wrong_kind(value: Any, spec: TensorSpec, place: str) -> InvalidArgument:
    match spec.dtype.kind:
        case "f":
            wanted = f"{spec.dtype.name} number"
        case "c":
            wanted = f"{spec.dtype.name} number as [real, imaginary], both numbers,"
        case "O":
            wanted = 'string, or {"b64": base64 of its bytes},'
        case "b":
            wanted = "value true or false"
        case _:
            wanted = f"{spec.dtype.name} integer"
    return InvalidArgument(f"{place}: expected one {wanted} for input {spec.name!r}, found {describe(value)}")


def _float(value: Any, spec: TensorSpec, place: str) -> Any:
    """A number in `spec.dtype`; for complex ones, in the dtype of their parts."""
    if type(value) not in (int, float, _TooLargeForDouble):
        raise _wrong_kind(value, spec, place)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    with np.errstate(over="ignore"):
        rounded = spec.dtype.type(number).real
    if np.isinf(rounded) and not (type(value) is float and math.isinf(value)):
        raise InvalidArgument(
            f"{place}: {describe(value)} is beyond {spec.dtype.name}, whose largest is {np.finfo(spec.dtype).max}, "
            f"for input {spec.name!r}"
        )
    return rounded


def _complex(value: Any, spec: TensorSpec, place: str) -> Any:
    if type(value) is not list or len(value) != 2:
        raise _wrong_kind(value, spec, place)
    real, imaginary = (_float(part, spec, f"{place}[{index}]") for index, part in enumerate(value))
    return complex(real, imaginary)


def _integer(value: int, spec: TensorSpec, place: str) -> int:
    limits = np.iinfo(spec.dtype)
    if not limits.min <= value <= limits.max:
        raise InvalidArgument(
            f"{place}: {describe(value)} is out of range for {spec.dtype.name}, {limits.min} to {limits.max}, "
            f"for input {spec.name!r}"
        )
    return value


def _string(value: Any, spec: TensorSpec, place: str) -> bytes:
    if type(value) is str:
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"{place}: character {error.start} of the string is half of a surrogate pair, which UTF-8 does not "
                f'have, for input {spec.name!r}; send bytes as {{"b64": base64}}'
            ) from None
    if type(value) is not dict or value.keys() != {"b64"}:
        raise _wrong_kind(value, spec, place)
    text = value["b64"]
    try:
        if type(text) is str:
            return base64_bytes(text)
    except ValueError:
        pass
    raise InvalidArgument(
        f"{place}.b64: expected base64 (RFC 4648, section 4) for input {spec.name!r}, found {describe(text)}"
    )


def base64_bytes(text: str) -> bytes:
    """What base64 stands for; with its padding or, as TensorFlow Serving has it, without, and in one line or in many.

    Raises:
        ValueError: it is no base64.
    """
    try:
        return _one_line(text)
    except ValueError:
        # What breaks lines breaks them after 64 or 76 characters, with or without a last one at the end.
        if text.isascii() and text != (joined := "".join(text.split())):
            return _one_line(joined)
        raise


def _one_line(text: str) -> bytes:
    padding = "" if text.endswith("=") else "=" * (-len(text) % 4)
    return binascii.a2b_base64(text + padding, strict_mode=True)
