"""One signature of a model as TensorFlow runs it: named tensors in, named tensors out."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from child_reasons import Refused

Tensors = dict[str, Any]
"""NumPy arrays by name."""

Shape = list[int | None] | None
"""Free dimensions are None; so is a shape of unknown rank."""

_KEPT = re.compile(r"^Assign|^ResourceScatter|^Scatter(Add|Sub|Mul|Div|Max|Min|Update|Nd)|^LookupTable(Insert|Remove)")
"""Graph ops that change what outlives a call: variables and mutable tables."""


@dataclass(eq=False)
class Signature:
    """What can be called by one name.

    Attributes:
        function: the concrete function, as loaded from the model's SavedModel.
        inputs: `tf.TensorSpec` by name.
        output_shapes: in the order of `outputs`.
        is_whole: whatever its shapes look like, its leading dimension is no batch.
        run: TensorFlow's answer; not `function` itself for a Keras model, whose export is thereby compared with it.
    """

    name: str
    function: Any
    inputs: dict[str, Any]
    outputs: list[str]
    output_shapes: list[Shape]
    run: Callable[[Tensors], Tensors]
    is_whole: bool = False

    @property
    def batching(self) -> str:
        """`free`, `one` or `none`: as Litepool's signatures class the leading dimensions."""
        shapes = [shape_of(spec.shape) for spec in self.inputs.values()] + self.output_shapes
        leading = {0} if self.is_whole else {shape[0] if shape else 0 for shape in shapes}
        return "free" if leading == {None} else "one" if leading == {1} else "none"

    def record_shape(self, name: str) -> list[int | None]:
        """The shape of one record of an input."""
        return (shape_of(self.inputs[name].shape) or [])[self.batching != "none" :]

    def check(self, tf: Any) -> None:
        """Refuse what could be converted and not be served."""
        import numpy as np

        for name, spec in self.inputs.items():
            if not isinstance(spec, tf.TensorSpec):
                raise Refused(f"input {name!r} is a {type(spec).__name__}, which is not served: feed it plain tensors")
            if spec.dtype != tf.string and np.dtype(spec.dtype.as_numpy_dtype).kind not in "fiubc":
                raise Refused(f"input {name!r} holds {spec.dtype.name} values, which are not served: feed it numbers")

    @cached_property
    def keeps_state(self) -> bool:
        """Whether a call changes what a later one answers."""
        return any(_KEPT.search(node.op) for node in nodes_of(self.function))


def signature_of(tf: Any, name: str, function: Any) -> Signature:
    """The signature of a loaded concrete function."""
    outputs = dict(function.structured_outputs)

    def run(tensors: Tensors) -> Tensors:
        # By name, and not in order: the function takes its inputs in another.
        result = function(**{key: tf.constant(value, inputs[key].dtype) for key, value in tensors.items()})
        return {key: result[key].numpy() for key in outputs}

    inputs = dict(function.structured_input_signature[1])
    return Signature(name, function, inputs, list(outputs), [shape_of(each.shape) for each in outputs.values()], run)


def shape_of(shape: Any) -> Shape:
    return shape.as_list() if shape.rank is not None else None


def called(function: Any) -> list[str]:
    """The functions that a signature's wrapper calls: of two signatures with the same, one is another name."""
    nodes = function.graph.as_graph_def().node
    return sorted(node.attr["f"].func.name for node in nodes if "f" in node.attr)


def nodes_of(function: Any) -> Iterator[Any]:
    """The nodes of a concrete function, and of all functions that it calls. Its library holds others, too."""
    graph = function.graph.as_graph_def()
    library = {each.signature.name: each.node_def for each in graph.library.function}
    waiting, seen = [graph.node], set[str]()
    while waiting:
        for node in waiting.pop():
            yield node
            for attr in node.attr.values():
                for name in {attr.func.name, *(each.name for each in attr.list.func)} - seen:
                    seen.add(name)
                    waiting.append(library.get(name, ()))
