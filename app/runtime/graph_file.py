"""A `.tflite` file, read and checked without an interpreter.

An interpreter takes much of what stands in the file on trust, and a damaged or hostile one makes it read or write
outside of its memory. So what it would trust is checked here: that indexes name something, that constants are as long
as their shapes, that nothing is read before it is written, that subgraphs do not call themselves. What a file may still
do is to give kernels parameters that they do not look at; against that, only a process of its own helps.
"""

import math
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

from app.errors import ModelError
from app.runtime.flatbuffer import Content, damaged, read_model
from app.runtime.graph import Graph, Operator, Quantization, SignatureTensors, Subgraph, Tensor
from app.runtime.interpreter import schema
from app.tensors import Shape

_LARGEST_TENSOR = 2**31 - 1
"""Bytes. Most kernels count what a tensor has in 32 bits, and go wrong beyond it."""

_MOST_NUMBERS = 4_000_000
"""Dimensions, operands and results in a whole file: vectors may lie over one another, and so be more than there is."""

_MOST_DIMENSIONS = 32

_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "float64": 64, "int32": 32, "int64": 64, "int16": 16, "int8": 8}
_BITS |= {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64, "bool": 8, "complex64": 64, "complex128": 128}
_BITS |= {"int4": 4, "uint4": 4, "int2": 2, "float8_e4m3fn": 8, "float8_e5m2": 8}
"""Of one element; string, resource and variant have no size of their own."""

_OPERANDS = {"VAR_HANDLE": (0, 1), "READ_VARIABLE": (1, 1), "ASSIGN_VARIABLE": (2, 0)}
"""Inputs and outputs of those operators of which LiteRT's XNNPACK delegate reads them before it counts them. Which of
these crash hangs on what lies in the memory behind: a file may pass its trial, and crash a worker later."""


def _names(numbers: Any) -> dict[int, str]:
    """Of an enumeration of the schema."""
    return {number: name for name, number in vars(numbers).items() if isinstance(number, int)}


_TYPES, _OPERATORS = _names(schema.TensorType), _names(schema.BuiltinOperator)
_OPTIONS, _OPTIONS_2 = _names(schema.BuiltinOptions), _names(schema.BuiltinOptions2)


def read_graph(content: Content) -> Graph:
    """Read a model file.

    Args:
        content: the whole file. Constants are views of it: a mapped file cannot be closed while the graph lives.

    Raises:
        ModelError: it is no `.tflite` file, it is damaged, or it has more than can be sound; in one sentence.
    """
    return _Reading(content).graph()


