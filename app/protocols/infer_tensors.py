"""The tensors of Open Inference: their types by name, which of them a model takes, and their bytes.

Bytes are little-endian and row-major without padding. A value of BOOL is one byte. BYTES is a length of four bytes and
as many bytes, again and again.

Source of the texts of errors: `src/infer_request.cc` of triton-inference-server/core.
"""

import math
import struct
from collections.abc import Iterable

import numpy as np

from app.errors import InvalidArgument
from app.protocols.call import SHOWN, Identity
from app.tensors import STRING, Array, Batching, Shape, Signature, TensorSpec, dtype_name, fits, show_shape

DATATYPES = {
    np.dtype(bool): "BOOL",
    **{np.dtype(f"int{bits}"): f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{np.dtype(f"uint{bits}"): f"UINT{bits}" for bits in (8, 16, 32, 64)},
    **{np.dtype(f"float{bits}"): f"FP{bits}" for bits in (16, 32, 64)},
    STRING: "BYTES",
}
"""What Open Inference calls a dtype. It has no complex numbers; BF16, which it has, no model here takes."""

_MOST_DIMENSIONS = 32

_LENGTH = struct.Struct("<I")

_BATCH_NOTE = " NOTE: the first dimension is the number of records, which each input's shape begins with."


class Takes:
    """Which tensors one signature of a model takes, and which it gives.

    Raises:
        InvalidArgument: Open Inference has no type for one of them.
    """

    def __init__(self, identity: Identity, signature: Signature) -> None:
        for spec in (*signature.inputs, *signature.outputs):
            if spec.dtype not in DATATYPES:
                raise InvalidArgument(
                    f"model {identity.model!r}: the tensor {spec.name!r} holds {dtype_name(spec.dtype)} numbers, for "
                    "which Open Inference has no datatype: use /predict"
                )
        self.model = identity.model
        self.version = identity.version
        self.inputs = signature.inputs
        self.outputs = signature.outputs
        self.whole = signature.batching is Batching.NONE
        """Whether there is no batch dimension: then a record is the whole tensor."""
        self._wanted = [signature.tensor_shape(spec) for spec in signature.inputs]
        self._inputs = {spec.name: index for index, spec in enumerate(signature.inputs)}
        self._outputs = {spec.name: index for index, spec in enumerate(signature.outputs)}

    def input(self, name: str, datatype: str, shape: Shape) -> int:
        """An input's place in the signature.

        Raises:
            InvalidArgument: there is none of that name, or it is not of that type or shape.
        """
        index = self._inputs.get(name)
        if index is None:
            raise InvalidArgument(
                f"unexpected inference input {name[:SHOWN]!r} for model {self.model!r}, whose inputs are "
                f"{_list(self._inputs)}"
            )
        expected = DATATYPES[self.inputs[index].dtype]
        if datatype != expected:
            raise InvalidArgument(
                f"inference input {name!r} data-type is {datatype[:SHOWN]!r}, but model {self.model!r} expects "
                f"{expected!r}"
            )
        # Where the model leaves a size free, none that is sent may be.
        if min(shape, default=0) < 0 or not fits(shape, self._wanted[index]):
            found = show_shape(shape)[:SHOWN] if len(shape) < _MOST_DIMENSIONS else f"{len(shape)} dimensions"
            raise InvalidArgument(
                f"unexpected shape for input {name!r} for model {self.model!r}. Expected "
                f"{show_shape(self._wanted[index])}, got {found}.{'' if self.whole else _BATCH_NOTE}"
            )
        return index

    def rows(self, found: dict[int, Shape]) -> int:
        """How many records inputs of these shapes hold, by their places.

        Raises:
            InvalidArgument: an input is missing, or they do not hold as many.
        """
        if len(found) != len(self.inputs):
            given = [self.inputs[index].name for index in found]
            missing = [spec.name for index, spec in enumerate(self.inputs) if index not in found]
            raise InvalidArgument(
                f"expected {len(self.inputs)} inputs but got {len(found)} inputs for model {self.model!r}. Got inputs "
                f"[{_list(given)}], but missing required inputs [{_list(missing)}]. Please provide all required inputs."
            )
        if self.whole:
            return 1
        rows = found[0][0]
        for index, shape in found.items():
            if shape[0] != rows:
                raise InvalidArgument(
                    f"input {self.inputs[index].name!r} batch size does not match other inputs for {self.model!r}: it "
                    f"is {shape[0]}, and that of input {self.inputs[0].name!r} is {rows}"
                )
        return rows

    def output(self, name: str) -> int:
        """An output's place in the signature.

        Raises:
            InvalidArgument: there is none of that name.
        """
        index = self._outputs.get(name)
        if index is None:
            raise InvalidArgument(
                f"unexpected inference output {name[:SHOWN]!r} for model {self.model!r}, whose outputs are "
                f"{_list(self._outputs)}"
            )
        return index

    def array(self, index: int, shape: Shape, data: bytes | memoryview, offset: int, size: int) -> Array:
        """The tensor of an input that lies in `data`: a view of it, but for BYTES.

        Args:
            size: bytes that it has, and that are there.

        Returns:
            `[rows, *record]`.

        Raises:
            InvalidArgument: they are not as many as its shape needs, or BYTES is damaged.
        """
        spec = self.inputs[index]
        if spec.dtype == STRING:
            array = strings(data, offset, size, math.prod(shape), self._named(spec)).reshape(shape)
        else:
            expected = math.prod(shape) * spec.dtype.itemsize
            if size != expected:
                raise InvalidArgument(
                    f"input byte size mismatch for {self._named(spec)}. Expected {expected}, got {size}"
                )
            array = view(data, offset, shape, spec.dtype)
        return array[np.newaxis] if self.whole else array

    def _named(self, spec: TensorSpec) -> str:
        return f"input {spec.name!r} for model {self.model!r}"


def view(data: bytes | memoryview, offset: int, shape: Shape, dtype: np.dtype[np.generic]) -> Array:
    """An array of numbers that lies in `data`, which has enough bytes."""
    array: Array = np.ndarray(shape, dtype, data, offset)
    if dtype.kind == "b":
        # A byte other than 0 and 1 is true, as in C; as a boolean of NumPy it would be neither.
        raw = array.view(np.uint8)
        if raw.max() > 1:
            array = np.not_equal(raw, 0)
    return array


def strings(data: bytes | memoryview, offset: int, size: int, count: int, what: str) -> Array:
    """The strings of BYTES.

    Args:
        count: how many there should be.
        what: whose they are, in messages.

    Raises:
        InvalidArgument: there are fewer or more, or the last is cut short.
    """
    end = offset + size
    if 4 * count > size:
        # Told before room is made for them: a shape costs its sender nothing.
        raise InvalidArgument(
            f"unexpected number of string elements for inference {what}: expecting {count}, whose lengths alone have "
            f"{4 * count} bytes, got {size} bytes"
        )
    found = np.empty(count, STRING)
    unpack = _LENGTH.unpack_from
    for index in range(count):
        if end - offset < 4:
            raise InvalidArgument(
                f"incomplete string length indicator for inference {what}: expecting 4 bytes but only {end - offset} "
                f"bytes available, for string {index} of {count}"
            )
        (length,) = unpack(data, offset)
        offset += 4
        if length > end - offset:
            raise InvalidArgument(
                f"incomplete string data for inference {what}: expecting string of length {length} but only "
                f"{end - offset} bytes available, for string {index} of {count}"
            )
        found[index] = bytes(data[offset : offset + length])
        offset += length
    if offset != end:
        raise InvalidArgument(
            f"unexpected number of string elements for inference {what}: expecting {count}, behind which "
            f"{end - offset} bytes are left"
        )
    return found


def blob(array: Array) -> bytes | memoryview:
    """A tensor's bytes: of numbers a view of the array, if that lies in one piece."""
    if array.dtype == STRING:
        flat = array.reshape(-1).tolist()
        return b"".join([piece for value in flat for piece in (_LENGTH.pack(len(value)), value)])
    if not array.size:
        return b""
    lies: memoryview = np.ascontiguousarray(array).data
    return lies.cast("B")


def _list(names: Iterable[str]) -> str:
    return ",".join(map(repr, names))
