"""The models that the clients are tried on, written as a models folder.

`m` is the half_plus_two of TensorFlow Serving's own tests: y = x / 2 + 2, for records of rank 0.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests import tflite
from tests.tflite import Graph

TYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64",
    "string",
)  # fmt: skip

CLASSES = ("cat", "dog", "owl", "yak")

_WIDTH, _LAYERS = 1024, 150


def half_plus(offset: float) -> bytes:
    """`y = x / 2 + offset`, both [-1]."""
    return tflite.affine(0.5, offset, (-1,))


def every_type() -> bytes:
    """For each dtype an input by its name, [-1, 2], and an output of the same value, `same_<dtype>`."""
    graph = Graph()
    inputs, outputs = {}, {}
    sizes = graph.constant((-1, 2), "int32")
    for dtype in TYPES:
        inputs[dtype] = graph.tensor(dtype, (-1, 2), dtype)
        outputs[f"same_{dtype}"] = graph.tensor(f"same_{dtype}", (-1, 2), dtype)
        graph.operator("RESHAPE", [inputs[dtype], sizes], [outputs[f"same_{dtype}"]], newShape=[-1, 2])
    return graph.build(inputs, outputs)


def words() -> bytes:
    """`y = x`, strings [-1, 2], and the same again as `y_bytes`."""
    graph = Graph()
    x = graph.tensor("x", (-1, 2), "string")
    sizes = graph.constant((-1, 2), "int32")
    outputs = {name: graph.tensor(name, (-1, 2), "string") for name in ("y", "y_bytes")}
    for output in outputs.values():
        graph.operator("RESHAPE", [x, sizes], [output], newShape=[-1, 2])
    return graph.build({"x": x}, outputs)


def slow() -> bytes:
    """`y = x`, [-1, 1], by way of some 150 million multiplications for each record."""
    graph = Graph()
    x = graph.tensor("x", (-1, 1))
    wide = graph.tensor("wide", (-1, _WIDTH))
    graph.operator("FULLY_CONNECTED", [x, graph.constant(np.ones((_WIDTH, 1)))], [wide])
    mean = graph.constant(np.full((_WIDTH, _WIDTH), 1 / _WIDTH))
    for layer in range(_LAYERS):
        following = graph.tensor(f"layer_{layer}", (-1, _WIDTH))
        graph.operator("FULLY_CONNECTED", [wide, mean], [following])
        wide = following
    y = graph.tensor("y", (-1, 1))
    graph.operator("FULLY_CONNECTED", [wide, graph.constant(np.full((1, _WIDTH), 1 / _WIDTH))], [y])
    return graph.build({"x": x}, {"y": y})


def two_methods() -> bytes:
    """`serving_default`: `y = 2x`, [-1, 4]; `total`: the sum of `x`, [-1, 1]: scores, and a number."""
    graph = Graph()
    x = graph.tensor("x", (-1, 4))
    y = graph.tensor("y", (-1, 4))
    graph.operator("ADD", [x, x], [y])
    other = graph.subgraph()
    a = other.tensor("a", (-1, 4))
    total = other.tensor("total", (-1, 1))
    other.operator("SUM", [a, other.constant([1], "int32")], [total], keepDims=True)
    return graph.build({"x": x}, {"y": y}, more=[("total", {"x": a}, {"total": total})])


_MODELS: dict[str, Callable[[], bytes]] = {
    "m/1/model": lambda: half_plus(2.0),
    "half/1/model": lambda: half_plus(2.0),
    "half/2/model": lambda: half_plus(3.0),
    "two": tflite.two_in_two_out,
    "classes/model": tflite.affine,
    "words": words,
    "types": every_type,
    "methods": two_methods,
    "sum": tflite.running_sum,
    "places": tflite.places_of_true,
    "spare": tflite.affine,
    "slow": slow,
}

_CONFIGS = {
    "half": "versions = { all = true }\nlabels = { stable = 1, canary = 2 }\n",
    "classes": f"class_labels = {list(CLASSES)}\n",
}


def write(folder: Path) -> Path:
    """Write all models, and what `model.toml` says of some, into an empty folder."""
    for place, make in _MODELS.items():
        file = folder / f"{place}.tflite"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make())
    for name, text in _CONFIGS.items():
        (folder / name / "model.toml").write_text(text)
    return folder