class _Reading:
    """One file being read; what several checks share."""

    def __init__(self, content: Content) -> None:
        self._model = read_model(content)
        self._content = memoryview(content)
        self._numbers = _MOST_NUMBERS

    def graph(self) -> Graph:
        model = self._model
        if model.Version() != 3:
            raise ModelError(f"the file is of version {model.Version()} of the .tflite format, and only 3 is known")
        if not model.SubgraphsLength():
            raise damaged("it has no graph")
        self._buffers = [self._buffer(number) for number in range(model.BuffersLength())]
        self._codes = [_operator_code(model.OperatorCodes(number)) for number in range(model.OperatorCodesLength())]
        subgraphs = tuple(self._subgraph(number) for number in range(model.SubgraphsLength()))
        _check_calls(subgraphs)
        signatures = tuple(
            self._signature(model.SignatureDefs(number), subgraphs) for number in range(model.SignatureDefsLength())
        )
        return Graph(subgraphs, signatures, self._metadata())

    def _buffer(self, number: int) -> memoryview | None:
        buffer = self._model.Buffers(number)
        start, length = buffer.Offset(), buffer.Size()
        if not buffer.DataIsNone():
            start, length = buffer._tab.Vector(buffer._tab.Offset(4)), buffer.DataLength()
        elif start <= 1 or length <= 1:
            # As LiteRT takes it: the data lies behind the tables, in files too large for their offsets.
            return None
        if start + length > len(self._content):
            raise damaged(f"buffer {number} reaches out of the file")
        return self._content[start : start + length]

    def _subgraph(self, number: int) -> Subgraph:
        read = self._model.Subgraphs(number)
        where = f"subgraph {number}"
        tensors = tuple(self._tensor(read.Tensors(i), f"tensor {i} of {where}") for i in range(read.TensorsLength()))
        operators = tuple(
            self._operator(read.Operators(i), len(tensors), f"operator {i} of {where}")
            for i in range(read.OperatorsLength())
        )
        inputs = self._indexes(read.InputsAsNumpy(), len(tensors), f"the inputs of {where}")
        outputs = self._indexes(read.OutputsAsNumpy(), len(tensors), f"the outputs of {where}")
        subgraph = Subgraph(_text(read.Name()), tensors, operators, inputs, outputs)
        _check_order(subgraph, where)
        return subgraph

    def _tensor(self, read: Any, where: str) -> Tensor:
        dtype = _TYPES.get(read.Type(), "").lower()
        if not dtype:
            raise damaged(f"{where} is of type {read.Type()}, which is not known")
        shape = self._integers(read.ShapeAsNumpy())
        signature = self._integers(read.ShapeSignatureAsNumpy())
        if len(shape) > _MOST_DIMENSIONS or min(shape, default=0) < 0 or min(signature, default=0) < -1:
            raise damaged(f"{where} has the shape {list(shape[:_MOST_DIMENSIONS])}")
        wanted = -(-math.prod(shape) * _BITS.get(dtype, 0) // 8)
        if wanted > _LARGEST_TENSOR:
            raise damaged(f"{where} has the shape {list(shape)}, more than 2 GiB")
        number = read.Buffer()
        # Files made before buffers were shared leave them out altogether.
        if number >= max(len(self._buffers), 1):
            raise damaged(f"{where} names the buffer {number} of {len(self._buffers)}")
        data = self._buffers[number] if number else None
        if data is not None and not data and wanted:
            data = None
        if data is not None and dtype in _BITS and read.Sparsity() is None and len(data) != wanted:
            raise damaged(f"{where} has {len(data)} bytes, and its shape {list(shape)} takes {wanted}")
        if data is not None and read.IsVariable():
            raise damaged(f"{where} is a variable and a constant")
        return Tensor(
            name=_text(read.Name()),
            dtype=dtype,
            shape=shape,
            shape_signature=signature if len(signature) == len(shape) else shape,
            has_rank=bool(shape) or read.HasRank() or data is not None,
            buffer=number,
            data=data,
            is_variable=read.IsVariable(),
            quantization=_quantization(read.Quantization(), shape, where),
        )

    def _operator(self, read: Any, tensors: int, where: str) -> Operator:
        code = read.OpcodeIndex()
        if code >= len(self._codes):
            raise damaged(f"{where} names the operator code {code} of {len(self._codes)}")
        name, custom = self._codes[code]
        inputs = self._indexes(read.InputsAsNumpy(), tensors, f"the inputs of {where}", optional=True)
        outputs = self._indexes(read.OutputsAsNumpy(), tensors, f"the outputs of {where}")
        wanted = _OPERANDS.get(name) if not custom else None
        if wanted is not None and (wanted != (len(inputs), len(outputs)) or -1 in inputs):
            raise damaged(f"{where}, {name}, has {len(inputs)} inputs and {len(outputs)} outputs: expected {wanted}")
        return Operator(name, custom, inputs, outputs, _options(read))

    def _signature(self, read: Any, subgraphs: tuple[Subgraph, ...]) -> SignatureTensors:
        key, number = _text(read.SignatureKey()), read.SubgraphIndex()
        if number >= len(subgraphs):
            raise damaged(f"the signature {key!r} names the subgraph {number} of {len(subgraphs)}")
        subgraph = subgraphs[number]
        maps: list[dict[str, int]] = []
        for kind, count, item, members in (
            ("input", read.InputsLength(), read.Inputs, subgraph.inputs),
            ("output", read.OutputsLength(), read.Outputs, subgraph.outputs),
        ):
            named = {_text(item(place).Name()): item(place).TensorIndex() for place in range(count)}
            if not set(named.values()) <= set(members):
                raise damaged(f"the signature {key!r} has an {kind} that its graph has not")
            maps.append(named)
        return SignatureTensors(key, number, maps[0], maps[1])

    def _metadata(self) -> dict[str, memoryview]:
        found = {}
        for place in range(self._model.MetadataLength()):
            entry = self._model.Metadata(place)
            if entry.Buffer() >= len(self._buffers):
                raise damaged(f"metadata {place} names the buffer {entry.Buffer()} of {len(self._buffers)}")
            found[_text(entry.Name())] = self._buffers[entry.Buffer()] or memoryview(b"")
        return found

    def _integers(self, vector: Any) -> tuple[int, ...]:
        """The generated readers give the number 0 for a vector that is left out."""
        if isinstance(vector, int):
            return ()
        self._numbers -= len(vector)
        if self._numbers < 0:
            raise damaged(f"its shapes and operators have more than {_MOST_NUMBERS:,} numbers")
        return tuple(vector.tolist())

    def _indexes(self, vector: Any, count: int, where: str, *, optional: bool = False) -> tuple[int, ...]:
        indexes = self._integers(vector)
        for index in indexes:
            if not (-1 if optional else 0) <= index < count:
                raise damaged(f"{where} name the tensor {index} of {count}")
        return indexes


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="backslashreplace")


