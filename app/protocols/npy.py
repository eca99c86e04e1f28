"""One tensor as a NumPy `.npy` file, in and out: the format of `numpy.save`, without pickles.

Format: the "NPY format" page of NumPy's documentation, versions 1.0 to 3.0.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.lib import format as npy_format

from app.errors import InvalidArgument, UnsupportedFormat
from app.protocols.call import Call, Form
from app.tensors import STRING, Array, Batching, Shape, Signature, TensorSpec, fits, show_shape

MEDIA_TYPE = "application/x-npy"

_MOST_DIMENSIONS = 32

_HEADER_READERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


class Npy:
    """Decodes and encodes for one signature. Pure: any thread may use it."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._spec = signature.inputs[0]
        self._record = signature.record_shape(self._spec)
        self._tensor = signature.tensor_shape(self._spec)

    def decode(self, body: bytes) -> Call:
        """Read a tensor: a batch of records, or one record, told apart by the rank.

        A body that is little-endian, in C order and of the input's own dtype is not copied.

        Raises:
            UnsupportedFormat: the model has several inputs, or takes strings.
            InvalidArgument: not an .npy file, of another length than its header says, or of a wrong dtype or shape.
        """
        if len(self._signature.inputs) != 1:
            names = ", ".join(repr(spec.name) for spec in self._signature.inputs)
            raise UnsupportedFormat(f"an .npy body holds one tensor, and the model has the inputs {names}: send JSON")
        if self._spec.dtype == STRING:
            raise UnsupportedFormat(f"an .npy body holds numbers, and the input {self._spec.name!r} strings: send JSON")
        array = convert(read(body), self._spec)
        batched = self._signature.batching is not Batching.NONE
        if fits(array.shape, self._record):
            return Call((array[np.newaxis],), 1, Form.INSTANCE if batched else Form.INPUTS)
        if batched and fits(array.shape, self._tensor):
            return Call((array,), array.shape[0], Form.INSTANCES)
        wanted = show_shape(self._record)
        if batched:
            wanted = f"{show_shape(self._tensor)} (a batch) or {wanted} (one record)"
        raise InvalidArgument(
            f"the body: expected an array of shape {wanted} for input {self._spec.name!r}, "
            f"found {show_shape(array.shape)}"
        )

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes:
        """Write the answer: `[rows, *record]`, or the record alone where one was sent.

        Raises:
            UnsupportedFormat: the model has several outputs, or answers strings.
        """
        self.check_encodes()
        whole = call.form is Form.INPUTS and self._signature.batching is Batching.NONE
        return write(outputs[0][0] if whole or call.form is Form.INSTANCE else outputs[0])

    def check_encodes(self) -> None:
        """Refuse a model with several outputs, or one of strings, before anything is run.

        Raises:
            UnsupportedFormat: naming them.
        """
        if len(self._signature.outputs) != 1:
            names = ", ".join(repr(spec.name) for spec in self._signature.outputs)
            raise UnsupportedFormat(
                f"an .npy answer holds one tensor, and the model has the outputs {names}: accept JSON"
            )
        (output,) = self._signature.outputs
        if output.dtype == STRING:
            raise UnsupportedFormat(
                f"an .npy answer holds numbers, and the output {output.name!r} strings: accept JSON"
            )


def read(body: bytes) -> Array:
    """Read an `.npy` file as a view on its bytes.

    Raises:
        InvalidArgument: saying what about the file is wrong.
    """
    stream = io.BytesIO(body)
    try:
        version = npy_format.read_magic(stream)
    except ValueError:
        raise InvalidArgument(
            f"the body is not an .npy file: expected it to begin with {npy_format.MAGIC_PREFIX!r} and a version, "
            f"found {body[:8]!r}"
        ) from None
    if version not in _HEADER_READERS:
        raise InvalidArgument(f"the body: .npy version {version[0]}.{version[1]} is not known here, 1.0 and 2.0 are")
    try:
        shape, fortran, dtype = _HEADER_READERS[version](stream)
    except Exception:  # noqa: BLE001  A header made to harm has NumPy raise nearly anything.
        raise InvalidArgument(
            "the body is not an .npy file: its header is cut short or malformed; expected a dictionary of descr, "
            "fortran_order and shape, as numpy.save writes it"
        ) from None
    if dtype.hasobject or dtype.kind not in "biufc":
        raise InvalidArgument(f"the body: expected an array of numbers, found dtype {str(dtype)[:40]!r}")
    start = stream.tell()
    return _view(body, start, tuple(map(int, shape)), dtype, fortran)


def _view(body: bytes, start: int, shape: Shape, dtype: np.dtype[np.generic], fortran: bool) -> Array:
    count = 1
    if len(shape) > _MOST_DIMENSIONS:
        raise InvalidArgument(f"the body: expected at most {_MOST_DIMENSIONS} dimensions, found {len(shape)}")
    for axis, size in enumerate(shape):
        # A size of thousands of digits has no decimal text.
        if size <= 0:
            found = "a negative number" if size else "0"
            raise InvalidArgument(
                f"the body: expected 1 or more in dimension {axis} of the header's shape, found {found}"
            )
        if size > len(body):
            raise InvalidArgument(
                f"the body: dimension {axis} of the header's shape is larger than the {len(body)} bytes sent can hold"
            )
        count *= size
    expected = count * dtype.itemsize
    if len(body) - start != expected:
        raise InvalidArgument(
            f"the body: expected {expected} bytes after the header for shape {show_shape(shape)} of {dtype.name}, "
            f"found {len(body) - start}"
        )
    array: Array = np.frombuffer(body, dtype, count, start)
    if dtype.kind == "b":
        # Bytes that are neither 0 nor 1 are no booleans to those who compute with them.
        array = array.view(np.uint8) != 0
    return array.reshape(shape, order="F" if fortran else "C")


def convert(array: Array, spec: TensorSpec) -> Array:
    """Bring an array to the input's dtype where every value keeps its meaning.

    Raises:
        InvalidArgument: the kinds differ (floats for integers, booleans for numbers), or a value is out of range.
    """
    if array.dtype == spec.dtype and array.dtype.isnative:
        return np.asarray(array, order="C")
    where = f"the body: expected {spec.dtype.name} values for input {spec.name!r}, found"
    kinds = {"c": "cfiu", "f": "fiu", "i": "iu", "u": "iu", "b": "b"}[spec.dtype.kind]
    if array.dtype.kind not in kinds:
        raise InvalidArgument(f"{where} {array.dtype.name} values")
    if spec.dtype.kind in "iu" and array.size:
        limits = np.iinfo(spec.dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise InvalidArgument(f"{where} {array.dtype.name} values from {array.min()} to {array.max()}")
    with np.errstate(over="ignore"):
        result = np.asarray(array, spec.dtype, order="C")
    if spec.dtype.kind in "fc":
        for part, given in ((result.real, array.real), (result.imag, array.imag)):
            if np.isinf(part).sum() != np.isinf(given).sum():
                raise InvalidArgument(
                    f"{where} values beyond its range, up to {np.abs(given[np.isfinite(given)]).max()}"
                )
    return result


def write(array: Array) -> bytes:
    """Write an `.npy` file of version 1.0."""
    array = np.asarray(array, order="C")
    stream = io.BytesIO()
    npy_format.write_array_header_1_0(stream, npy_format.header_data_from_array_1_0(array))
    return stream.getvalue() + array.tobytes()
