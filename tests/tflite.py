"""Small `.tflite` models made in memory, without TensorFlow, for tests of what serves them.

Each function gives the bytes of a model that LiteRT really loads; `affine` is the one to take when any model will do.
What a model computes is in its docstring. Unless it says otherwise, the signature is `serving_default`, the input is
called `x`, the output `y`, and -1 in a shape is a free dimension.

    path.write_bytes(affine(2.0, 1.0))              # y = 2x + 1 for records of 4 float32
    path.write_bytes(affine(shape=(-1, -1, 3)))     # a free inner dimension
    path.write_bytes(truncated(affine()))           # a file that is no model
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16

_TYPES = {
    **{name: getattr(schema.TensorType, name.upper()) for name in ("float16", "float32", "float64", "bool")},
    **{f"{sign}int{bits}": getattr(schema.TensorType, f"{sign}int{bits}".upper()) for sign in ("", "u")
       for bits in (8, 16, 32, 64)},
    "complex64": schema.TensorType.COMPLEX64,
    "string": schema.TensorType.STRING,
    "resource": schema.TensorType.RESOURCE,
}  # fmt: skip

_OPTIONS_BY_ANOTHER_NAME = {"REDUCE_MAX": "ReducerOptions", "SUM": "ReducerOptions"}


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose data lies at a multiple of 16 bytes, as the schema wants and the generated class does not do."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802  The generated code calls it so.
        offset = None
        if self.data is not None:
            builder.StartVector(1, len(self.data), _ALIGNMENT)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
            offset = builder.EndVector()
        schema.BufferStart(builder)
        if offset is not None:
            schema.BufferAddData(builder, offset)
        return schema.BufferEnd(builder)


@dataclass
class Graph:
    """A model under construction: tensors, then the operators between them, then `build`.

    `tensor` and `constant` give the number by which operators and signatures name a tensor.
    """

    tensors: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    codes: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [_AlignedBuffer()])
    others: list["Graph"] = field(default_factory=list)

    def tensor(self, name: str, shape: Sequence[int], dtype: str = "float32") -> int:
        """Add a tensor of `shape`; where that has -1, the shape before any resize is 1."""
        tensor = schema.TensorT(shape=[max(size, 1) for size in shape], type=_TYPES[dtype], name=name, hasRank=True)
        if -1 in shape:
            tensor.shapeSignature = list(shape)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, value: npt.ArrayLike, dtype: str = "float32") -> int:
        """Add a tensor that holds a value."""
        array = np.asarray(value, dtype)
        number = self.tensor(f"constant_{len(self.tensors)}", array.shape, dtype)
        self.tensors[number].buffer = len(self.buffers)
        self.buffers.append(_AlignedBuffer(data=array.tobytes()))
        return number

    def operator(self, name: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> None:
        """Add an operator: its name in the schema, for example `REDUCE_MAX`, and its options by their fields' names."""
        code = getattr(schema.BuiltinOperator, name)
        self.codes.append(schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code))
        kind = _OPTIONS_BY_ANOTHER_NAME.get(name, name.title().replace("_", "") + "Options")
        chosen = getattr(schema, kind + "T")()
        for option, value in options.items():
            assert hasattr(chosen, option), option
            setattr(chosen, option, value)
        self.operators.append(
            schema.OperatorT(
                opcodeIndex=len(self.codes) - 1,
                inputs=list(inputs),
                outputs=list(outputs),
                builtinOptionsType=getattr(schema.BuiltinOptions, kind),
                builtinOptions=chosen,
            )
        )

    def subgraph(self) -> "Graph":
        """Add a subgraph: the first so made is number 1, since this graph is 0."""
        self.others.append(Graph(codes=self.codes, buffers=self.buffers))
        return self.others[-1]

    def build(
        self,
        inputs: dict[str, int],
        outputs: dict[str, int],
        *,
        signature: str | None = "serving_default",
        signature_subgraph: int = 0,
    ) -> bytes:
        """The model's bytes. The tensors are listed in the order given; None leaves the signature out."""
        model = schema.ModelT(
            version=3,
            operatorCodes=self.codes,
            subgraphs=[
                self._subgraph("main", list(inputs.values()), list(outputs.values())),
                *(other._subgraph("other", [], []) for other in self.others),
            ],
            buffers=self.buffers,
            description="made for a test",
        )
        if signature is not None:
            model.signatureDefs = [
                schema.SignatureDefT(
                    inputs=_named(inputs),
                    outputs=_named(outputs),
                    signatureKey=signature,
                    subgraphIndex=signature_subgraph,
                )
            ]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def _subgraph(self, name: str, inputs: list[int], outputs: list[int]) -> Any:
        return schema.SubGraphT(
            tensors=self.tensors, inputs=inputs, outputs=outputs, operators=self.operators, name=name
        )


