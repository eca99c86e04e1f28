"""What a file says of itself, and that a damaged one is refused in one sentence, whatever is wrong with it."""

import mmap
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.errors import ModelError
from app.runtime import flatbuffer
from app.runtime.graph_file import read_graph
from tests import tflite
from tests.tflite import Graph

_MODELS: dict[str, Callable[[], bytes]] = {
    "affine": tflite.affine,
    "running_sum": tflite.running_sum,
    "two_in_two_out": tflite.two_in_two_out,
    "signature_elsewhere": tflite.signature_elsewhere,
    "picky_inner": tflite.picky_inner,
}


def while_loop() -> bytes:
    graph = Graph()
    graph.subgraph()
    x, y = graph.tensor("x", (-1, 4)), graph.tensor("y", (-1, 4))
    graph.operator("WHILE", [x], [y], condSubgraphIndex=1, bodySubgraphIndex=1)
    return graph.build({"x": x}, {"y": y})


def test_tensors_operators_and_signatures_are_read_as_they_were_written() -> None:
    graph = read_graph(tflite.affine(scale=3.0))
    (main,) = graph.subgraphs
    x = main.tensors[main.inputs[0]]
    assert [operator.name for operator in main.operators] == ["MUL", "ADD"]
    assert main.operators[0].outputs == main.operators[1].inputs[:1]
    assert (x.name, x.dtype, x.shape, x.shape_signature) == ("x", "float32", (1, 4), (-1, 4))
    assert not x.constant
    constants = [tensor for tensor in main.tensors if tensor.data is not None]
    assert [np.frombuffer(tensor.data or b"", np.float32).tolist() for tensor in constants] == [[3.0], [1.0]]
    (signature,) = graph.signatures
    assert signature.key == "serving_default"
    assert (signature.inputs, signature.outputs) == ({"x": main.inputs[0]}, {"y": main.outputs[0]})


def test_small_integer_constants_can_be_asked_for() -> None:
    (main,) = read_graph(tflite.maximum_over_batch()).subgraphs
    axes = main.tensors[main.operators[0].inputs[1]]
    assert axes.integers() == (0,)
    assert main.tensors[main.operators[0].inputs[0]].integers() is None


def test_options_of_another_kind_than_asked_for_are_none() -> None:
    (main,) = read_graph(tflite.maximum_over_batch()).subgraphs
    assert main.operators[0].option("ReducerOptions", "KeepDims") is True
    assert main.operators[0].option("GatherOptions", "Axis") is None


def test_a_mapped_file_is_read_without_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(tflite.affine())
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert len(read_graph(mapped).subgraphs) == 1


def test_quantization_is_told() -> None:
    graph = Graph()
    x, y = graph.tensor("x", (-1, 2), "int8"), graph.tensor("y", (-1, 2), "int8")
    graph.quantize(x, [0.5], [3])
    graph.quantize(y, [0.5, 0.25], [0, 0], axis=1)
    graph.operator("ADD", [x, x], [y])
    content = graph.build({"x": x}, {"y": y})
    (main,) = read_graph(content).subgraphs
    found = [main.tensors[index].quantization for index in (*main.inputs, *main.outputs)]
    assert [(q.scale.tolist(), q.zero_point.tolist(), q.axis) for q in found if q] == [
        ([0.5], [3], 0),
        ([0.5, 0.25], [0, 0], 1),
    ]


@pytest.mark.parametrize(
    ("model", "stateful", "unpredictable"),
    [
        (tflite.affine(), False, False),
        # What is called once is over when the first invoke is: it says nothing of what the others cost.
        (tflite.running_sum(), True, False),
        (tflite.identity("string"), False, False),
        (while_loop(), False, True),
    ],
)
def test_facts_of_a_graph(model: bytes, stateful: bool, unpredictable: bool) -> None:
    graph = read_graph(model)
    assert (graph.stateful, graph.unpredictable) == (stateful, unpredictable)
    assert graph.strings == (model == tflite.identity("string"))
    assert not graph.random
    assert graph.custom_ops == graph.flex_ops == ()


def test_a_tensor_that_is_kept_between_invokes_is_state() -> None:
    graph = Graph()
    x, kept, y = graph.tensor("x", (1, 4)), graph.tensor("kept", (1, 4)), graph.tensor("y", (1, 4))
    graph.tensors[kept].isVariable = True
    graph.operator("ADD", [x, kept], [y])
    assert read_graph(graph.build({"x": x}, {"y": y})).stateful


def test_custom_and_select_operators_are_named() -> None:
    graph = Graph()
    x, z, y = graph.tensor("x", (-1, 4)), graph.tensor("z", (-1, 4)), graph.tensor("y", (-1, 4))
    graph.custom_operator("FlexRandomUniform", [x], [z])
    graph.custom_operator("Mine", [z], [y])
    found = read_graph(graph.build({"x": x}, {"y": y}))
    assert found.custom_ops == ("FlexRandomUniform", "Mine")
    assert found.flex_ops == ("FlexRandomUniform",)
    assert found.random


