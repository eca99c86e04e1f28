"""That a proof of independent rows holds when the graph runs, and that what mixes rows is found and named.

Every graph here is one that LiteRT runs, so that the analysis is held against what rows really do.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from app.errors import ModelError
from app.runtime.graph_file import read_graph
from app.runtime.interpreter import Runner
from app.runtime.rows import Rows, row_verdict
from app.tensors import Array
from tests import tflite
from tests.tflite import Graph

_ROWS = 5

Build = Callable[[Graph, int], int]
"""Adds operators to a graph after its input `x`, float32 [-1, 2, 6], and gives the tensor that they end in."""


def _of(build: Build) -> bytes:
    graph = Graph()
    x = graph.tensor("x", (-1, 2, 6))
    return graph.build({"x": x}, {"y": build(graph, x)})


def _op(name: str, shape: tuple[int, ...], *constants: Any, dtype: str = "float32", **options: object) -> Build:
    """One operator over `x` and some constants: integers are int32, and all else float32."""

    def build(graph: Graph, x: int) -> int:
        numbers = [
            graph.constant(value, "int32" if np.asarray(value).dtype.kind == "i" else "float32") for value in constants
        ]
        y = graph.tensor("y", shape, dtype)
        graph.operator(name, [x, *numbers], [y], **options)
        return y

    return build


def _sizes(graph: Graph, x: int, *inner: int) -> int:
    """The shape [records, *inner] computed from `x`, as converters do it: SHAPE, STRIDED_SLICE, PACK."""
    shape, count, sizes = (graph.tensor(name, at, "int32") for name, at in (("s", (3,)), ("n", ()), ("d", (3,))))
    graph.tensors[sizes].shape = [1 + len(inner)]
    graph.operator("SHAPE", [x], [shape], outType=2)
    one = [graph.constant([value], "int32") for value in (0, 1, 1)]
    graph.operator("STRIDED_SLICE", [shape, *one], [count], shrinkAxisMask=1)
    graph.operator(
        "PACK", [count, *(graph.constant(size, "int32") for size in inner)], [sizes], valuesCount=1 + len(inner)
    )
    return sizes


def _flattened(graph: Graph, x: int) -> int:
    y = graph.tensor("y", (-1, 12))
    graph.operator("RESHAPE", [x, _sizes(graph, x, 12)], [y])
    return y


def _dense_over_folded_rows(graph: Graph, x: int) -> int:
    """What a dense layer over sequences becomes: [N, 2, 6] to [2 N, 6], a matrix, and back."""
    flat, dense, y = graph.tensor("flat", (-1, 6)), graph.tensor("dense", (-1, 3)), graph.tensor("y", (-1, 2, 3))
    graph.operator("RESHAPE", [x, graph.constant([-1, 6], "int32")], [flat])
    graph.operator("FULLY_CONNECTED", [flat, graph.constant(np.arange(18.0).reshape(3, 6))], [dense])
    graph.operator("RESHAPE", [dense, _sizes(graph, x, 2, 3)], [y])
    return y


def _folded_and_not_back(graph: Graph, x: int) -> int:
    flat, sums, y = graph.tensor("flat", (-1, 4)), graph.tensor("sums", (-1, 4)), graph.tensor("y", (-1, 2, 6))
    graph.operator("RESHAPE", [x, graph.constant([1, -1], "int32")], [flat])
    graph.operator("SOFTMAX", [flat], [sums], beta=1.0)
    graph.operator("RESHAPE", [sums, _sizes(graph, x, 2, 6)], [y])
    return y


def _zeros_beside(graph: Graph, x: int) -> int:
    zeros, y = graph.tensor("zeros", (-1, 2, 1)), graph.tensor("y", (-1, 2, 7))
    graph.operator("FILL", [_sizes(graph, x, 2, 1), graph.constant(0.0)], [zeros])
    graph.operator("CONCATENATION", [zeros, x], [y], axis=-1)
    return y


def _divided_by_the_count(graph: Graph, x: int) -> int:
    sizes, count, y = _sizes(graph, x, 1, 1), graph.tensor("count", (3,)), graph.tensor("y", (-1, 2, 6))
    small = graph.tensor("small", (1,))
    graph.operator("CAST", [sizes], [count], inDataType=2, outDataType=0)
    graph.operator("SLICE", [count, graph.constant([0], "int32"), graph.constant([1], "int32")], [small])
    graph.operator("DIV", [x, small], [y])
    return y


def _there_and_back(graph: Graph, x: int) -> int:
    """Time-major, a running sum along time, and back, as recurrent layers do."""
    order = graph.constant([1, 0, 2], "int32")
    turned, summed, y = graph.tensor("t", (2, -1, 6)), graph.tensor("u", (2, -1, 6)), graph.tensor("y", (-1, 2, 6))
    graph.operator("TRANSPOSE", [x, order], [turned])
    graph.operator("CUMSUM", [turned, graph.constant(0, "int32")], [summed])
    graph.operator("TRANSPOSE", [summed, order], [y])
    return y


def _dilated(graph: Graph, x: int, back: bool = True) -> int:
    """A convolution with holes: parts of the images become images, and again one image."""
    image, parts, done = (
        graph.tensor("i", (-1, 2, 6, 1)),
        graph.tensor("p", (-1, 1, 3, 1)),
        graph.tensor("c", (-1, 1, 3, 1)),
    )
    block, none = graph.constant([2, 2], "int32"), graph.constant([[0, 0], [0, 0]], "int32")
    graph.operator("EXPAND_DIMS", [x, graph.constant(-1, "int32")], [image])
    graph.operator("SPACE_TO_BATCH_ND", [image, block, none], [parts])
    weights = graph.constant(np.arange(3.0).reshape(1, 1, 3, 1))
    graph.operator("CONV_2D", [parts, weights, graph.constant([1.0])], [done], strideW=1, strideH=1)
    if not back:
        y = graph.tensor("y", (-1, 12))
        graph.operator("RESHAPE", [done, graph.constant([-1, 12], "int32")], [y])
        return y
    y = graph.tensor("y", (-1, 2, 6, 1))
    graph.operator("BATCH_TO_SPACE_ND", [done, block, none], [y])
    return y


def _multiplied_with_each_other(graph: Graph, x: int) -> int:
    flat, y = _flattened(graph, x), graph.tensor("y", (-1, 1))
    graph.operator("FULLY_CONNECTED", [flat, flat], [y])
    return y


def _attention(graph: Graph, x: int) -> int:
    scores, weights, y = graph.tensor("s", (-1, 2, 2)), graph.tensor("w", (-1, 2, 2)), graph.tensor("y", (-1, 2, 6))
    graph.operator("BATCH_MATMUL", [x, x], [scores], adjY=True)
    graph.operator("SOFTMAX", [scores], [weights], beta=1.0)
    graph.operator("BATCH_MATMUL", [weights, x], [y])
    return y


_APART: dict[str, Build] = {
    "elementwise": _op("ADD", (-1, 2, 6), 1.5),
    "a constant for each inner place": _op("MUL", (-1, 2, 6), np.arange(12.0).reshape(2, 6)),
    "flattened by a computed shape": _flattened,
    "flattened by -1": _op("RESHAPE", (-1, 12), [-1, 12]),
    "a dense layer over sequences": _dense_over_folded_rows,
    "zeros for each record": _zeros_beside,
    "time-major and back": _there_and_back,
    "dilated convolution": _dilated,
    "attention": _attention,
    "mean over time": _op("MEAN", (-1, 6), [1], keepDims=False),
    "maximum over negative axes": _op("REDUCE_MAX", (-1, 1, 1), [-1, -2], keepDims=True),
    "softmax": _op("SOFTMAX", (-1, 2, 6), beta=1.0),
    "the best place": _op("ARG_MAX", (-1, 2), -1, dtype="int64", outputType=4),
    "inner slice": _op("SLICE", (-1, 1, 3), [0, 1, 2], [-1, 1, 3]),
    "inner strided slice": _op(
        "STRIDED_SLICE", (-1, 6), [0, 1, 0], [0, 2, 0], [1, 1, 1], beginMask=5, endMask=5, shrinkAxisMask=2
    ),
    "inner gather": _op("GATHER", (-1, 2, 2), [5, 0], axis=2),
    "inner padding": _op("PAD", (-1, 4, 6), [[0, 0], [1, 1], [0, 0]]),
    "inner reversal": _op("REVERSE_V2", (-1, 2, 6), [1]),
    "inner repetition": _op("TILE", (-1, 4, 6), [1, 2, 1]),
    "a new axis inside": _op("EXPAND_DIMS", (-1, 2, 6, 1), 3),
    "transposed inside": _op("TRANSPOSE", (-1, 6, 2), [0, 2, 1]),
    "constant matrix": _op("BATCH_MATMUL", (-1, 2, 3), np.arange(18.0).reshape(6, 3)),
}  # fmt: skip

_TOGETHER: dict[str, tuple[Build, str]] = {
    "mean over records": (_op("MEAN", (-1, 2, 6), [0], keepDims=True), "MEAN over the batch axis at 'y'"),
    "mean over all, axes from the end": (_op("MEAN", (-1, 1, 1), [-3, 1], keepDims=True), "MEAN over the batch axis"),
    "only the first rows": (_op("SLICE", (-1, 2, 6), [0, 0, 0], [1, 2, 6]), "SLICE takes a part of the batch axis"),
    "rows backwards by stride": (
        _op("STRIDED_SLICE", (-1, 2, 6), [0, 0, 0], [0, 0, 0], [-1, 1, 1], beginMask=7, endMask=7),
        "STRIDED_SLICE takes a part of the batch axis",
    ),
    "rows backwards": (_op("REVERSE_V2", (-1, 2, 6), [0]), "REVERSE_V2 over the batch axis"),
    "running sum over records": (_op("CUMSUM", (-1, 2, 6), 0), "CUMSUM over the batch axis"),
    "row 0 for all": (_op("GATHER", (-1, 2, 6), [0], axis=0), "GATHER picks from the batch axis"),
    "repeated rows": (_op("TILE", (-1, 2, 6), [2, 1, 1]), "TILE repeats the batch axis"),
    "padded rows": (_op("PAD", (-1, 2, 6), [[1, 0], [0, 0], [0, 0]]), "PAD adds rows to the batch axis"),
    "moved away": (_op("TRANSPOSE", (-1, 2, 6), [1, 0, 2]), "does not have one row for each record"),
    "folded": (_op("RESHAPE", (-1, 24), [-1, 24]), "RESHAPE folds the batch axis into another"),
    "twice the rows": (_op("RESHAPE", (-1, 6), [-1, 6]), "does not have one row for each record"),
    "softmax over everything": (_folded_and_not_back, "SOFTMAX over the batch axis"),
    "divided by the count": (_divided_by_the_count, "DIV with a number that depends on how many records there are"),
    "rows by rows": (_multiplied_with_each_other, "FULLY_CONNECTED takes the records of one tensor as weights"),
    "best record": (_op("ARG_MAX", (-1, 6), 0, dtype="int64", outputType=4), "ARG_MAX over the batch axis"),
}


def _verdict(model: bytes) -> Rows:
    return row_verdict(read_graph(model), 0)


def _records() -> Array:
    scales = np.array([1.0, 1e4, 0.0, 1e-3, 7.0])[:, None, None]
    records: Array = np.random.default_rng(3).standard_normal((_ROWS, 2, 6)) * scales
    return records.astype(np.float32)


def _same_in_company(model: bytes) -> bool:
    """Whether each record is answered in a batch as it is alone."""
    runner, records = Runner(model), _records()
    try:
        (together,) = runner.invoke([records])
    except ModelError:
        return False
    if len(together) != _ROWS:
        return False
    alone = [runner.invoke([records[[row]]])[0] for row in range(_ROWS)]
    return all(
        answer.shape[0] == 1 and np.allclose(answer[0], together[row], rtol=1e-5, atol=1e-6)
        for row, answer in enumerate(alone)
    )


@pytest.mark.parametrize("name", _APART)
def test_rows_that_stay_apart_are_proven_and_do(name: str) -> None:
    model = _of(_APART[name])
    assert _verdict(model).verdict == "independent", _verdict(model).reason
    assert _same_in_company(model)


@pytest.mark.parametrize("name", _TOGETHER)
def test_rows_that_meet_are_found_and_named(name: str) -> None:
    build, reason = _TOGETHER[name]
    found = _verdict(_of(build))
    assert found.verdict == "mixing", found.reason
    assert reason in found.reason
    assert not _same_in_company(_of(build))


def test_places_of_a_record_that_do_not_lie_side_by_side_are_not_folded() -> None:
    """After a space-to-batch the parts of a record lie apart, and a reshape would join those of others."""
    model = _of(lambda graph, x: _dilated(graph, x, back=False))
    assert _verdict(model).verdict != "independent"
    assert not _same_in_company(model)


@pytest.mark.parametrize(
    ("model", "verdict", "reason"),
    [
        (tflite.affine(), "independent", "treats rows alone"),
        (tflite.scalar_records(), "independent", "treats rows alone"),
        (tflite.free_inner(), "independent", "treats rows alone"),
        (tflite.lookup(), "independent", "treats rows alone"),
        (tflite.two_in_two_out(), "independent", "treats rows alone"),
        (tflite.maximum_over_batch(), "mixing", "REDUCE_MAX over the batch axis at 'largest'"),
        (tflite.doubles_rows(), "mixing", "CONCATENATION over the batch axis at 'y'"),
        (tflite.picky_inner(), "unknown", "FULLY_CONNECTED on an input whose inner sizes are free at 'y'"),
        (tflite.fixed_one(), "unknown", "the leading dimension of 'x' is not free"),
        (tflite.whole(), "unknown", "the leading dimension of 'x' is not free"),
    ],
)
def test_the_models_of_the_tests(model: bytes, verdict: str, reason: str) -> None:
    found = _verdict(model)
    assert found.verdict == verdict
    assert reason in found.reason


def _with_custom(graph: Graph, x: int) -> int:
    y = graph.tensor("y", (-1, 2, 6))
    graph.custom_operator("Mine", [x], [y])
    return y


def _with_state(graph: Graph, x: int) -> int:
    kept, y = graph.tensor("kept", (1, 2, 6)), graph.tensor("y", (-1, 2, 6))
    graph.tensors[kept].isVariable = True
    graph.operator("ADD", [x, kept], [y])
    return y


def _with_dice(graph: Graph, x: int) -> int:
    dice, y = graph.tensor("dice", (-1, 2, 6)), graph.tensor("y", (-1, 2, 6))
    graph.operator("RANDOM_UNIFORM", [_sizes(graph, x, 2, 6)], [dice])
    graph.operator("ADD", [x, dice], [y])
    return y


def _with_condition(graph: Graph, x: int) -> int:
    found, y = graph.tensor("found", (-1, 3), "int64"), graph.tensor("y", (-1, 3), "float32")
    graph.operator("WHERE", [x], [found])
    graph.operator("CAST", [found], [y])
    return y


@pytest.mark.parametrize(
    ("build", "verdict", "reason"),
    [
        (_with_custom, "unknown", "Mine is not an operator of LiteRT's own at 'y'"),
        (_with_state, "mixing", "ADD keeps a state from one invoke to the next at 'y'"),
        (_with_dice, "mixing", "RANDOM_UNIFORM draws random numbers at 'dice'"),
        (_with_condition, "unknown", "WHERE is not known to treat rows alone at 'found'"),
        (
            _op("STRIDED_SLICE", (-1, 6), [0, 2, 0], [0, 3, 0], [1, 1, 1], beginMask=5, endMask=5, shrinkAxisMask=2),
            "unknown",
            "STRIDED_SLICE of a place that may lie outside of its axis",
        ),
        (
            _op("STRIDED_SLICE", (-1, 2, 6), [0], [0], [1], beginMask=1, endMask=1, newAxisMask=2),
            "unknown",
            "STRIDED_SLICE with masks that contradict one another",
        ),
        (_op("ADD", (-1, 2, 6), np.ones((5, 2, 6))), "unknown", "ADD with a constant that has something else for each"),
        (lambda graph, x: graph.constant(np.ones((1, 2))), "unknown", "is not free"),
    ],
)
def test_what_is_not_known_is_not_proven(build: Build, verdict: str, reason: str) -> None:
    found = _verdict(_of(build))
    assert found.verdict == verdict
    assert reason in found.reason


@pytest.mark.parametrize("build", [*_APART.values(), *(build for build, _ in _TOGETHER.values())])
def test_a_graph_whatever_stands_in_it_has_a_verdict(build: Build) -> None:
    """Operators with inputs, options and shapes that are not theirs, as flipped bits give them."""
    content = _of(build)
    chance = random.Random(len(content))
    read = 0
    for _ in range(150):
        spoilt = bytearray(content)
        spoilt[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        try:
            graph = read_graph(bytes(spoilt))
        except ModelError:
            continue
        read += 1
        assert row_verdict(graph, 0).reason
    assert read


@pytest.mark.parametrize("name", ["BATCH_MATMUL", "CONCATENATION", "FULLY_CONNECTED", "GATHER", "PACK", "TILE"])
def test_an_operator_without_the_inputs_it_needs_is_not_proven(name: str) -> None:
    graph = Graph()
    x, y = graph.tensor("x", (-1, 4)), graph.tensor("y", (-1, 4))
    graph.operator(name, [-1, -1, x], [y])
    assert _verdict(graph.build({"x": x}, {"y": y})).verdict != "independent"


def test_options_of_another_operator_are_passed_over_as_litert_does() -> None:
    """LiteRT then takes its defaults, and joins along axis 0."""
    graph = Graph()
    x, y = graph.tensor("x", (-1, 4)), graph.tensor("y", (-1, 8))
    graph.operator("CONCATENATION", [x, x], [y], axis=1)
    assert _verdict(graph.build({"x": x}, {"y": y})).verdict == "independent"
    other = tflite.options_of("GATHER", axis=1)
    graph.operators[0].builtinOptionsType, graph.operators[0].builtinOptions = other
    assert _verdict(graph.build({"x": x}, {"y": y})).verdict == "unknown"


def test_8_bit_weights_in_a_batch_of_matrices_are_not_taken_for_proven() -> None:
    graph = Graph()
    x, y = graph.tensor("x", (-1, 2, 6)), graph.tensor("y", (-1, 2, 3))
    weights = graph.constant(np.ones((6, 3)), "int8")
    graph.quantize(weights, [0.1], [0])
    graph.operator("BATCH_MATMUL", [x, weights], [y])
    assert _verdict(graph.build({"x": x}, {"y": y})).verdict == "unknown"
