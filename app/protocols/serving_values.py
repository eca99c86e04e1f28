"""The exact road from a TensorFlow Serving JSON request to arrays, with that server's own words for what is wrong.

A tensor's shape is what the first item at each depth says, and all others must agree; whether the model takes such a
shape is another question, which is asked afterwards.

Source of the rules and of the texts: `util/json_tensor.cc` of tensorflow/serving. Where it takes what it cannot mean
(300 for uint8) or refuses what it could take (float16, complex numbers), this is like `/predict`.
"""

import json
import math
import sys
from typing import Any

import numpy as np

from app.errors import InvalidArgument
from app.protocols import json_values
from app.protocols.call import SHOWN
from app.tensors import Array, TensorSpec, dtype_name

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = " \t\n\r"

_MOST_DIMENSIONS = 32

_TOO_BIG = "JSON Parse error: Number too big to be stored in double"

_TYPES = {"float16": "half", "float32": "float", "float64": "double"}
"""TensorFlow's names where NumPy has others."""


def type_name(spec: TensorSpec) -> str:
    """TensorFlow's name for a tensor's dtype, as `DataTypeString` has it."""
    name = dtype_name(spec.dtype)
    return _TYPES.get(name, name)


def parse(body: bytes) -> dict[str, Any]:
    """The object that a body begins with; what comes behind it is not looked at.

    Raises:
        InvalidArgument: saying where the text stops being JSON, or that it is no object.
    """
    document, _ = _load(body.removeprefix(_BYTE_ORDER_MARK), "")
    if type(document) is not dict:
        raise InvalidArgument(f"JSON Value: {show(document)} Is not object")
    return document


def parse_list(text: bytes, where: str) -> list[Any] | None:
    """The list that a part of a body is; None if there is nothing in it, or it is more than a list.

    Args:
        where: what part it is.

    Raises:
        InvalidArgument: it is no JSON.
    """
    value, rest = _load(text, where)
    return value if type(value) is list and value and not rest else None


def _load(body: bytes, where: str) -> tuple[Any, str]:
    """The JSON value that a text begins with, and what comes behind it."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        reason = f"Invalid encoding in string, byte 0x{body[error.start]:02x}"
        raise _no_json(reason, where or f"at offset: {error.start}") from None
    start = len(text) - len(text.lstrip(_SPACE))
    if start == len(text):
        raise InvalidArgument("JSON Parse error: The document is empty")
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        found = repr(text[error.pos : error.pos + 20]) if error.pos < len(text) else "the end of the body"
        place = where or f"at offset: {len(text[: error.pos].encode())}"
        raise _no_json(f"{error.msg}, found {found}", place) from None
    except RecursionError:
        raise InvalidArgument("JSON Parse error: the document is nested too deeply to be tensors") from None
    except OverflowError as error:
        raise InvalidArgument(f"{_TOO_BIG}, found {error.args[0][:SHOWN]}") from None
    except ValueError:
        # As int() says of thousands of digits.
        raise InvalidArgument(
            f"{_TOO_BIG}, found an integer of more than {sys.get_int_max_str_digits()} digits"
        ) from None
    return value, text[end:]


def _float(token: str) -> float:
    value = float(token)
    if math.isinf(value):
        raise OverflowError(token)
    return value


_DECODER = json.JSONDecoder(parse_float=_float)


def _no_json(reason: str, place: str) -> InvalidArgument:
    return InvalidArgument(f"JSON Parse error: {reason} {place}")


def show(value: Any) -> str:
    """A JSON value in a message: of a small one its text, of a list or an object what it is."""
    if isinstance(value, (list, dict)):
        return json_values.describe(value)
    if isinstance(value, str):
        value = value[:SHOWN]
    elif isinstance(value, int) and value.bit_length() > 256:
        return "an integer with too many digits"
    return json.dumps(value)


def kind_of(value: Any) -> str:
    """The kind of a JSON value, as the original calls it."""
    match value:
        case None:
            return "Null"
        case bool():
            return str(value)
        case str():
            return "String"
        case int() | float():
            return "Number"
        case list():
            return "Array"
        case _:
            return "Object"


def is_base64(value: Any) -> bool:
    """Whether it is `{"b64": "..."}` and nothing else, which stands for a string."""
    return type(value) is dict and value.keys() == {"b64"} and type(value["b64"]) is str


def is_named(value: Any) -> bool:
    """Whether it is an object of inputs by name."""
    return type(value) is dict and not is_base64(value)


def tensor(value: Any, spec: TensorSpec, place: str) -> Array:
    """Nested lists, or a single value, as an array of `spec.dtype`.

    Args:
        place: what `value` is called in messages.

    Raises:
        InvalidArgument: at the first value, in reading order, that does not fit.
    """
    shape = _shape_of(value)
    pairs = spec.dtype.kind == "c"
    leaf = spec if not pairs else TensorSpec(spec.name, np.dtype(f"f{spec.dtype.itemsize // 2}"), ())
    if len(shape) > _MOST_DIMENSIONS:
        raise InvalidArgument(f"Encountered list at unexpected level: {_MOST_DIMENSIONS}, in {place}")
    if pairs and (not shape or shape[-1] != 2):
        raise InvalidArgument(
            f"JSON Value: {show(value)} is not of expected type: {type_name(spec)} ({place}: expected numbers as "
            f"[real, imaginary] for input {spec.name!r})"
        )
    flat: list[Any] = []

    def walk(part: Any, level: int, place: str) -> None:
        if type(part) is not list:
            if level != len(shape):
                raise InvalidArgument(
                    f"JSON Value: {show(part)} found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {len(shape)} ({place}, for input {spec.name!r})"
                )
            flat.append(_scalar(part, leaf, place))
            return
        if level >= len(shape):
            raise InvalidArgument(
                f"Encountered list at unexpected level: {level} expected < {len(shape)} "
                f"({place}, for input {spec.name!r})"
            )
        if len(part) != shape[level]:
            raise InvalidArgument(
                f"Encountered list at unexpected size: {len(part)} at level: {level} expected size: {shape[level]} "
                f"({place}, for input {spec.name!r})"
            )
        for index, item in enumerate(part):
            walk(item, level + 1, f"{place}[{index}]")

    walk(value, 0, place)
    if spec.dtype.kind not in "fc":
        return np.array(flat, spec.dtype).reshape(shape)
    with np.errstate(over="ignore"):
        numbers: Array = np.array(flat, np.float64).astype(leaf.dtype).reshape(shape)
    return numbers.view(spec.dtype)[..., 0] if pairs else numbers


def _shape_of(value: Any) -> list[int]:
    shape = []
    while type(value) is list:
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _scalar(value: Any, spec: TensorSpec, place: str) -> Any:
    if spec.dtype.kind == "f" and type(value) in (int, float):
        try:
            # What is beyond float32 becomes infinite, as there.
            return float(value)
        except OverflowError:
            raise InvalidArgument(f"{_TOO_BIG} ({place}, for input {spec.name!r})") from None
    try:
        return json_values.scalar(value, spec, place)
    except InvalidArgument as error:
        if spec.dtype.kind == "O" and is_base64(value):
            raise InvalidArgument(f"Unable to base64 decode ({error.message})") from None
        if spec.dtype.kind == "O" and type(value) is dict:
            raise InvalidArgument(
                f"JSON Value: {show(value)} not formatted correctly for base64 data ({error.message})"
            ) from None
        raise InvalidArgument(
            f"JSON Value: {show(value)} Type: {kind_of(value)} is not of expected type: {type_name(spec)} "
            f"({error.message})"
        ) from None
