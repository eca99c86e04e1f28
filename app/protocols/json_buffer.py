"""The fastest road from a JSON body to an array: one model input, numbers only, by simdjson into a flat buffer."""

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import simdjson

from app.protocols.call import Form
from app.protocols.json_shape import Skeleton
from app.tensors import FREE, Array, Shape, TensorSpec

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""simdjson passes over it; it is no JSON."""

_KEPT = 3 << 16
"""A parser keeps buffers of several times the largest body that it has seen; larger bodies get one of their own."""

_DOT = 8192
"""Up to this many numbers one dot product bounds them faster than their extremes do; BLAS uses threads for more."""

_LARGEST_RECORD = 1 << 25
"""Numbers in a record above which another road reads it: what is compared with its brackets would fill memory."""

_SAFE = 3.4e38
_SAFE_SQUARES = 1e77
"""A float64 that is below the first, or whose square is below the second, is within float32's range."""


Narrow = Callable[[Array], Array | None]
"""To a smaller dtype; None when a number does not fit."""

Plan = tuple[Form, str, Shape, int, Skeleton | None]
"""What a key means: its form, itself, the shape that is wanted, the size of a flat list (-1 for any, 0 for one that is
not flat), and the skeleton of an item where that is fixed."""


def _plan(form: Form, shape: Shape) -> Plan:
    fixed = len(shape) > 1 and min(shape[1:]) > 0 and math.prod(shape[1:]) <= _LARGEST_RECORD
    return form, form.value, shape, shape[0] if len(shape) == 1 else 0, Skeleton(shape[1:]) if fixed else None


class _Local(threading.local):
    def __init__(self) -> None:
        self.parser: Any = simdjson.Parser()


class BufferReader:
    """Reads bodies `{KEY: nested lists of numbers}` for one input; built once, any thread may use it.

    Args:
        wanted: for each form the shape, with -1 for free dimensions.
    """

    def __init__(self, spec: TensorSpec, wanted: dict[Form, Shape]) -> None:
        self._kind: Any = {"f": "d", "i": "i", "u": "i"}.get(spec.dtype.kind)
        if spec.dtype == np.uint64:
            self._kind = "u"
        if spec.dtype == np.float16:
            self._kind = None
        self._wide = {"d": np.float64, "i": np.int64, "u": np.uint64}.get(self._kind)
        self._narrow = _narrowing(spec.dtype)
        self._plans: dict[bytes, Plan] = {}
        if self._kind is not None:
            self._plans = {form.value.encode(): _plan(form, shape) for form, shape in wanted.items()}
        self.fixed = _plan(Form.INSTANCES, wanted[Form.INSTANCES])[4] is not None
        """Whether a record's shape has no free dimension, and there is more to it than one number."""
        self._local = _Local()

    def read(self, body: bytes) -> tuple[Form, Array] | None:
        """The form and the array, of a shape that is wanted; None wherever another road must look."""
        find = body.find
        start = find(b'"') + 1
        end = find(b'"', start)
        plan = self._plans.get(body[start:end])
        # One key and no string more: then every bracket and comma in the text is one of the lists'.
        if plan is None or find(b'"', end + 1) >= 0 or body.startswith(_BYTE_ORDER_MARK):
            return None
        form, key, wanted, size, skeleton = plan
        if skeleton is not None:
            if len(wanted) == 2 and _is_lone_row(body, end):
                # One record is what most requests have.
                numbers = self._numbers(body, key)
                if numbers is None or len(numbers) != wanted[1] or wanted[0] > 1:
                    return None
                return form, numbers.reshape(1, -1)
            numbers = self._numbers(body, key)
            return None if numbers is None else self._shaped(body, form, wanted, skeleton, numbers)
        if not size or find(b"[", find(b"[", end) + 1) >= 0:
            return None
        numbers = self._numbers(body, key)
        if numbers is None or (len(numbers) != size if size > 0 else not len(numbers)):
            return None
        return form, numbers

    def read_list(self, text: bytes, form: Form) -> Array | None:
        """The records of a list of them, without a key around it; None wherever another road must look."""
        plan = self._plans.get(form.value.encode())
        if plan is None or plan[4] is None:
            return None
        numbers = self._numbers(text, None)
        if numbers is None:
            return None
        shaped = self._shaped(text, form, (FREE, *plan[2][1:]), plan[4], numbers)
        return shaped[1] if shaped is not None else None

    def numbers(self, text: bytes) -> Array | None:
        """The numbers of a list one after another, however they are nested; None wherever another road must look."""
        return self._numbers(text, None)

    def _numbers(self, body: bytes, key: str | None) -> Array | None:
        parser = self._local.parser if len(body) < _KEPT else simdjson.Parser()
        try:
            document: Any = parser.parse(body)
            value = document if key is None else document[key]
            numbers: Array = np.frombuffer(value.as_buffer(of_type=self._kind), self._wide)
        except (ValueError, TypeError, RuntimeError, AttributeError):
            # Not JSON, not numbers only, an integer of more than 64 bits, no list, or no object at all.
            return None
        return numbers if self._narrow is None else self._narrow(numbers)

    def _shaped(
        self, body: bytes, form: Form, wanted: Shape, skeleton: Skeleton, numbers: Array
    ) -> tuple[Form, Array] | None:
        rows, rest = divmod(len(numbers), skeleton.count)
        if rest or not rows or wanted[0] not in (FREE, rows) or not skeleton.fits(body, rows):
            return None
        return form, numbers.reshape(rows, *wanted[1:])


def _is_lone_row(body: bytes, start: int) -> bool:
    """Whether a body, if it is JSON with no string behind `start`, ends in a list of one list of scalars."""
    outer = body.find(b"[", start)
    inner = body.find(b"[", outer + 1)
    if inner < 0 or body.find(b"[", inner + 1) >= 0:
        return False
    rest = body[body.find(b"]", inner) + 1 :]
    return not body[outer + 1 : inner].strip() and (rest == b"]}" or b"".join(rest.split()) == b"]}")


def _narrowing(dtype: np.dtype[Any]) -> Narrow | None:
    """From simdjson's type for numbers of this kind to `dtype`; None when they are of one size."""
    if dtype == np.float32:
        return _to_float32
    if dtype.kind not in "iu" or dtype.itemsize == 8:
        return None
    limits = np.iinfo(dtype)

    def narrow(numbers: Array) -> Array | None:
        if len(numbers) and not (limits.min <= numbers.min() and numbers.max() <= limits.max):
            return None
        return numbers.astype(dtype)

    return narrow


def _to_float32(numbers: Array) -> Array | None:
    if len(numbers) <= _DOT:
        # Unlike `dot` this says nothing of squares that overflow.
        if not np.vdot(numbers, numbers) < _SAFE_SQUARES:
            return None
    elif not (numbers.max() < _SAFE and numbers.min() > -_SAFE):
        return None
    return numbers.astype(np.float32)
