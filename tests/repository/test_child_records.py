"""What TensorFlow is asked about. Without TensorFlow: specs and dtypes are stood in for."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from child_reasons import Refused
from child_records import ROWS, Records, attempts, fitting, together
from child_reference import alike
from child_signature import Signature

GRAPH = SimpleNamespace(node=[], library=SimpleNamespace(function=[]))
EMPTY = SimpleNamespace(graph=SimpleNamespace(as_graph_def=lambda: GRAPH))
"""A function that does nothing."""


def spec(dtype: str, *shape: int | None) -> Any:
    kind = object if dtype == "string" else np.dtype(dtype).type
    return SimpleNamespace(
        dtype=SimpleNamespace(name=dtype, as_numpy_dtype=kind),
        shape=SimpleNamespace(rank=len(shape), as_list=lambda: list(shape)),
    )


def signature(output: list[int | None] | None = None, **inputs: Any) -> Signature:
    return Signature("main", EMPTY, inputs, ["y"], [[None, 1] if output is None else output], dict)


def first(signed: Signature, real: dict[str, Any] | None = None) -> Records:
    return next(attempts(signed, real))


def test_records_of_floats_are_unlike_and_the_same_each_time() -> None:
    signed = signature(x=spec("float32", None, 3))
    records = first(signed)
    values = records.tensors["x"]

    assert values.shape == (ROWS, 3)
    assert values.dtype == np.float32
    assert (values[0] == 0).all()
    assert (values[1] == 1).all()
    assert np.abs(values[-records.loud :]).max() > 10 * np.abs(values[: -records.loud]).max()
    assert len(np.unique(values.round(3), axis=0)) == ROWS
    assert (first(signed).tensors["x"] == values).all()


def test_inputs_have_records_of_their_own() -> None:
    tensors = first(signature(a=spec("float32", None, 3), b=spec("float32", None, 3))).tensors

    assert not (tensors["a"][2:] == tensors["b"][2:]).any()


def test_integers_grow_smaller_until_they_are_safe_as_indices() -> None:
    largest = [int(records.tensors["x"].max()) for records in attempts(signature(x=spec("int32", None, 50)), None)]

    assert largest == [99, 9, 1]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool", "float16", "float64", "complex64"])
def test_records_have_the_dtype_of_the_input(dtype: str) -> None:
    for records in attempts(signature(x=spec(dtype, None, 3)), None):
        assert records.tensors["x"].dtype == dtype


def test_strings_are_short_words_as_bytes() -> None:
    values = first(signature(x=spec("string", None, 2))).tensors["x"]

    assert values.shape == (ROWS, 2)
    assert values.dtype.kind == "S"
    assert len(np.unique(values)) > 3


def test_free_sizes_are_tried_one_after_another() -> None:
    sizes = [records.tensors["x"].shape for records in attempts(signature(x=spec("float32", None, None, 3)), None)]

    assert [shape[1] for shape in sizes[::3]] == [16, 8, 32, 64, 96, 128, 160, 224, 256, 1, 512, 1280, 4096, 16000]
    assert all(shape[0] == ROWS and shape[2] == 3 for shape in sizes)


def test_of_several_free_sizes_one_is_then_large_and_none_makes_a_record_too_large() -> None:
    free = signature(x=spec("float32", None, None, None, 3), y=spec("float32", None, 2))
    sizes = [records.tensors["x"].shape[1:3] for records in attempts(free, None)][::3]

    assert sizes[9:13] == [(1, 1), (512, 512), (32, 1), (1, 32)]


def test_without_a_batch_a_record_is_the_whole_tensor() -> None:
    signed = signature([2], x=spec("float32", None, 3))

    assert signed.batching == "none"
    assert first(signed).tensors["x"].shape == (ROWS, 16, 3)


def test_real_records_come_first_and_the_others_are_of_their_shape() -> None:
    signed = signature(x=spec("float32", None, None))
    real = {"x": np.full((20, 7), 3, np.float32)}
    found = list(attempts(signed, real))

    assert [records.real for records in found] == [16] * 4
    assert found[0].tensors["x"].shape == (16 + ROWS, 7)
    assert (found[0].tensors["x"][:16] == 3).all()
    assert (found[-1].tensors["x"] == 3).all()


def test_real_records_are_taken_in_the_inputs_order_and_dtype() -> None:
    signed = signature(b=spec("float32", None, 2), a=spec("int64", None))
    given = {"a": np.ones(3, np.int32), "b": np.ones((3, 2)), "more": np.zeros(3)}

    found = fitting(signed, given, "samples")

    assert {name: value.dtype for name, value in found.items()} == {"b": np.float32, "a": np.int64}
    assert list(found) == ["b", "a"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"z": np.ones((3, 2))}, "the samples hold no input 'x': expected x"),
        (
            {"x": np.ones((3, 4))},
            "the samples give input 'x' records of shape [4], and the model takes [2]",
        ),
        (
            {"x": np.ones((3, 2, 1))},
            "the samples give input 'x' records of shape [2, 1], and the model takes [2]",
        ),
    ],
)
def test_records_of_another_model_are_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused) as caught:
        fitting(signature(x=spec("float32", None, 2)), given, "samples")

    assert str(caught.value) == reason


def test_calibration_data_join_the_samples_where_they_are_of_one_shape() -> None:
    samples, calibration = {"x": np.zeros((2, 3))}, {"x": np.ones((4, 3))}

    joined = together(samples, calibration)

    assert joined is not None
    assert joined["x"].shape == (6, 3)
    assert (joined["x"][:2] == 0).all()
    assert together(samples, {"x": np.ones((4, 5))}) is samples
    assert together(None, calibration) is calibration
    assert together(None, None) is None


def test_of_records_with_answers_of_unlike_shapes_those_alike_are_kept_and_the_real_before_others() -> None:
    signed = signature([None], x=spec("int32"))
    values = np.array([0, 3, 5, 5, 7, 7, 7], np.int32)

    def count(tensors: dict[str, Any]) -> dict[str, Any]:
        return {"y": np.arange(tensors["x"])}

    most = alike(signed, count, Records({"x": values}, loud=1))
    real = alike(signed, count, Records({"x": values}, real=2))
    single = alike(signed, count, Records({"x": values[:3]}))

    assert most.tensors["x"].tolist() == [7, 7, 7]
    assert most.loud == 1
    assert real.tensors["x"].tolist() == [3]
    assert real.real == 1
    assert single.tensors["x"].tolist() == [5]