def _operator_code(code: Any) -> tuple[str, bool]:
    # The first field is a byte wide, and holds what fits; so LiteRT takes the larger.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if number == schema.BuiltinOperator.CUSTOM:
        return _text(code.CustomCode()), True
    if number not in _OPERATORS:
        raise ModelError(f"the file has the operator code {number}, which this LiteRT does not know")
    return _OPERATORS[number], False


def _options(read: Any) -> Any:
    for kinds, kind, table in (
        (_OPTIONS, read.BuiltinOptionsType(), read.BuiltinOptions()),
        (_OPTIONS_2, read.BuiltinOptions2Type(), read.BuiltinOptions2()),
    ):
        if kind and table is not None:
            options = getattr(schema, kinds[kind])()
            options.Init(table.Bytes, table.Pos)
            return options
    return None


def _quantization(read: Any, shape: Shape, where: str) -> Quantization | None:
    if read is None or not read.ScaleLength():
        return None
    scale, axis = read.ScaleAsNumpy(), read.QuantizedDimension()
    zero_point = read.ZeroPointAsNumpy() if read.ZeroPointLength() else np.zeros(1, np.int64)
    if len(zero_point) not in (1, len(scale)):
        raise damaged(f"{where} has {len(scale)} scales and {len(zero_point)} zero points")
    if len(scale) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scale)):
        raise damaged(f"{where} has {len(scale)} scales along axis {axis} of its shape {list(shape)}")
    return Quantization(scale, zero_point, axis)


def _check_order(subgraph: Subgraph, where: str) -> None:
    """That operators read what is there by then, and write what nobody else gives."""
    there = set(subgraph.inputs)
    for index in there:
        if subgraph.tensors[index].constant:
            raise damaged(f"the input {subgraph.tensors[index].name!r} of {where} is a constant")
    # Where there are no elements, nothing is read.
    given = {i for i, tensor in enumerate(subgraph.tensors) if tensor.constant or tensor.is_variable}
    there |= given | {i for i, tensor in enumerate(subgraph.tensors) if tensor.dtype in _BITS and 0 in tensor.shape}
    written = given | set(subgraph.inputs)
    for place, operator in enumerate(subgraph.operators):
        for index in operator.inputs:
            if index >= 0 and index not in there:
                raise damaged(f"operator {place} of {where} reads the tensor {index} before it is written")
        for index in operator.outputs:
            if index in written:
                raise damaged(f"operator {place} of {where} writes the tensor {index}, which has its value already")
        there.update(operator.outputs)
        written.update(operator.outputs)
    for index in subgraph.outputs:
        if index not in there:
            raise damaged(f"the output {subgraph.tensors[index].name!r} of {where} is never written")


def _check_calls(subgraphs: tuple[Subgraph, ...]) -> None:
    """That operators call subgraphs that exist, and none that leads back to itself."""
    calls = [set(_called(subgraph.operators)) for subgraph in subgraphs]
    for number, called in enumerate(calls):
        for other in called:
            if not 0 <= other < len(subgraphs):
                raise damaged(f"an operator of subgraph {number} calls the subgraph {other} of {len(subgraphs)}")
    try:
        TopologicalSorter(dict(enumerate(calls))).prepare()
    except CycleError as error:
        raise damaged("its subgraphs call one another in a circle") from error


def _called(operators: Iterable[Operator]) -> Iterator[int]:
    for operator in operators:
        for field in _subgraph_fields(type(operator.options)):
            yield getattr(operator.options, field)()
        if isinstance(operator.options, schema.StablehloCaseOptions):
            yield from operator.options.BranchSubgraphIndicesAsNumpy().tolist()


def _subgraph_fields(kind: type) -> list[str]:
    """The fields of an operator's options that name a subgraph."""
    return [name for name in vars(kind) if name.endswith(("SubgraphIndex", "Subgraph"))]
