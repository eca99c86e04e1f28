"""Names, dtypes and shapes of what a model takes and gives, and the check that an array fits.

A *record* is one example without the batch dimension. Inside Litepool every array of a call has the records along its
first axis; `Batching` says what the model itself makes of that axis.
"""

from dataclasses import dataclass, replace
from enum import Enum
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import InvalidArgument, ModelError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

FREE = -1
"""A dimension that the caller chooses, in a `TensorSpec.shape`."""

STRING = np.dtype(object)
"""Strings: an array of `bytes` objects, which need not be UTF-8."""

DTYPES = frozenset(
    np.dtype(name)
    for name in (
        *("float16", "float32", "float64", "complex64", "complex128", "bool", STRING),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("complex64", "complex128", "object"),
    )
)
"""The dtypes that codecs carry. All have a JSON form here, and all but strings an .npy form."""

_MOST_DIMENSIONS = 32
"""As many as every release of NumPy takes."""


def dtype_name(dtype: np.dtype[Any]) -> str:
    """What messages and reports call a dtype: NumPy's name, but `string` for strings."""
    return "string" if dtype == STRING else dtype.name


class Batching(Enum):
    """How a model's tensors hold several records."""

    FREE = "free"
    """The leading dimension of every input and output is free: one invoke takes any number of records."""
    ONE = "one"
    """The leading dimension of every input and output is 1: an invoke takes one record, `[1, *record]`."""
    NONE = "none"
    """There is no batch dimension: a record is the whole tensor."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a quantized tensor's integers mean real numbers: `real = scale * (raw - zero_point)`."""

    scale: float
    zero_point: int

    def __str__(self) -> str:
        """`0.1 * (raw + 128)`."""
        return f"{np.float32(self.scale)!s} * (raw {'-' if self.zero_point >= 0 else '+'} {abs(self.zero_point)})"


def scaling_of(dtype: np.dtype[Any], scale: float, zero_point: int) -> Scaling | None:
    """The scaling that a model file states for a tensor; None where it states none, or none that makes sense.

    Args:
        scale: 0 where the tensor is not quantized.
    """
    floats = np.finfo(np.float32)
    # A smaller one has no inverse in float32.
    if dtype.kind not in "iu" or dtype.itemsize > 4 or not float(floats.tiny) <= scale <= float(floats.max):
        return None
    limits = np.iinfo(dtype)
    return Scaling(float(scale), int(zero_point)) if limits.min <= zero_point <= limits.max else None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: `shape` is the model's own, with -1 for a free dimension.

    `scaling` says what a quantized tensor's integers mean. It stays where `Signature.real` makes the dtype float32.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape
    scaling: Scaling | None = None

    def real(self) -> "TensorSpec":
        """The same tensor in real numbers: float32 where it is quantized."""
        return self if self.scaling is None else replace(self, dtype=np.dtype(np.float32))


@dataclass(frozen=True, slots=True)
class Signature:
    """Named inputs and outputs of a model, in the order of the model's signature."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batching: Batching

    def record_shape(self, spec: TensorSpec) -> Shape:
        """The shape of one record of `spec`."""
        return spec.shape if self.batching is Batching.NONE else spec.shape[1:]

    def tensor_shape(self, spec: TensorSpec) -> Shape:
        """The shape of `spec` as callers see it: the batch dimension, where there is one, is free."""
        return spec.shape if self.batching is Batching.NONE else (FREE, *spec.shape[1:])

    @property
    def scaled(self) -> bool:
        """Whether any tensor is quantized, so that callers may want real numbers in place of its integers."""
        return any(spec.scaling is not None for spec in (*self.inputs, *self.outputs))

    def real(self) -> "Signature":
        """What callers see who send and get real numbers: quantized tensors as float32."""
        return replace(
            self,
            inputs=tuple(spec.real() for spec in self.inputs),
            outputs=tuple(spec.real() for spec in self.outputs),
        )


def batching_of(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Batching:
    """Tell from the signature's shapes whether, and how, the leading dimension holds records."""
    leading = {spec.shape[0] if spec.shape else None for spec in (*inputs, *outputs)}
    if leading == {FREE}:
        return Batching.FREE
    return Batching.ONE if leading == {1} else Batching.NONE


def make_signature(name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Signature:
    """Build a `Signature`.

    Raises:
        ModelError: a tensor has a dtype that no codec here can carry or too many dimensions, an input has a shape
            that nothing fits, or there is no input or no output.
    """
    if not inputs or not outputs:
        raise ModelError(
            f"signature {name!r} has {len(inputs)} inputs and {len(outputs)} outputs: one of each is needed"
        )
    for spec in (*inputs, *outputs):
        if spec.dtype not in DTYPES:
            known = ", ".join(sorted(map(dtype_name, DTYPES)))
            raise ModelError(f"tensor {spec.name!r} holds {spec.dtype.name} values, and those served are {known}")
        if len(spec.shape) >= _MOST_DIMENSIONS:
            raise ModelError(f"tensor {spec.name!r} has {len(spec.shape)} dimensions: expected fewer than 32")
    for spec in inputs:
        if any(size < 1 and size != FREE for size in spec.shape):
            raise ModelError(f"input {spec.name!r} has the shape {show_shape(spec.shape)}, which no data has")
    return Signature(name, inputs, outputs, batching_of(inputs, outputs))


def fits(shape: Shape, wanted: Shape) -> bool:
    """Whether an array's `shape` is one that `wanted`, which may have free dimensions, admits. Nothing may be empty."""
    return len(shape) == len(wanted) and all(
        (have == want) or (want == FREE and have > 0) for have, want in zip(shape, wanted, strict=True)
    )


def check(array: Array, spec: TensorSpec, wanted: Shape, where: str) -> None:
    """Refuse an array whose shape the model does not take.

    Raises:
        InvalidArgument: naming the place, the shape found and the shape expected.
    """
    if not fits(array.shape, wanted):
        raise InvalidArgument(
            f"{where}: expected shape {show_shape(wanted)} for input {spec.name!r}, found {show_shape(array.shape)}"
        )


class OutputCheck:
    """Whether what a model gave for an output has the shape that it declares. Called for each invoke, so it is cheap.

    A kernel that broadcasts what does not match, or takes nothing from an empty tensor, gives another shape than the
    model says, and no error.

    Args:
        wanted: the declared shape, with -1 for free dimensions, which may turn out to be 0.
    """

    __slots__ = ("_fixed", "_name", "_pick", "_wanted")

    def __init__(self, spec: TensorSpec, wanted: Shape) -> None:
        self._name = spec.name
        self._wanted = wanted
        fixed = [axis for axis, size in enumerate(wanted) if size != FREE]
        # Without fixed dimensions the rank is all there is to compare.
        self._pick: Any = itemgetter(*fixed) if fixed else len
        self._fixed = self._pick(wanted)

    def __call__(self, array: Array) -> None:
        """Refuse another rank, or another size of a fixed dimension.

        Raises:
            ModelError: naming the output, the shape found and the shape declared.
        """
        shape = array.shape
        if len(shape) != len(self._wanted) or self._pick(shape) != self._fixed:
            declared = show_shape(self._wanted)
            raise ModelError(f"output {self._name!r}: the model declares shape {declared} and gave {show_shape(shape)}")


def show_shape(shape: Shape) -> str:
    """`[-1, 256]`: a shape as the wire protocols write it."""
    return "[" + ", ".join(str(size) for size in shape) + "]"
