"""What a `.tflite` file says of itself: tensors, operators and signatures, without an interpreter."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.tensors import Array, Shape

VARIABLE_OPS = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})
_CONTROL_OPS = frozenset({"WHILE", "IF", "CALL", "STABLEHLO_WHILE", "STABLEHLO_CASE"})
RANDOM_OPS = frozenset({"RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL", "STABLEHLO_RNG_BIT_GENERATOR"})
_RANDOM_FLEX = ("FlexRandom", "FlexStatelessRandom", "FlexMultinomial", "FlexTruncatedNormal", "FlexParameterized")

_FEW = 64
"""Numbers in a constant that may be a shape, axes or paddings, and is read as such."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantization:
    """`real = (integer - zero_point) * scale`, float32 and int64; several are for the steps of `axis`."""

    scale: Array
    zero_point: Array
    axis: int


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor of a subgraph, as the file declares it.

    Attributes:
        dtype: the schema's name in lower case: NumPy's, and `string`, `resource`, `variant`, `int4` and the like.
        shape: before any resize.
        shape_signature: with -1 for what is free; the same as `shape` where the file says no more.
        has_rank: False where the file does not say so; then () may be a scalar or a shape that is not known.
        data: a constant's bytes, not copied: while it is held, a mapped file cannot be closed. None for all else.
    """

    name: str
    dtype: str
    shape: Shape
    shape_signature: Shape
    has_rank: bool
    buffer: int
    data: memoryview | None
    is_variable: bool
    quantization: Quantization | None

    @property
    def constant(self) -> bool:
        return self.data is not None

    def integers(self) -> tuple[int, ...] | None:
        """The values of a small constant of int32 or int64, as axes and shapes are; None for any other tensor."""
        if self.data is None or self.dtype not in ("int32", "int64") or math.prod(self.shape) > _FEW:
            return None
        return tuple(int(value) for value in np.frombuffer(self.data, self.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """One operator of a subgraph.

    Attributes:
        name: the schema's name, for example `CONV_2D`; of a custom operator, the name that it has in the file.
        inputs: indexes of the subgraph's tensors; -1 for one that is left out.
        outputs: the same, never -1.
        options: a table of the schema, for example `schema.Conv2DOptions`, or None. It need not be of the kind that the
            operator wants: `option` looks.
    """

    name: str
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any

    def option(self, kind: str, field: str) -> Any:
        """A field of the options; None where they are not of that kind, as LiteRT too passes over them."""
        return getattr(self.options, field)() if type(self.options).__name__ == kind else None


@dataclass(frozen=True, slots=True, eq=False)
class Subgraph:
    """Operators stand in the order in which they run; inputs and outputs are indexes of tensors."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SignatureTensors:
    """Inputs and outputs are `{name: index of the subgraph's tensor}`, in the file's order."""

    key: str
    subgraph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A model file, looked through and found sound."""

    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[SignatureTensors, ...]
    metadata: dict[str, memoryview]

    @property
    def custom_ops(self) -> tuple[str, ...]:
        """Operators that LiteRT itself does not have, those of `flex_ops` too; sorted."""
        return tuple(sorted({operator.name for operator in self._operators() if operator.custom}))

    @property
    def flex_ops(self) -> tuple[str, ...]:
        """Operators that are TensorFlow's own (Select TF ops), sorted."""
        return tuple(name for name in self.custom_ops if name.startswith("Flex"))

    @property
    def stateful(self) -> bool:
        """Whether an invoke may leave something for the next: resource variables, or tensors that are kept.

        Recurrent operators (`UNIDIRECTIONAL_SEQUENCE_LSTM`, `SVDF`, `RNN`, …) keep their state in variable tensors, and
        start an invoke where the last one ended.
        """
        kept = any(tensor.is_variable for subgraph in self.subgraphs for tensor in subgraph.tensors)
        return kept or self._has(VARIABLE_OPS)

    @property
    def unpredictable(self) -> bool:
        """Whether the cost of an invoke may depend on the values it is given, so that a measurement says little."""
        return self._has(_CONTROL_OPS)

    @property
    def random(self) -> bool:
        """Whether the same input may be answered otherwise the next time."""
        return self._has(RANDOM_OPS) or any(name.startswith(_RANDOM_FLEX) for name in self.flex_ops)

    @property
    def strings(self) -> bool:
        """Whether any tensor holds strings."""
        return any(tensor.dtype == "string" for subgraph in self.subgraphs for tensor in subgraph.tensors)

    def _operators(self) -> Iterator[Operator]:
        return (operator for subgraph in self.subgraphs for operator in subgraph.operators)

    def _has(self, names: frozenset[str]) -> bool:
        return any(operator.name in names for operator in self._operators() if not operator.custom)
