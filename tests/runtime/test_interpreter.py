from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.errors import ModelError
from app.runtime.interpreter import Runner, one_line
from app.tensors import DTYPES, Batching
from tests import tflite

Open = Callable[[bytes], Runner]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def make(model: bytes) -> Runner:
        path = tmp_path / "model.tflite"
        path.write_bytes(model)
        return Runner(path)

    return make


def records(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_a_model_is_described_by_its_signature(opened: Open) -> None:
    signature = opened(tflite.affine(input_name="pixels", output_name="scores")).signature()

    assert signature.name == "serving_default"
    assert [(spec.name, spec.dtype.name, spec.shape) for spec in signature.inputs] == [("pixels", "float32", (-1, 4))]
    assert [(spec.name, spec.dtype.name, spec.shape) for spec in signature.outputs] == [("scores", "float32", (-1, 4))]


def test_names_come_from_the_signature_and_not_from_the_tensors(opened: Open) -> None:
    runner = opened(tflite.two_in_two_out())
    signature = runner.signature()
    left, right = records(2, 3) * 10, records(2, 3)

    outputs = runner.invoke([left, right])

    assert [spec.name for spec in signature.inputs] == ["left", "right"]
    assert [spec.name for spec in signature.outputs] == ["difference", "total"]
    assert outputs[0].tolist() == (left - right).tolist()
    assert outputs[1].tolist() == (left + right).sum(axis=1, keepdims=True).tolist()


def test_without_a_signature_the_tensors_own_names_are_taken(opened: Open) -> None:
    runner = opened(tflite.affine(signature=None))

    assert [spec.name for spec in runner.signature().inputs] == ["x"]
    assert [spec.name for spec in runner.signature().outputs] == ["y"]
    assert runner.invoke([records(1, 4)])[0].tolist() == [[1, 3, 5, 7]]


def test_another_name_of_the_only_signature_is_kept(opened: Open) -> None:
    assert opened(tflite.affine(signature="classify")).signature().name == "classify"


def test_a_signature_of_a_subgraph_that_invoke_never_runs_gives_no_names(opened: Open) -> None:
    runner = opened(tflite.signature_elsewhere())

    assert [spec.name for spec in runner.signature().inputs] == ["x"]
    assert runner.invoke([records(1, 4)])[0].tolist() == [[0, 2, 4, 6]]


@pytest.mark.parametrize(
    ("model", "shape", "batching"),
    [
        (tflite.affine(), (-1, 4), Batching.FREE),
        (tflite.scalar_records(), (-1,), Batching.FREE),
        (tflite.free_inner(), (-1, -1, 3), Batching.FREE),
        (tflite.fixed_one(), (1, 4), Batching.ONE),
        (tflite.whole(), (3, 2), Batching.NONE),
        (tflite.affine(shape=()), (), Batching.NONE),
    ],
)
def test_free_dimensions_are_those_of_the_signature(
    opened: Open, model: bytes, shape: tuple[int, ...], batching: Batching
) -> None:
    signature = opened(model).signature()

    assert signature.inputs[0].shape == shape
    assert signature.batching is batching


@pytest.mark.parametrize("dtype", sorted(dtype.name for dtype in DTYPES))
def test_every_dtype_goes_in_and_comes_out_as_it_is(opened: Open, dtype: str) -> None:
    runner = opened(tflite.identity(dtype))
    given = np.array([[0, 1, 1, 0], [1, 0, 0, 1]], dtype)

    (output,) = runner.invoke([given])

    assert runner.signature().inputs[0].dtype == np.dtype(dtype)
    assert output.dtype == np.dtype(dtype)
    assert output.tolist() == given.tolist()


@pytest.mark.parametrize("dtype", ["string", "complex64"])
def test_a_dtype_that_no_codec_carries_is_refused(opened: Open, dtype: str) -> None:
    runner = opened(tflite.identity(dtype))

    with pytest.raises(ModelError, match="tensor 'x' holds"):
        runner.signature()


def test_the_batch_may_change_with_each_invoke(opened: Open) -> None:
    runner = opened(tflite.affine())

    for rows in (1, 3, 3, 1, 257, 2):
        (output,) = runner.invoke([records(rows, 4)])
        assert output.tolist() == (records(rows, 4) * 2 + 1).tolist()


def test_outputs_are_copies_that_the_next_invoke_leaves_alone(opened: Open) -> None:
    runner = opened(tflite.affine())
    (first,) = runner.invoke([records(1, 4)])

    runner.invoke([records(1, 4) + 100])

    assert first.tolist() == [[1, 3, 5, 7]]


def test_an_array_at_an_odd_address_is_read_by_its_values(opened: Open) -> None:
    crooked = np.frombuffer(b"\0" + records(1, 4).tobytes(), np.float32, offset=1).reshape(1, 4)
    assert not crooked.flags.aligned

    assert opened(tflite.affine()).invoke([crooked])[0].tolist() == [[1, 3, 5, 7]]


def test_an_invoke_that_fails_says_why_in_one_line(opened: Open) -> None:
    with pytest.raises(ModelError, match=r"^the interpreter failed: gather index out of bounds.*$"):
        opened(tflite.never_runs()).invoke([records(1, 4)])


def test_an_invoke_after_one_that_failed_is_right_again(opened: Open) -> None:
    runner = opened(tflite.lookup((10.0, 20.0, 30.0)))
    good, bad = np.array([[1], [2]], np.int32), np.array([[1], [7]], np.int32)

    for _ in range(2):
        assert runner.invoke([good])[0].tolist() == [[20], [30]]
        with pytest.raises(ModelError, match="the interpreter failed"):
            runner.invoke([bad])
    assert runner.invoke([good])[0].tolist() == [[20], [30]]


def test_shapes_that_the_model_cannot_be_given_are_refused_and_harm_nothing(opened: Open) -> None:
    runner = opened(tflite.picky_inner(16))

    for _ in range(2):
        with pytest.raises(ModelError, match="the interpreter failed"):
            runner.invoke([records(1, 5)])
        for _ in range(2):
            assert runner.invoke([records(2, 16)])[0].tolist() == [[120], [376]]


@pytest.mark.parametrize(
    "content",
    [b"", b"x", tflite.truncated(tflite.affine()), b"\0" * 1000, b"PK\x03\x04" + b"\0" * 100, b"\0\0\0\x08TFL3"],
)
def test_a_file_that_is_no_model_is_refused(opened: Open, content: bytes) -> None:
    with pytest.raises(ModelError, match="LiteRT does not load it: "):
        opened(content)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="LiteRT does not load it: "):
        Runner(tmp_path / "nothing.tflite")


def test_variables_in_the_graph_make_a_model_stateful(opened: Open) -> None:
    assert opened(tflite.running_sum()).stateful()
    assert not opened(tflite.affine()).stateful()


def test_a_stateful_model_remembers_within_one_interpreter_and_a_new_one_starts_afresh(opened: Open) -> None:
    ones = np.ones((1, 4), np.float32)
    runner = opened(tflite.running_sum())

    assert [runner.invoke([ones])[0].tolist() for _ in range(2)] == [[[1] * 4], [[2] * 4]]
    assert opened(tflite.running_sum()).invoke([ones])[0].tolist() == [[1] * 4]


def test_an_error_is_told_in_one_line_of_bounded_length() -> None:
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("word " * 1000))) == 300
