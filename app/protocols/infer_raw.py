"""Requests of Open Inference that are the bytes of one record of a model's only input, and nothing else."""

import math
from collections.abc import Sequence

import numpy as np

from app.errors import InvalidArgument
from app.protocols.call import Answer, Call, Codec, Form
from app.protocols.infer_plan import Plans
from app.tensors import FREE, STRING, Array, show_shape


class InferRaw:
    """Decodes these; answers are binary.

    Args:
        codec: what encodes them.

    Raises:
        InvalidArgument: the model has several inputs, or one whose shape its bytes do not tell.
    """

    def __init__(self, plans: Plans, codec: Codec) -> None:
        self._plans = plans
        self._codec = codec
        takes = self._takes = plans.takes
        if len(takes.inputs) != 1:
            raise InvalidArgument(
                "Raw request must only have 1 input to be deduced (Inference-Header-Content-Length is 0), but got "
                f"{len(takes.inputs)} inputs in {takes.model!r} model configuration"
            )
        (spec,) = takes.inputs
        self._shape = spec.shape if takes.whole else (1, *spec.shape[1:])
        if self._shape.count(FREE) > 1:
            raise InvalidArgument(
                f"The shape of the raw input {spec.name!r} can not be deduced because there are more than one "
                f"variable-sized dimension: it is {show_shape(spec.shape)}"
            )
        if spec.dtype == STRING and math.prod(self._shape) != 1:
            raise InvalidArgument(
                f"For BYTE datatype raw input {spec.name!r}, the model must have input shape [1]: it is "
                f"{show_shape(spec.shape)}"
            )

    def decode(self, body: bytes) -> Call:
        """Read a request.

        Raises:
            InvalidArgument: the body does not have as many bytes as the model's input.
        """
        (spec,) = self._takes.inputs
        shape = self._shape
        if spec.dtype == STRING:
            array = np.array([body], STRING).reshape(shape)
            if self._takes.whole:
                array = array[np.newaxis]
        else:
            each = abs(math.prod(shape)) * spec.dtype.itemsize
            if FREE in shape and len(body) >= each:
                shape = tuple(len(body) // each if size == FREE else size for size in shape)
            array = self._takes.array(0, tuple(map(abs, shape)), body, 0, len(body))
        return Call((array,), 1, Form.INPUTS, (b"", self._plans.all_binary))

    def encode(self, call: Call, outputs: Sequence[Array]) -> bytes | Answer:
        return self._codec.encode(call, outputs)