def _built(spoil: Callable[[Graph, int, int], None]) -> bytes:
    """`y = x + 1`, spoilt before it is written."""
    graph = Graph()
    x, y = graph.tensor("x", (-1, 4)), graph.tensor("y", (-1, 4))
    graph.operator("ADD", [x, graph.constant([1.0] * 4)], [y])
    spoil(graph, x, y)
    return graph.build({"x": x}, {"y": y})


def _set(what: str, field: str, value: object, number: int = 0) -> Callable[[Graph, int, int], None]:
    return lambda graph, x, y: setattr(getattr(graph, what)[number], field, value)


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        (_set("operators", "inputs", [0, 99]), "name the tensor 99 of 3"),
        (_set("operators", "inputs", [0, -2]), "name the tensor -2 of 3"),
        (_set("operators", "outputs", [-1]), "name the tensor -1 of 3"),
        (_set("operators", "opcodeIndex", 7), "names the operator code 7 of 1"),
        (_set("codes", "builtinCode", 9999), "the operator code 9999"),
        (_set("tensors", "buffer", 40), "names the buffer 40 of 2"),
        (_set("tensors", "type", 120), "is of type 120"),
        (_set("tensors", "shape", [1, -4]), "has the shape [1, -4]"),
        (_set("tensors", "shape", [2**20, 2**20]), "more than 2 GiB"),
        (_set("tensors", "shape", [2**31 - 1] * 9), "more than 2 GiB"),
        (_set("tensors", "shape", [1] * 40), "has the shape"),
        (_set("tensors", "shape", [5], 2), "has 16 bytes, and its shape [5] takes 20"),
        (_set("tensors", "isVariable", True, 2), "is a variable and a constant"),
        (_set("tensors", "buffer", 1), "the input 'x' of subgraph 0 is a constant"),
        (_set("operators", "outputs", [2]), "writes the tensor 2, which has its value already"),
        (_set("operators", "outputs", [0]), "writes the tensor 0, which has its value already"),
        (_set("operators", "inputs", [1, 2]), "reads the tensor 1 before it is written"),
        (_set("operators", "outputs", []), "the output 'y' of subgraph 0 is never written"),
        (lambda graph, x, y: graph.quantize(x, [1.0, 2.0], [0, 0], axis=3), "2 scales along axis 3"),
        (lambda graph, x, y: graph.quantize(x, [1.0], [0, 0]), "1 scales and 2 zero points"),
    ],
)
def test_what_an_interpreter_would_take_on_trust_is_refused(
    spoil: Callable[[Graph, int, int], None], wrong: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(wrong)) as caught:
        read_graph(_built(spoil))
    assert caught.value.message.startswith("the file ")


def test_a_call_of_a_subgraph_that_is_not_there_is_refused() -> None:
    graph = Graph()
    x, y = graph.tensor("x", (-1, 4)), graph.tensor("y", (-1, 4))
    graph.operator("WHILE", [x], [y], condSubgraphIndex=1, bodySubgraphIndex=1)
    with pytest.raises(ModelError, match="calls the subgraph 1 of 1"):
        read_graph(graph.build({"x": x}, {"y": y}))


def test_subgraphs_that_call_one_another_in_a_circle_are_refused() -> None:
    graph = Graph()
    x, y = graph.tensor("x", (-1, 4)), graph.tensor("y", (-1, 4))
    graph.operator("WHILE", [x], [y], condSubgraphIndex=0, bodySubgraphIndex=0)
    with pytest.raises(ModelError, match="in a circle"):
        read_graph(graph.build({"x": x}, {"y": y}))


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 64, b"PK\3\4" + b"\0" * 40, tflite.affine()[:6]])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"is no \.tflite model"):
        read_graph(content)


def test_a_file_of_2_gib_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.tflite"
    with path.open("wb") as file:
        file.truncate(2**31)
    with path.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    with mapped, pytest.raises(ModelError, match="2,147,483,648 bytes, more than"):
        read_graph(mapped)


def test_a_file_that_asks_for_more_visits_than_it_has_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flatbuffer, "_MOST_TABLES", 10_000)
    with pytest.raises(ModelError, match="more than 10,000 tables"):
        read_graph(tflite.bomb(width=120))


@pytest.mark.parametrize("name", _MODELS)
def test_every_truncation_is_refused(name: str) -> None:
    content = _MODELS[name]()
    for size in range(0, len(content) - 4, 3):
        with pytest.raises(ModelError):
            read_graph(content[:size])


@pytest.mark.parametrize("name", _MODELS)
def test_flipped_bits_and_wild_lengths_are_read_or_refused_and_nothing_else(name: str) -> None:
    """Any other exception than `ModelError` fails the test; so does a loop of a corrupted length, by the time-out."""
    content = _MODELS[name]()
    chance = random.Random(name)
    messages = []
    for turn in range(800):
        spoilt = bytearray(content)
        place = chance.randrange(len(content) - 4)
        if turn % 4:
            spoilt[place] ^= 1 << chance.randrange(8)
        else:
            spoilt[place : place + 4] = chance.choice(
                [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0" * 4]
            )
        try:
            read_graph(bytes(spoilt))
        except ModelError as error:
            messages.append(error.message)
    assert len(messages) > 200
    assert all(message.startswith("the file ") and "\n" not in message for message in messages)
