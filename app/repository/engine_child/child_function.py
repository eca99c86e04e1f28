"""A SavedModel's signature as a function of arrays. The caller brings TensorFlow, since limits are set before it."""

import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from child_checks import check_ops
from child_reasons import Refused

_ASSIGNS = re.compile(
    r"^(Assign|Resource(Apply|Scatter|StridedSliceAssign|CountUpTo)|Rng|Stateful(Uniform|(Standard|Truncated)Normal))"
)
"""Graph ops that change a variable; random generators keep theirs in one."""

_HOARDS = re.compile(r"^LookupTable(Insert|Remove|Import)|Enqueue|Dequeue|^(Stack(Push|Pop)|Barrier|(Map)?(Uns|S)tage)")
"""Graph ops that change what can neither be told nor set back."""

_SIZES = (1, 8, 16, 32)
"""Sizes for free dimensions to warm up with, all alike."""

_WRAPPER = re.compile(r"\s*\[Op:\S+\]|\{\{.*?\}\} |^\s*\(\d+\) [A-Z_]+: +")


class Function:
    """A signature of a SavedModel: `serving_default`, or the only one, unless it is named.

    Args:
        tf: TensorFlow.
        dtypes: those that can be told and answered; bytes are dtype object.

    Raises:
        Refused: it is not safe to load, or has what is not served.
    """

    def __init__(self, tf: Any, source: Path, signature: str | None, dtypes: Sequence[np.dtype[Any]]) -> None:
        check_ops(source)
        self._tf = tf
        # Tables live as long as what was loaded does.
        self._loaded = tf.saved_model.load(str(source))
        name = choose(list(self._loaded.signatures), signature)
        self._function = self._loaded.signatures[name]
        # A SavedModel keeps no order of them, and as loaded they have another one in every process.
        self._inputs = dict(sorted(self._function.structured_input_signature[1].items()))
        self._outputs = dict(sorted(self._function.structured_outputs.items()))
        for tensor, spec in [*self._inputs.items(), *self._outputs.items()]:
            if np.dtype(spec.dtype.as_numpy_dtype) not in dtypes:
                raise Refused(f"its tensor {tensor!r} holds {spec.dtype.name} values, which are not served")
        ops = ops_of(self._function)
        if hoards := sorted(filter(_HOARDS.search, ops)):
            raise Refused(
                f"it keeps state by {', '.join(hoards)}, which cannot be told apart for requests: keep it in variables"
            )
        assigns = any(map(_ASSIGNS.search, ops))
        self._variables = list(self._function.variables) if assigns else []
        self._first = self._values()
        self._turn = threading.Lock()
        inputs = [describe(tensor, spec) for tensor, spec in self._inputs.items()]
        answers = self._warm_up()
        outputs = [describe(*tensor, answer) for tensor, answer in zip(self._outputs.items(), answers, strict=True)]
        self.description = {"signature": name, "inputs": inputs, "outputs": outputs, "stateful": assigns}

    def runner(self) -> "Runner":
        return Runner(self, self._first)

    def call(self, inputs: Sequence[Any]) -> list[Any]:
        """The outputs for inputs, both in the signature's order."""
        # Numbers are as they are sent, and not turned into what is wanted; of no strings the dtype must be told.
        tensors = {
            name: self._tf.constant(array, self._tf.string if array.dtype.kind == "O" else None)
            for name, array in zip(self._inputs, inputs, strict=True)
        }
        results = self._function(**tensors)
        # Of strings without a dimension numpy() makes bytes.
        return [np.asarray(results[name].numpy(), spec.dtype.as_numpy_dtype) for name, spec in self._outputs.items()]

    def call_with(self, state: list[Any], inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The outputs with the variables as they are given, and as they are then. One caller at a time."""
        if not self._variables:
            return self.call(inputs), state
        with self._turn:
            for variable, value in zip(self._variables, state, strict=True):
                variable.assign(value)
            return self.call(inputs), self._values()

    def _warm_up(self) -> list[Any]:
        """Run it once, because the first run is slow, on any plain input that will do: what it answers, or nothings."""
        for size in _SIZES:
            for fill in (0, 1):
                with suppress(Exception):
                    return self.runner().invoke([plain(spec, size, fill) for spec in self._inputs.values()])
        return [None] * len(self._outputs)

    def _values(self) -> list[Any]:
        return [variable.read_value() for variable in self._variables]


class Runner:
    """The function with variables of its own."""

    def __init__(self, function: Function, state: list[Any]) -> None:
        self._function = function
        self._state = state

    def invoke(self, inputs: Sequence[Any]) -> list[Any]:
        outputs, self._state = self._function.call_with(self._state, inputs)
        return outputs


def choose(names: list[str], wanted: str | None) -> str:
    """The signature to serve."""
    names = [name for name in names if not name.startswith("__")]
    wanted = wanted or ("serving_default" if "serving_default" in names or len(names) != 1 else names[0])
    if wanted not in names:
        found = f"the signatures {', '.join(sorted(names))}" if names else "no signature"
        raise Refused(f"the SavedModel has {found}: export it with one that is named {wanted}")
    return wanted


def describe(name: str, spec: Any, example: Any = None) -> list[Any]:
    """A tensor as the server is told of it: name, dtype, and shape with -1 for a free dimension."""
    if spec.shape.rank is not None:
        shape = [-1 if size is None else size for size in spec.shape.as_list()]
    elif example is not None:
        shape = [-1] * example.ndim
    else:
        raise Refused(f"its tensor {name!r} may have any number of dimensions: export it with a fixed number")
    return [name, np.dtype(spec.dtype.as_numpy_dtype).name, shape]


def ops_of(function: Any) -> set[str]:
    """The names of the operations of a function, and of those that it calls."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
    return {node.op for node in nodes}


def plain(spec: Any, size: int, fill: int) -> Any:
    """An array that is the same number, or the text of it, all over."""
    shape = [size if part is None else part for part in spec.shape.as_list()]
    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    return np.full(shape, str(fill).encode() if dtype.kind == "O" else fill, dtype)


def brief(error: Exception) -> str:
    """One line for what TensorFlow raises, whose texts tell first, and at length, where in the graph it was."""
    text = str(getattr(error, "message", error)).split("\n\t [[")[0]
    lines = [line for line in text.splitlines() if line.strip()]
    line = _WRAPPER.sub("", lines[-1]).strip() if lines else ""
    return " ".join(line.split())[:300] or type(error).__name__
