"""The fastest road from a JSON body to an array: one model input, numbers only, by simdjson into a flat buffer."""

import math
import threading
from typing import Any

import numpy as np
import simdjson

from app.protocols.call import Form
from app.protocols.json_shape import Skeleton
from app.tensors import FREE, Array, Shape, TensorSpec

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""simdjson passes over it; it is no JSON."""

_SMALL = 2048
"""Below this size of a body, nested lists are read faster by orjson and NumPy."""

_KEPT = 3 << 16
"""A parser keeps buffers of several times the largest body that it has seen; larger bodies get one of their own."""

_DOT = 8192
"""Up to this many numbers one dot product bounds them faster than their extremes do; BLAS uses threads for more."""

_SAFE = 3.4e38
_SAFE_SQUARES = 1e77
"""A float64 that is below the first, or whose square is below the second, is within float32's range."""


Plan = tuple[Form, str, Shape, Skeleton | None]
"""What a key means: its form, itself, the shape that is wanted, and the skeleton of an item where that is fixed."""


def _plan(form: Form, shape: Shape) -> Plan:
    fixed = len(shape) > 1 and min(shape[1:]) > 0
    return form, form.value, shape, Skeleton(shape[1:]) if fixed else None


class _Local(threading.local):
    def __init__(self) -> None:
        self.parser: Any = simdjson.Parser()


class BufferReader:
    """Reads bodies `{KEY: nested lists of numbers}` for one input; built once, any thread may use it.

    Args:
        wanted: for each form the shape, with -1 for free dimensions.
    """

    def __init__(self, spec: TensorSpec, wanted: dict[Form, Shape]) -> None:
        self._dtype = spec.dtype
        self._kind: Any = {"f": "d", "i": "i", "u": "i"}.get(spec.dtype.kind)
        if spec.dtype == np.uint64:
            self._kind = "u"
        self._narrow = spec.dtype in (np.float32, np.float16)
        self._limits = np.iinfo(spec.dtype) if spec.dtype.kind in "iu" and spec.dtype.itemsize < 8 else None
        self._plans: dict[bytes, Plan] = {}
        if self._kind is not None:
            self._plans = {form.value.encode(): _plan(form, shape) for form, shape in wanted.items()}
        self.fixed = self._kind is not None and _plan(Form.INSTANCES, wanted[Form.INSTANCES])[3] is not None
        """Whether a record's shape has no free dimension, and there is more to it than one number."""
        self._local = _Local()

    def read(self, body: bytes) -> tuple[Form, Array] | None:
        """The form and the array, of a shape that is wanted; None wherever another road must look."""
        start = body.find(b'"') + 1
        end = body.find(b'"', start)
        plan = self._plans.get(body[start:end])
        # One key and no string more: then every bracket and comma in the text is one of the lists'.
        if plan is None or body.find(b'"', end + 1) >= 0 or body.startswith(_BYTE_ORDER_MARK):
            return None
        form, key, wanted, skeleton = plan
        if skeleton is not None:
            numbers = self._numbers(body, key) if len(body) >= _SMALL else None
            return None if numbers is None else self._shaped(body, form, wanted, skeleton, numbers)
        if len(wanted) != 1 or body.find(b"[", body.find(b"[", end) + 1) >= 0:
            return None
        numbers = self._numbers(body, key)
        if numbers is None or not len(numbers) or wanted[0] not in (FREE, len(numbers)):
            return None
        return form, numbers

    def read_list(self, text: bytes, form: Form) -> Array | None:
        """The records of a list of them, without a key around it; None wherever another road must look."""
        plan = self._plans.get(form.value.encode())
        if plan is None or plan[3] is None:
            return None
        numbers = self._numbers(text, None)
        if numbers is None:
            return None
        shaped = self._shaped(text, form, (FREE, *plan[2][1:]), plan[3], numbers)
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

    def _shaped(
        self, body: bytes, form: Form, wanted: Shape, skeleton: Skeleton, numbers: Array
    ) -> tuple[Form, Array] | None:
        rows, rest = divmod(len(numbers), math.prod(wanted[1:]))
        if rest or not rows or wanted[0] not in (FREE, rows) or not skeleton.repeated(rows).fits(body):
            return None
        return form, numbers.reshape(rows, *wanted[1:])


def _fits_float32(numbers: Array) -> bool:
    if len(numbers) <= _DOT:
        return bool(np.dot(numbers, numbers) < _SAFE_SQUARES)
    return bool(numbers.max() < _SAFE and numbers.min() > -_SAFE)
