"""The one place that knows LiteRT."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from ai_edge_litert import schema_py_generated
from ai_edge_litert.interpreter import Interpreter

from app.errors import ModelError
from app.tensors import (
    FREE,
    Array,
    Batching,
    OutputCheck,
    Scaling,
    Shape,
    Signature,
    TensorSpec,
    make_signature,
    scaling_of,
)

schema: Any = schema_py_generated
"""The format of model files, for those who read one without an interpreter."""

DEFAULT_SIGNATURE = "serving_default"

_VARIABLE_OPS = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})

_CONTROL_OPS = frozenset({"WHILE", "IF", "CALL", "STABLEHLO_WHILE"})
"""Operations after which what an invoke costs depends on the values that it is given."""


_COPIED_ONCE = 1 << 14
"""From this many bytes on an input that cannot be written, as views of requests are, is copied by us.

LiteRT's `SetTensor` has NumPy make a copy of such an array, which can be written, before its own. For smaller ones that
takes less than asking where to copy to."""


Model = Path | bytes


@dataclass(frozen=True, slots=True)
class _Part:
    """One signature as LiteRT has it: its subgraph, and `{name: tensor index}`."""

    subgraph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


class Runner:
    """One signature of one LiteRT interpreter. Belongs to one thread at a time; the weights are mapped, not read.

    Args:
        model: a `.tflite` file that will not change, or the content of one.
        threads: LiteRT's own, which share the work of an invoke.

    Raises:
        ModelError: LiteRT does not take the file.
    """

    def __init__(self, model: Model, threads: int = 1) -> None:
        given = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        try:
            interpreter = Interpreter(**given, num_threads=threads)
            parts = _parts(interpreter)
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"LiteRT does not load it: {one_line(error)}") from error
        self._begin(interpreter, parts, next(iter(parts)), WeakValueDictionary())

    def _begin(
        self, interpreter: Any, parts: dict[str, _Part], name: str, beside: "WeakValueDictionary[str, Runner]"
    ) -> None:
        self._interpreter = interpreter
        self._parts = parts
        # Two of one signature would not know what shapes the other has set. Not held, or they would hold themselves.
        self._beside = beside
        beside[name] = self
        self.name = name
        self._part = parts[name]
        self.subgraph = self._subgraph = self._part.subgraph
        # What LiteRT's Python methods wrap: they are thin, and this is called for every prediction. They also look
        # whether arrays share the interpreter's memory; none does, since outputs are copied.
        self._wrapped: Any = interpreter._interpreter
        self._inputs = list(self._part.inputs.values())
        self._outputs = list(self._part.outputs.values())
        one_each = len(self._inputs) == len(self._outputs) == 1
        self._single = (self._inputs[0], self._outputs[0]) if one_each else None
        self._shape: Shape | None = None
        self._shapes: list[Shape] | None = None
        # Others of the same subgraph change its shapes, too.
        self._shares = sum(part.subgraph == self.subgraph for part in parts.values()) > 1
        self._checks: list[OutputCheck] = []

    @property
    def names(self) -> list[str]:
        """The model's signatures, the default first."""
        return list(self._parts)

    def of(self, name: str) -> "Runner":
        """Another signature of the same interpreter, with the same variables; for the same thread."""
        found = self._beside.get(name)
        if found is None:
            found = object.__new__(Runner)
            found._begin(self._interpreter, self._parts, name, self._beside)
        return found

    def signature(self) -> Signature:
        """Names, dtypes and shapes as the model's own signature gives them; without one, as its tensors do.

        Raises:
            ModelError: a tensor's dtype has no codec, or its name is damaged.
        """
        inputs, outputs = (
            tuple(self._spec(name, index) for name, index in tensors.items())
            for tensors in (self._part.inputs, self._part.outputs)
        )
        return make_signature(self.name, inputs, outputs)

    def _spec(self, name: str, index: int) -> TensorSpec:
        try:
            return _spec(name, self._interpreter._get_tensor_details(index, self._subgraph))
        except UnicodeDecodeError as error:
            raise ModelError(f"the name of a tensor is no UTF-8: found {error.object[:64]!r}") from error
        except ValueError as error:
            raise ModelError(
                f"tensor {name!r} is of a kind that LiteRT has no arrays for: {one_line(error)}"
            ) from error

    def hold_to(self, signature: Signature) -> None:
        """From now on, outputs of another shape than `signature` declares are an error.

        Only where the inputs leave no choice: where these have free dimensions, what a model declares of its outputs
        is what they were for the shapes that it was made with.
        """
        if signature.batching is Batching.FREE and all(FREE not in spec.shape[1:] for spec in signature.inputs):
            self._checks = [OutputCheck(spec, spec.shape) for spec in signature.outputs]

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
            ModelError: the interpreter refuses to allocate or to run, or answers in another shape than it declares.
        """
        wrapped, subgraph = self._wrapped, self._subgraph
        if self._shares:
            self._shape = self._shapes = None
        try:
            if self._single is not None:
                # Most models have one input and one output, and for them this takes half as long.
                (array,) = inputs
                shape = array.shape
                if shape != self._shape:
                    self._allocate([shape])
                    self._shape = shape
                if array.nbytes < _COPIED_ONCE:
                    wrapped.SetTensor(self._single[0], array, subgraph)
                else:
                    self._set_large(self._single[0], array)
                wrapped.Invoke(subgraph)
                try:
                    outputs = [wrapped.GetTensor(self._single[1], subgraph)]
                except ValueError:
                    outputs = self._read()
            else:
                shapes = [array.shape for array in inputs]
                if shapes != self._shapes:
                    self._allocate(shapes)
                    self._shapes = shapes
                for index, array in zip(self._inputs, inputs, strict=True):
                    if array.nbytes < _COPIED_ONCE:
                        wrapped.SetTensor(index, array, subgraph)
                    else:
                        self._set_large(index, array)
                wrapped.Invoke(subgraph)
                try:
                    outputs = [wrapped.GetTensor(index, subgraph) for index in self._outputs]
                except ValueError:
                    outputs = self._read()
        except (ValueError, RuntimeError) as error:
            self._shape = self._shapes = None
            raise ModelError(f"the interpreter failed: {one_line(error)}") from error
        for check, output in zip(self._checks, outputs, strict=False):
            check(output)
        return outputs

    def _set_large(self, index: int, array: Array) -> None:
        if array.flags.writeable or array.dtype.hasobject:
            self._wrapped.SetTensor(index, array, self._subgraph)
        else:
            # The view must not outlive this line: allocation and `Interpreter`'s own methods would fail.
            np.copyto(self._wrapped.tensor(self._interpreter, index, self._subgraph), array, casting="no")

    def _read(self) -> list[Array]:
        """The outputs, of which LiteRT gives none that has no elements."""
        outputs = []
        for index in self._outputs:
            detail = self._interpreter._get_tensor_details(index, self._subgraph)
            if 0 in detail["shape"]:
                outputs.append(np.empty(detail["shape"], object if detail["dtype"] is np.bytes_ else detail["dtype"]))
            else:
                outputs.append(self._wrapped.GetTensor(index, self._subgraph))
        return outputs

    def _allocate(self, shapes: list[Shape]) -> None:
        self._shape = self._shapes = None
        for index, shape in zip(self._inputs, shapes, strict=True):
            self._wrapped.ResizeInputTensor(index, np.array(shape, np.int32), False, self._subgraph)
        if self._subgraph:
            self._wrapped.AllocateTensors(self._subgraph)
        else:
            # Not by its number: only this way does LiteRT put its faster kernels in place first.
            self._wrapped.AllocateTensors()


def _parts(interpreter: Any) -> dict[str, _Part]:
    """The signatures, `serving_default` first; of a model without any, its primary subgraph by its tensors' names."""
    parts = {}
    for name, tensors in interpreter._get_full_signature_list().items():
        subgraph = interpreter._interpreter.GetSubgraphIndexFromSignature(name)
        parts[str(name)] = _Part(subgraph, _in_model_order(tensors["inputs"]), _in_model_order(tensors["outputs"]))
    if not parts:
        inputs = {_tensor_name(detail): detail["index"] for detail in interpreter.get_input_details()}
        outputs = {_tensor_name(detail): detail["index"] for detail in interpreter.get_output_details()}
        return {DEFAULT_SIGNATURE: _Part(0, inputs, outputs)}
    return dict(sorted(parts.items(), key=lambda item: item[0] != DEFAULT_SIGNATURE))


def _in_model_order(tensors: dict[str, int]) -> dict[str, int]:
    return {str(name): int(index) for name, index in tensors.items()}


def _tensor_name(detail: dict[str, Any]) -> str:
    return str(detail["name"]).removesuffix(":0")


def _spec(name: str, detail: dict[str, Any]) -> TensorSpec:
    shape = detail["shape_signature"] if len(detail["shape_signature"]) == len(detail["shape"]) else detail["shape"]
    kind = detail["dtype"]
    if kind is np.object_:
        raise ModelError(f"tensor {name!r} holds a handle to what is inside the model, which no request can")
    # LiteRT calls strings `numpy.bytes_`, and gives and takes arrays of bytes objects.
    dtype = np.dtype(object) if kind is np.bytes_ else np.dtype(kind)
    return TensorSpec(name, dtype, tuple(int(size) for size in shape), _scaling(dtype, detail))


def _scaling(dtype: np.dtype[Any], detail: dict[str, Any]) -> Scaling | None:
    """How a quantized tensor's integers stand for real numbers; None for others."""
    found = detail["quantization_parameters"]
    if len(found["scales"]) != 1:
        return None
    return scaling_of(dtype, found["scales"][0], found["zero_points"][0])


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
