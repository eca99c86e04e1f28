"""The fastest road from a JSON body to an array: one model input, numbers only, by simdjson into a flat buffer."""

import math
import threading
from typing import Any

import numpy as np
import simdjson

from app.protocols.call import Form
from app.protocols.json_shape import Skeleton
from app.tensors import FREE, Array, Shape, TensorSpec

_KEYS = {form.value.encode(): form for form in Form}

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""simdjson passes over it; it is no JSON."""

_SMALL = 2048
"""Below this size of a body, nested lists are read faster by orjson and NumPy."""

_KEPT = 1 << 20
"""A parser keeps buffers of several times the largest body that it has seen; larger bodies get one of their own."""

_DOT = 8192
"""Up to this many numbers one dot product bounds them faster than their extremes do; BLAS uses threads for more."""

_SAFE = 3.4e38
_SAFE_SQUARES = 1e77
"""A float64 that is below the first, or whose square is below the second, is within float32's range."""


class _Local(threading.local):
    def __init__(self) -> None:
        self.parser: Any = simdjson.Parser()


class BufferReader:
    """Reads bodies `{KEY: nested lists of numbers}` for one input; built once, any thread may use it.

    Args:
        wanted: for each form the shape, with -1 for free dimensions.
    """

    def __init__(self, spec: TensorSpec, wanted: dict[Form, Shape]) -> None:
        self._wanted = wanted
        self._dtype = spec.dtype
        self._kind: Any = {"f": "d", "i": "i", "u": "i"}.get(spec.dtype.kind)
        if spec.dtype == np.uint64:
            self._kind = "u"
        self._narrow = spec.dtype in (np.float32, np.float16)
        self._limits = np.iinfo(spec.dtype) if spec.dtype.kind in "iu" and spec.dtype.itemsize < 8 else None
        self._skeletons = {
            form: Skeleton(shape[1:]) for form, shape in wanted.items() if len(shape) > 1 and min(shape[1:]) > 0
        }
        self.fixed = Form.INSTANCES in self._skeletons
        """Whether a record's shape has no free dimension, and there is more to it than one number."""
        self._local = _Local()

    def read(self, body: bytes) -> tuple[Form, Array] | None:
        """The form and the array, of a shape that is wanted; None wherever another road must look."""
        if self._kind is None or body.count(b'"') != 2 or body.startswith(_BYTE_ORDER_MARK):
            return None
        start = body.find(b'"') + 1
        key = body[start : body.find(b'"', start)]
        form = _KEYS.get(key)
        if form is None:
            return None
        wanted = self._wanted[form]
        flat = len(wanted) == 1
        if flat:
            if body.count(b"[") != 1:
                return None
        elif len(body) < _SMALL or form not in self._skeletons:
            return None
        numbers = self._numbers(body, form.value)
        if numbers is None:
            return None
        if flat:
            return (form, numbers) if wanted[0] in (FREE, len(numbers)) and len(numbers) else None
        return self._shaped(body, form, wanted, numbers)

    def read_list(self, text: bytes, form: Form) -> Array | None:
        """The records of a list of them, without a key around it; None wherever another road must look."""
        numbers = self._numbers(text, None) if self._kind is not None and form in self._skeletons else None
        if numbers is None:
            return None
        shaped = self._shaped(text, form, (FREE, *self._wanted[form][1:]), numbers)
        return shaped[1] if shaped is not None else None

    def _numbers(self, body: bytes, key: str | None) -> Array | None:
        parser = self._local.parser if len(body) < _KEPT else simdjson.Parser()
        try:
            document: Any = parser.parse(body)
            value = document if key is None else document[key]
            numbers: Array = np.frombuffer(
                value.as_buffer(of_type=self._kind),
                np.float64 if self._kind == "d" else np.int64 if self._kind == "i" else np.uint64,
            )
        except (ValueError, TypeError, RuntimeError, AttributeError):
            # Not JSON, not numbers only, an integer of more than 64 bits, no list, or no object at all.
            return None
        if self._narrow:
            if self._dtype != np.float32 or not _fits_float32(numbers):
                return None
            return numbers.astype(np.float32)
        if self._limits is not None:
            if len(numbers) and not (self._limits.min <= numbers.min() and numbers.max() <= self._limits.max):
                return None
            return numbers.astype(self._dtype)
        return numbers

    def _shaped(self, body: bytes, form: Form, wanted: Shape, numbers: Array) -> tuple[Form, Array] | None:
        inner = math.prod(wanted[1:])
        rows, rest = divmod(len(numbers), inner)
        if rest or not rows or wanted[0] not in (FREE, rows):
            return None
        if not self._skeletons[form].repeated(rows).fits(body):
            return None
        return form, numbers.reshape(rows, *wanted[1:])


def _fits_float32(numbers: Array) -> bool:
    if len(numbers) <= _DOT:
        return bool(np.dot(numbers, numbers) < _SAFE_SQUARES)
    return bool(numbers.max() < _SAFE and numbers.min() > -_SAFE)
