"""The one place that knows LiteRT."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from app.errors import ModelError
from app.tensors import Array, Shape, Signature, TensorSpec, make_signature

log = logging.getLogger(__name__)

DEFAULT_SIGNATURE = "serving_default"

_VARIABLE_OPS = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})

_CONTROL_OPS = frozenset({"WHILE", "IF", "CALL", "CALL_ONCE", "STABLEHLO_WHILE"})
"""Operations after which what an invoke costs depends on the values that it is given."""


Model = Path | bytes


class Runner:
    """One LiteRT interpreter. Belongs to one thread at a time; the weights are mapped, not read.

    Args:
        model: a `.tflite` file that will not change, or the content of one.
        threads: LiteRT's own, which share the work of an invoke.

    Raises:
        ModelError: LiteRT does not take the file.
    """

    def __init__(self, model: Model, threads: int = 1) -> None:
        given = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        try:
            self._interpreter = Interpreter(**given, num_threads=threads)
            self._names = _signature_tensors(self._interpreter)
            # What LiteRT's Python methods wrap: they are thin, and this is called for every prediction. They also look
            # whether arrays share the interpreter's memory; none does, since outputs are copied.
            self._wrapped: Any = self._interpreter._interpreter
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"LiteRT does not load it: {one_line(error)}") from error
        self._inputs = list(self._names[1].values())
        self._outputs = list(self._names[2].values())
        one_each = len(self._inputs) == len(self._outputs) == 1
        self._single = (self._inputs[0], self._outputs[0]) if one_each else None
        self._shape: Shape | None = None
        self._shapes: list[Shape] | None = None

    def signature(self) -> Signature:
        """Names, dtypes and shapes as the model's own signature gives them; without one, as its tensors do.

        Raises:
            ModelError: a tensor's dtype has no codec.
        """
        name, inputs, outputs = self._names
        details = {
            detail["index"]: detail
            for detail in self._interpreter.get_input_details() + self._interpreter.get_output_details()
        }
        specs = [
            tuple(_spec(tensor, details[index]) for tensor, index in tensors.items()) for tensors in (inputs, outputs)
        ]
        return make_signature(name, specs[0], specs[1])

    def stateful(self) -> bool:
        """Whether the graph keeps variables between invokes."""
        return any(op["op_name"] in _VARIABLE_OPS for op in self._interpreter._get_ops_details())

    def unpredictable(self) -> bool:
        """Whether the cost of an invoke may depend on the values it is given, so that a measurement says little."""
        return any(op["op_name"] in _CONTROL_OPS for op in self._interpreter._get_ops_details())

    def invoke(self, inputs: Sequence[Array]) -> list[Array]:
        """Run the model once. The GIL is released meanwhile.

        Args:
            inputs: in the signature's order, of the signature's dtypes and of shapes that it admits.

        Returns:
            The outputs in the signature's order, as copies.

        Raises:
            ModelError: the interpreter refuses to allocate or to run.
        """
        wrapped = self._wrapped
        try:
            if self._single is not None:
                # Most models have one input and one output, and for them this takes half as long.
                (array,) = inputs
                shape = array.shape
                if shape != self._shape:
                    self._allocate([shape])
                    self._shape = shape
                wrapped.SetTensor(self._single[0], array)
                wrapped.Invoke()
                return [wrapped.GetTensor(self._single[1], 0)]
            shapes = [array.shape for array in inputs]
            if shapes != self._shapes:
                self._allocate(shapes)
                self._shapes = shapes
            for index, array in zip(self._inputs, inputs, strict=True):
                wrapped.SetTensor(index, array)
            wrapped.Invoke()
            return [wrapped.GetTensor(index, 0) for index in self._outputs]
        except (ValueError, RuntimeError) as error:
            self._shape = self._shapes = None
            raise ModelError(f"the interpreter failed: {one_line(error)}") from error

    def _allocate(self, shapes: list[Shape]) -> None:
        self._shape = self._shapes = None
        for index, shape in zip(self._inputs, shapes, strict=True):
            self._wrapped.ResizeInputTensor(index, np.array(shape, np.int32), False)
        self._wrapped.AllocateTensors()


def _signature_tensors(interpreter: Any) -> tuple[str, dict[str, int], dict[str, int]]:
    """The served signature: its name, and `{name: tensor index}` of its inputs and outputs."""
    signatures = interpreter._get_full_signature_list()
    if signatures:
        name = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else next(iter(signatures))
        subgraph = interpreter._interpreter.GetSubgraphIndexFromSignature(name)
        if subgraph == 0:
            chosen = signatures[name]
            return name, _in_model_order(chosen["inputs"]), _in_model_order(chosen["outputs"])
        log.debug("signature %s is subgraph %d: serving the primary subgraph by its tensor names", name, subgraph)
    inputs = {_tensor_name(detail): detail["index"] for detail in interpreter.get_input_details()}
    outputs = {_tensor_name(detail): detail["index"] for detail in interpreter.get_output_details()}
    return DEFAULT_SIGNATURE, inputs, outputs


def _in_model_order(tensors: dict[str, int]) -> dict[str, int]:
    return {str(name): int(index) for name, index in tensors.items()}


def _tensor_name(detail: dict[str, Any]) -> str:
    return str(detail["name"]).removesuffix(":0")


def _spec(name: str, detail: dict[str, Any]) -> TensorSpec:
    shape = detail["shape_signature"] if len(detail["shape_signature"]) == len(detail["shape"]) else detail["shape"]
    return TensorSpec(name, np.dtype(detail["dtype"]), tuple(int(size) for size in shape))


def one_line(error: BaseException) -> str:
    """An exception of the interpreter without its line breaks, at most 300 characters.

    LiteRT keeps the text of earlier failures: what is there several times over is told once.
    """
    text = " ".join(str(error).split())
    for times in range(2, 9):
        size, rest = divmod(len(text), times)
        if not rest and text == text[:size] * times:
            text = text[:size]
            break
    return text[:300] or type(error).__name__
