"""`InferTensorContents`: the values of a tensor in a gRPC message of Open Inference, by their type."""

import math
from typing import Any, NamedTuple

import numpy as np

from app.errors import InvalidArgument
from app.protocols import protobuf
from app.protocols.infer_tensors import DATATYPES
from app.protocols.protobuf import FIXED32, FIXED64, LENGTH, VARINT
from app.tensors import STRING, Array, Shape, TensorSpec


class Contents(NamedTuple):
    """Where values of a dtype are among `InferTensorContents`.

    Args:
        number: the field's.
        kind: its wire type where it is not packed.
        dtype: of the field's numbers, little-endian.
    """

    number: int
    kind: int
    dtype: "np.dtype[Any]"


_CONTENTS = {
    "b": Contents(1, VARINT, np.dtype(bool)),
    "i": Contents(2, VARINT, np.dtype(np.int32)),
    "i8": Contents(3, VARINT, np.dtype(np.int64)),
    "u": Contents(4, VARINT, np.dtype(np.uint32)),
    "u8": Contents(5, VARINT, np.dtype(np.uint64)),
    "f4": Contents(6, FIXED32, np.dtype("<f4")),
    "f8": Contents(7, FIXED64, np.dtype("<f8")),
    "O": Contents(8, LENGTH, STRING),
}
"""By a dtype's kind and, where that decides, its bytes."""


def typed(view: memoryview, spec: TensorSpec, shape: Shape) -> Array:
    """The values of `InferTensorContents`.

    Raises:
        InvalidArgument: they are of another type than the input, out of its range, or not as many as the shape says.
    """
    kind = spec.dtype.kind
    wanted = _CONTENTS.get(f"{kind}{spec.dtype.itemsize}") or _CONTENTS.get(kind)
    if wanted is None:
        raise InvalidArgument(
            f"input {spec.name!r}: FP16 has no typed contents: expected its bytes in raw_input_contents"
        )
    found: list[Any] = []
    for number, wire, value in protobuf.fields(view, f"the contents of input {spec.name!r}"):
        if number == wanted.number and wire in (LENGTH, wanted.kind):
            found.append(value)
        elif number <= 8:
            raise InvalidArgument(
                f"unexpected contents of input {spec.name!r}: {DATATYPES[spec.dtype]} values are in field "
                f"{wanted.number} of InferTensorContents, found field {number}"
            )
    array = _values(found, wanted, spec)
    if array.size != math.prod(shape):
        raise InvalidArgument(
            f"input {spec.name!r} got unexpected number of elements {array.size}, expecting {math.prod(shape)}"
        )
    return array.reshape(shape)


def _values(found: list[Any], wanted: Contents, spec: TensorSpec) -> Array:
    place = f"the contents of input {spec.name!r}"
    if wanted.kind == LENGTH:
        strings = np.empty(len(found), STRING)
        for index, value in enumerate(found):
            strings[index] = bytes(value)
        return strings
    if not found:
        return np.empty(0, spec.dtype)
    if wanted.kind != VARINT:
        return protobuf.fixed(found, wanted.dtype, place)
    array = protobuf.varints(found, wanted.dtype, place)
    if array.dtype == spec.dtype:
        return array
    limits = np.iinfo(spec.dtype)
    if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
        raise InvalidArgument(
            f"input {spec.name!r}: {DATATYPES[spec.dtype]} values are from {limits.min} to {limits.max}, found values "
            f"from {array.min()} to {array.max()}"
        )
    return array.astype(spec.dtype)