def _named(tensors: dict[str, int]) -> list[Any]:
    return [schema.TensorMapT(name=name, tensorIndex=number) for name, number in tensors.items()]


def affine(
    scale: float = 2.0,
    offset: float = 1.0,
    shape: Sequence[int] = (-1, 4),
    *,
    input_name: str = "x",
    output_name: str = "y",
    signature: str | None = "serving_default",
) -> bytes:
    """`y = x * scale + offset`, float32, with `shape` for both.

    Args:
        signature: its name; None leaves it out, and the tensors' own names remain, as `x:0` and `y:0`.
    """
    graph = Graph()
    suffix = ":0" if signature is None else ""
    x = graph.tensor(input_name + suffix, shape)
    scaled = graph.tensor("scaled", shape)
    y = graph.tensor(output_name + suffix, shape)
    graph.operator("MUL", [x, graph.constant(scale)], [scaled])
    graph.operator("ADD", [scaled, graph.constant(offset)], [y])
    return graph.build({input_name: x}, {output_name: y}, signature=signature)


def fixed_one() -> bytes:
    """`y = 2x + 1` with shape [1, 4]: an invoke takes one record, so that a batch is looped."""
    return affine(shape=(1, 4))


def whole() -> bytes:
    """`y = 2x + 1` with shape [3, 2]: there is no batch dimension, a record is the whole tensor."""
    return affine(shape=(3, 2))


def free_inner() -> bytes:
    """`y = 2x + 1` with shape [-1, -1, 3]."""
    return affine(shape=(-1, -1, 3))


def scalar_records() -> bytes:
    """`y = 2x + 1` with shape [-1]: a record has rank 0."""
    return affine(shape=(-1,))


def picky_inner(size: int = 16) -> bytes:
    """`y` [-1, 1] is the sum of `x` [-1, -1]: the inner size looks free, and only `size` runs, as with real networks.

    LiteRT takes other sizes where the whole batch divides by `size`, and answers another number of rows.
    """
    graph = Graph()
    x = graph.tensor("x", (-1, -1))
    y = graph.tensor("y", (-1, 1))
    graph.operator("FULLY_CONNECTED", [x, graph.constant(np.ones((1, size)))], [y])
    return graph.build({"x": x}, {"y": y})


def identity(dtype: str, shape: Sequence[int] = (-1, 4)) -> bytes:
    """`y = x` in a dtype, one of NumPy's names, and `complex64` and `string` too (which are not served)."""
    graph = Graph()
    x = graph.tensor("x", shape, dtype)
    y = graph.tensor("y", shape, dtype)
    sizes = graph.constant(shape, "int32")
    graph.operator("RESHAPE", [x, sizes], [y], newShape=list(shape))
    return graph.build({"x": x}, {"y": y})


def two_in_two_out() -> bytes:
    """`total = sum(left) + sum(right)`, [-1, 1], and `difference = left - right`, [-1, 3]; both inputs are [-1, 3].

    The signature gives `left` before `right` and `difference` before `total`; the tensors lie the other way round.
    """
    graph = Graph()
    right = graph.tensor("tensor_0", (-1, 3))
    left = graph.tensor("tensor_1", (-1, 3))
    total = graph.tensor("tensor_2", (-1, 1))
    difference = graph.tensor("tensor_3", (-1, 3))
    both = graph.tensor("both", (-1, 3))
    graph.operator("ADD", [left, right], [both])
    graph.operator("SUM", [both, graph.constant([1], "int32")], [total], keepDims=True)
    graph.operator("SUB", [left, right], [difference])
    return graph.build({"right": right, "left": left}, {"total": total, "difference": difference})


