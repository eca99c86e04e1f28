"""The fast road from parsed JSON to arrays: NumPy's own conversion, where that is known to be right."""

from collections.abc import Callable
from typing import Any

import numpy as np

from app.tensors import STRING, Array, Shape, TensorSpec, fits


def has_words(body: bytes) -> bool:
    """Whether true, false or null is anywhere in a body: NumPy takes true for 1 among numbers.

    Looking for one letter first is 30 times as fast as for the words.
    """
    return (b"l" in body or b"u" in body) and (b"true" in body or b"false" in body or b"null" in body)


def convert(value: Any, spec: TensorSpec, wanted: Shape) -> Array | None:
    """An array of `spec.dtype` whose shape `wanted` admits; None wherever the slow road must look.

    Args:
        value: what orjson gave: nested lists without a string in them, unless strings are wanted, since NumPy makes of
            numbers and a string as many strings of the length of the longest; and without `true` unless booleans or
            strings are wanted (`has_words`).
    """
    try:
        array = np.array(value, spec.dtype if spec.dtype == STRING else None)
    except (ValueError, TypeError):
        return None
    kind = spec.dtype.kind
    if not fits(array.shape, wanted if kind != "c" else (*wanted, 2)):
        return None
    return _CONVERTERS[kind](array, spec.dtype)


def _to_float(array: Array, dtype: np.dtype[Any]) -> Array | None:
    if array.dtype.kind not in "fiu":
        return None
    with np.errstate(over="ignore"):
        # By way of a double for integers too: 3 and 3.0 are the same number, whatever its size.
        result = array.astype(np.float64, copy=False).astype(dtype, copy=False)
    return result if np.isfinite(result).all() else None


def _to_complex(array: Array, dtype: np.dtype[Any]) -> Array | None:
    pairs = _to_float(array, np.dtype(f"f{dtype.itemsize // 2}"))
    return pairs.view(dtype)[..., 0] if pairs is not None else None


def _to_integer(array: Array, dtype: np.dtype[Any]) -> Array | None:
    if array.dtype.kind not in "iu":
        return None
    limits = np.iinfo(dtype)
    if array.min() < limits.min or array.max() > limits.max:
        return None
    return array.astype(dtype, copy=False)


def _to_boolean(array: Array, dtype: np.dtype[Any]) -> Array | None:
    # It is of another dtype as soon as one value is anything else.
    return array if array.dtype == dtype else None


def _to_strings(array: Array, dtype: np.dtype[Any]) -> Array | None:
    try:
        return np.array([text.encode() for text in array.ravel().tolist()], dtype).reshape(array.shape)
    except (AttributeError, UnicodeEncodeError):
        return None


_CONVERTERS: dict[str, Callable[[Array, np.dtype[Any]], Array | None]] = {
    "f": _to_float,
    "c": _to_complex,
    "i": _to_integer,
    "u": _to_integer,
    "b": _to_boolean,
    "O": _to_strings,
}
