"""Names, dtypes and shapes of what a model takes and gives, and the check that an array fits.

A *record* is one example without the batch dimension. Inside Litepool every array of a call has the records along its
first axis; `Batching` says what the model itself makes of that axis.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import InvalidArgument, ModelError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

FREE = -1
"""A dimension that the caller chooses, in a `TensorSpec.shape`."""

DTYPES = frozenset(
    np.dtype(name)
    for name in (
        *("float16", "float32", "float64", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)
"""The dtypes that have a JSON and an .npy form here."""


class Batching(Enum):
    """How a model's tensors hold several records."""

    FREE = "free"
    """The leading dimension of every input and output is free: one invoke takes any number of records."""
    ONE = "one"
    """The leading dimension of every input and output is 1: an invoke takes one record, `[1, *record]`."""
    NONE = "none"
    """There is no batch dimension: a record is the whole tensor."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: `shape` is the model's own, with -1 for a free dimension."""

    name: str
    dtype: np.dtype[Any]
    shape: Shape


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


def batching_of(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Batching:
    """Tell from the signature's shapes whether, and how, the leading dimension holds records."""
    leading = {spec.shape[0] if spec.shape else None for spec in (*inputs, *outputs)}
    if leading == {FREE}:
        return Batching.FREE
    return Batching.ONE if leading == {1} else Batching.NONE


def make_signature(name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Signature:
    """Build a `Signature`.

    Raises:
        ModelError: when a tensor has a dtype that no codec here can carry, or there is no input or no output.
    """
    if not inputs or not outputs:
        raise ModelError(
            f"signature {name!r} has {len(inputs)} inputs and {len(outputs)} outputs: one of each is needed"
        )
    for spec in (*inputs, *outputs):
        if spec.dtype not in DTYPES:
            known = ", ".join(sorted(dtype.name for dtype in DTYPES))
            raise ModelError(f"tensor {spec.name!r} holds {spec.dtype.name} values, and those served are {known}")
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


def show_shape(shape: Shape) -> str:
    """`[-1, 256]`: a shape as the wire protocols write it."""
    return "[" + ", ".join(str(size) for size in shape) + "]"