def maximum_over_batch() -> bytes:
    """`y = x - max(x over the records)`, [-1, 4]: its shapes look free, and its rows are not independent."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    largest = graph.tensor("largest", (1, 4))
    y = graph.tensor("y", (-1, 4))
    graph.operator("REDUCE_MAX", [x, graph.constant([0], "int32")], [largest], keepDims=True)
    graph.operator("SUB", [x, largest], [y])
    return graph.build({"x": x}, {"y": y})


def doubles_rows() -> bytes:
    """Answers every record twice, one batch after another: [-1, 4] to [-1, 4] that looks free and is not."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    y = graph.tensor("y", (-1, 4))
    graph.operator("CONCATENATION", [x, x], [y], axis=0)
    return graph.build({"x": x}, {"y": y})


def lookup(values: Sequence[float] = (10.0, 20.0, 30.0)) -> bytes:
    """`y = values[x]`, int32 [-1, 1] to float32 [-1, 1]: the invoke fails where an index is out of range."""
    graph = Graph()
    x = graph.tensor("x", (-1, 1), "int32")
    y = graph.tensor("y", (-1, 1))
    graph.operator("GATHER", [graph.constant(values), x], [y])
    return graph.build({"x": x}, {"y": y})


def never_runs() -> bytes:
    """[-1, 4] to [-1, 1]: loads and allocates, and every invoke fails."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    y = graph.tensor("y", (-1, 1))
    graph.operator("GATHER", [x, graph.constant([9], "int32")], [y], axis=1)
    return graph.build({"x": x}, {"y": y})


def places_of_true() -> bytes:
    """The indexes where `x`, bool [4], is true: int64 [-1, 1], whose size depends on the record's content."""
    graph = Graph()
    x = graph.tensor("x", (4,), "bool")
    y = graph.tensor("y", (-1, 1), "int64")
    graph.operator("WHERE", [x], [y])
    return graph.build({"x": x}, {"y": y})


def running_sum() -> bytes:
    """Stateful: `y` is the sum of every `x`, [1, 4], that this interpreter has been given; it starts at zero."""
    graph = Graph()
    initial = graph.subgraph()
    handle = initial.tensor("handle", (), "resource")
    initial.operator("VAR_HANDLE", [], [handle], sharedName="sum", container="")
    initial.operator("ASSIGN_VARIABLE", [handle, initial.constant(np.zeros((1, 4)))], [])
    graph.operator("CALL_ONCE", [], [], initSubgraphIndex=1)
    x = graph.tensor("x", (1, 4))
    y = graph.tensor("y", (1, 4))
    handle = graph.tensor("handle", (), "resource")
    before = graph.tensor("before", (1, 4))
    graph.operator("VAR_HANDLE", [], [handle], sharedName="sum", container="")
    graph.operator("READ_VARIABLE", [handle], [before])
    graph.operator("ADD", [before, x], [y])
    graph.operator("ASSIGN_VARIABLE", [handle, y], [])
    return graph.build({"x": x}, {"y": y})


def signature_elsewhere() -> bytes:
    """`y = 2x`, [-1, 4], in the primary subgraph, where a signature names another subgraph, which invoke() never runs.

    The signature calls the tensors `other_x` and `other_y`.
    """
    graph = Graph()
    for part in (graph, graph.subgraph()):
        x = part.tensor("x", (-1, 4))
        y = part.tensor("y", (-1, 4))
        part.operator("ADD", [x, x], [y])
    return graph.build({"other_x": x}, {"other_y": y}, signature_subgraph=1)


def truncated(model: bytes) -> bytes:
    """The first half of a model."""
    return model[: len(model) // 2]
