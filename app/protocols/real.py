"""Real numbers in place of a quantized model's integers, around the codec of any wire format."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.errors import InvalidArgument
from app.protocols.call import Answer, Call, Codec, Form
from app.tensors import Array, Batching, Signature, TensorSpec


class Real:
    """Quantizes what a codec decodes, and dequantizes what it encodes. Pure: any thread may use it.

    Tensors without a scaling pass as they are.

    Args:
        codec: made for `signature.real()`.
        signature: the model's own.
    """

    def __init__(self, codec: Codec, signature: Signature) -> None:
        self.codec = codec
        self._inputs = signature.inputs
        self._outputs = signature.outputs
        self._whole = signature.batching is Batching.NONE

    def decode(self, body: Any) -> Call:
        """Read a request.

        Raises:
            InvalidArgument: as the codec does; also for NaN, which no integer means.
        """
        call = self.codec.decode(body)
        inputs = []
        for array, spec in zip(call.inputs, self._inputs, strict=True):
            if spec.scaling is not None:
                if np.isnan(array).any():
                    raise self._no_number(call, array, spec)
                array = quantize(array, spec)
            inputs.append(array)
        return call._replace(inputs=tuple(inputs))

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes | Answer:
        """Write the answer."""
        real = [
            array if spec.scaling is None else dequantize(array, spec)
            for array, spec in zip(outputs, self._outputs, strict=True)
        ]
        return self.codec.encode(call, real)

    def _no_number(self, call: Call, array: Array, spec: TensorSpec) -> InvalidArgument:
        """The error for the first NaN, placed as the caller counts."""
        indexes = np.argwhere(np.isnan(array))[0].tolist()
        if call.form is Form.INSTANCE or (call.form is Form.INPUTS and self._whole):
            del indexes[0]
        place = " at " + "".join(f"[{index}]" for index in indexes) if indexes else ""
        return InvalidArgument(
            f"input {spec.name!r}{place}: expected a number to quantize to {spec.dtype.name}, found NaN"
        )


def quantize(array: Array, spec: TensorSpec) -> Array:
    """The integers of a quantized input that are nearest to float32 numbers, none of them NaN.

    What is beyond the range, infinity too, becomes its end. Each step is rounded as in the QUANTIZE operator that
    LiteRT runs, in XNNPACK and in its own optimized kernel alike: a product with the inverse of the scale, and halves
    to the even side. (Its reference kernel divides, and rounds halves away from zero.)
    """
    assert spec.scaling is not None
    limits = np.iinfo(spec.dtype)
    inverse = np.float32(1) / np.float32(spec.scaling.scale)
    with np.errstate(over="ignore"):
        steps = np.rint(array * inverse)
    raw: Array = np.clip(np.asarray(steps, _exact(spec)) + spec.scaling.zero_point, limits.min, limits.max)
    return raw.astype(spec.dtype)


def dequantize(array: Array, spec: TensorSpec) -> Array:
    """The float32 numbers that a quantized output's integers mean, rounded once, as LiteRT's DEQUANTIZE does."""
    assert spec.scaling is not None
    steps = array.astype(_exact(spec)) - spec.scaling.zero_point
    with np.errstate(over="ignore"):
        real: Array = steps * np.float32(spec.scaling.scale)
        return real.astype(np.float32, copy=False)


def _exact(spec: TensorSpec) -> type[np.floating[Any]]:
    """The smallest type of float that holds every integer of the tensor, and every difference of two."""
    return np.float32 if spec.dtype.itemsize <= 2 else np.float64
