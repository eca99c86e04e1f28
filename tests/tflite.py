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
    **{name: getattr(schema.TensorType, name.upper()) for name in ("bfloat16", "resource", "variant")},
}  # fmt: skip

_OPTIONS_BY_ANOTHER_NAME = {
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "SUM"), "ReducerOptions"),
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONV_2D": "Conv2DOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "RANDOM_UNIFORM": "RandomOptions",
    "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions",
    "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions",
}


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
        kind, chosen = options_of(name, **options)
        self.operators.append(
            schema.OperatorT(
                opcodeIndex=len(self.codes) - 1,
                inputs=list(inputs),
                outputs=list(outputs),
                builtinOptionsType=kind,
                builtinOptions=chosen,
            )
        )

    def custom_operator(self, name: str, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Add an operator that LiteRT does not have."""
        code = schema.BuiltinOperator.CUSTOM
        self.codes.append(schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, customCode=name))
        self.operators.append(
            schema.OperatorT(opcodeIndex=len(self.codes) - 1, inputs=list(inputs), outputs=list(outputs))
        )

    def quantize(self, number: int, scale: Sequence[float], zero_point: Sequence[int], axis: int = 0) -> None:
        """Say what a tensor's integers stand for."""
        self.tensors[number].quantization = schema.QuantizationParametersT(
            scale=list(scale), zeroPoint=list(zero_point), quantizedDimension=axis
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
        more: Sequence[tuple[str, dict[str, int], dict[str, int]]] = (),
    ) -> bytes:
        """The model's bytes. The tensors are listed in the order given; None leaves the signature out.

        Args:
            more: signatures of the subgraphs from number 1 on: key, inputs and outputs.
        """
        parts = {"": (0, inputs, outputs), signature or "": (signature_subgraph, inputs, outputs)}
        parts |= {key: (number, given, out) for number, (key, given, out) in enumerate(more, 1)}
        return self.build_several(parts)

    def build_several(self, signatures: dict[str, tuple[int, dict[str, int], dict[str, int]]]) -> bytes:
        """The bytes of a model with several signatures: `{name: (subgraph, inputs, outputs)}`.

        What has the empty name is of its subgraph's inputs and outputs only, and is no signature.
        """
        ends: dict[int, tuple[dict[int, None], dict[int, None]]] = {}
        for subgraph, inputs, outputs in signatures.values():
            taken, given = ends.setdefault(subgraph, ({}, {}))
            taken.update(dict.fromkeys(inputs.values()))
            given.update(dict.fromkeys(outputs.values()))
        model = schema.ModelT(
            version=3,
            operatorCodes=self.codes,
            subgraphs=[
                part._subgraph(f"part_{number}", *(list(end) for end in ends.get(number, ({}, {}))))
                for number, part in enumerate((self, *self.others))
            ],
            buffers=self.buffers,
            description="made for a test",
            signatureDefs=[
                schema.SignatureDefT(
                    inputs=_named(inputs), outputs=_named(outputs), signatureKey=name, subgraphIndex=subgraph
                )
                for name, (subgraph, inputs, outputs) in signatures.items()
                if name
            ],
        )
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def _subgraph(self, name: str, inputs: list[int], outputs: list[int]) -> Any:
        return schema.SubGraphT(
            tensors=self.tensors, inputs=inputs, outputs=outputs, operators=self.operators, name=name
        )


def options_of(name: str, **options: Any) -> tuple[int, Any]:
    """An operator's options, by their fields' names, and the number of their kind."""
    kind = _OPTIONS_BY_ANOTHER_NAME.get(name, name.title().replace("_", "") + "Options")
    chosen = getattr(schema, kind + "T")()
    for option, value in options.items():
        assert hasattr(chosen, option), option
        setattr(chosen, option, value)
    return getattr(schema.BuiltinOptions, kind), chosen


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
    """`y = x` in a dtype, one of NumPy's names, and `complex64` and `string` too."""
    graph = Graph()
    x = graph.tensor("x", shape, dtype)
    y = graph.tensor("y", shape, dtype)
    sizes = graph.constant(shape, "int32")
    graph.operator("RESHAPE", [x, sizes], [y], newShape=list(shape))
    return graph.build({"x": x}, {"y": y})


def quantized(scale: float = 0.5, zero_point: int = -1) -> bytes:
    """`y = x`, int8 [-1, 4], whose integers stand for `scale * (raw - zero_point)`."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4), "int8")
    y = graph.tensor("y", (-1, 4), "int8")
    for number in (x, y):
        graph.quantize(number, [scale], [zero_point])
    graph.operator("RESHAPE", [x, graph.constant((-1, 4), "int32")], [y], newShape=[-1, 4])
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


def first_row_taken() -> bytes:
    """`y = x - x[0]`, [-1, 4]: the first record of a batch has a say in all."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    first = graph.tensor("first", (1, 4))
    y = graph.tensor("y", (-1, 4))
    begin, size = graph.constant([0, 0], "int32"), graph.constant([1, 4], "int32")
    graph.operator("SLICE", [x, begin, size], [first])
    graph.operator("SUB", [x, first], [y])
    return graph.build({"x": x}, {"y": y})


def reshaped(shape: Sequence[int], declared: Sequence[int] = (-1, 4)) -> bytes:
    """`y` is `x`, [-1, 4], in another shape than it declares: [1, -1] folds records into an axis, [1, 4] takes one."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    y = graph.tensor("y", declared)
    graph.operator("RESHAPE", [x, graph.constant(shape, "int32")], [y], newShape=list(shape))
    return graph.build({"x": x}, {"y": y})


def noisy() -> bytes:
    """`y = x +` random numbers, [-1, 4]."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    size = graph.tensor("size", (2,), "int32")
    noise = graph.tensor("noise", (-1, 4))
    y = graph.tensor("y", (-1, 4))
    graph.operator("SHAPE", [x], [size], outType=_TYPES["int32"])
    graph.operator("RANDOM_UNIFORM", [size], [noise])
    graph.operator("ADD", [x, noise], [y])
    return graph.build({"x": x}, {"y": y})


def several_signatures(*, second_runs: bool = True) -> bytes:
    """`serving_default`: `y = 2x`; `less`: `z = x - max(x over the records)`, or what never runs; all [-1, 4]."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    y = graph.tensor("y", (-1, 4))
    graph.operator("ADD", [x, x], [y])
    other = graph.subgraph()
    a = other.tensor("a", (-1, 4))
    z = other.tensor("z", (-1, 4))
    if second_runs:
        largest = other.tensor("largest", (1, 4))
        other.operator("REDUCE_MAX", [a, other.constant([0], "int32")], [largest], keepDims=True)
        other.operator("SUB", [a, largest], [z])
    else:
        other.operator("GATHER", [a, other.constant([9], "int32")], [z], axis=1)
    return graph.build({"x": x}, {"y": y}, more=[("less", {"x": a}, {"z": z})])


def foreign(name: str) -> bytes:
    """Needs an operator that LiteRT does not have."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    y = graph.tensor("y", (-1, 4))
    graph.custom_operator(name, [x], [y])
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


def two_signatures() -> bytes:
    """`serving_default`: `y = 2x + 1`, [-1, 4]; `add`: `total = left + right`, [-1, 2], in a subgraph of its own."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    scaled = graph.tensor("scaled", (-1, 4))
    y = graph.tensor("y", (-1, 4))
    graph.operator("MUL", [x, graph.constant(2.0)], [scaled])
    graph.operator("ADD", [scaled, graph.constant(1.0)], [y])
    other = graph.subgraph()
    left = other.tensor("left", (-1, 2))
    right = other.tensor("right", (-1, 2))
    total = other.tensor("total", (-1, 2))
    other.operator("ADD", [left, right], [total])
    return graph.build_several(
        {"serving_default": (0, {"x": x}, {"y": y}), "add": (1, {"left": left, "right": right}, {"total": total})}
    )


def two_names() -> bytes:
    """`y = 2x + 1`, [-1, 4], in one subgraph with two signatures: `serving_default`, and `other` from `a` to `b`."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    scaled = graph.tensor("scaled", (-1, 4))
    y = graph.tensor("y", (-1, 4))
    graph.operator("MUL", [x, graph.constant(2.0)], [scaled])
    graph.operator("ADD", [scaled, graph.constant(1.0)], [y])
    return graph.build_several({"serving_default": (0, {"x": x}, {"y": y}), "other": (0, {"a": x}, {"b": y})})


def account() -> bytes:
    """Stateful, [1, 4]: `serving_default` adds `x` to a sum and gives it; `peek` gives `sum + x` and keeps nothing."""
    graph = Graph()
    initial = graph.subgraph()
    handle = initial.tensor("handle", (), "resource")
    initial.operator("VAR_HANDLE", [], [handle], sharedName="sum", container="")
    initial.operator("ASSIGN_VARIABLE", [handle, initial.constant(np.zeros((1, 4)))], [])
    ends = []
    for part, keeps in ((graph, True), (graph.subgraph(), False)):
        part.operator("CALL_ONCE", [], [], initSubgraphIndex=1)
        x = part.tensor("x", (1, 4))
        y = part.tensor("y", (1, 4))
        handle = part.tensor("handle", (), "resource")
        before = part.tensor("before", (1, 4))
        part.operator("VAR_HANDLE", [], [handle], sharedName="sum", container="")
        part.operator("READ_VARIABLE", [handle], [before])
        part.operator("ADD", [before, x], [y])
        if keeps:
            part.operator("ASSIGN_VARIABLE", [handle, y], [])
        ends.append(({"x": x}, {"y": y}))
    return graph.build_several({"serving_default": (0, *ends[0]), "peek": (2, *ends[1])})


def counted_lookup(values: Sequence[float] = (10.0, 20.0, 30.0)) -> bytes:
    """Stateful: `y = values[x] + count`, int32 [1, 1] to float32 [1, 1], where `count` is how many it has answered.

    An index that is out of range is an error, before anything is counted.
    """
    graph = Graph()
    initial = graph.subgraph()
    handle = initial.tensor("handle", (), "resource")
    initial.operator("VAR_HANDLE", [], [handle], sharedName="count", container="")
    initial.operator("ASSIGN_VARIABLE", [handle, initial.constant(np.zeros((1, 1)))], [])
    graph.operator("CALL_ONCE", [], [], initSubgraphIndex=1)
    x = graph.tensor("x", (1, 1), "int32")
    found = graph.tensor("found", (1, 1))
    before = graph.tensor("before", (1, 1))
    after = graph.tensor("after", (1, 1))
    y = graph.tensor("y", (1, 1))
    handle = graph.tensor("handle", (), "resource")
    graph.operator("GATHER", [graph.constant(values), x], [found])
    graph.operator("VAR_HANDLE", [], [handle], sharedName="count", container="")
    graph.operator("READ_VARIABLE", [handle], [before])
    graph.operator("ADD", [before, graph.constant([[1.0]])], [after])
    graph.operator("ASSIGN_VARIABLE", [handle, after], [])
    graph.operator("ADD", [found, after], [y])
    return graph.build({"x": x}, {"y": y})


def misfit() -> bytes:
    """`y` is the sum of `x`, [-1, 4]: it is said to be [-1, 4] as well, and is [-1, 1]."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    y = graph.tensor("y", (-1, 4))
    graph.operator("SUM", [x, graph.constant([1], "int32")], [y], keepDims=True)
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


def bomb(width: int) -> bytes:
    """A few kilobytes that hold `width` times `width` tensors: every entry of a vector is the same table."""
    builder = flatbuffers.Builder(1024)

    def same(table: Any) -> Any:
        builder.StartVector(4, width, 4)
        for _ in range(width):
            builder.PrependUOffsetTRelative(table)
        return builder.EndVector()

    schema.TensorStart(builder)
    tensors = same(schema.TensorEnd(builder))
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    subgraphs = same(schema.SubGraphEnd(builder))
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddSubgraphs(builder, subgraphs)
    builder.Finish(schema.ModelEnd(builder), _IDENTIFIER)
    return bytes(builder.Output())


def truncated(model: bytes) -> bytes:
    """The first half of a model."""
    return model[: len(model) // 2]
