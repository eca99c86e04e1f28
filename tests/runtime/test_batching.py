from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from app.errors import InvalidArgument, ModelError
from app.runtime.batching import run
from app.runtime.interpreter import Runner
from app.tensors import Array, Batching
from tests import tflite


class Invokes:
    """A runner that doubles what it gets, and keeps the shapes that it was given."""

    def __init__(self) -> None:
        self.shapes: list[list[tuple[int, ...]]] = []

    def invoke(self, inputs: Sequence[Array]) -> list[Array]:
        self.shapes.append([array.shape for array in inputs])
        return [array * 2 for array in inputs]


def records(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("batching", "shapes"),
    [
        (Batching.FREE, [[(3, 4), (3,)]]),
        (Batching.ONE, [[(1, 4), (1,)]] * 3),
        (Batching.NONE, [[(4,), ()]] * 3),
    ],
)
def test_records_become_invokes_of_the_shapes_that_the_model_takes(
    batching: Batching, shapes: list[list[tuple[int, ...]]]
) -> None:
    runner = Invokes()

    outputs = run(cast("Runner", runner), batching, [records(3, 4), records(3)], 3)

    assert runner.shapes == shapes
    assert [output.tolist() for output in outputs] == [(records(3, 4) * 2).tolist(), (records(3) * 2).tolist()]


def test_a_text_that_is_a_whole_tensor_is_still_an_array() -> None:
    class Echo:
        def invoke(self, inputs: Sequence[Array]) -> list[Array]:
            assert all(isinstance(array, np.ndarray) for array in inputs)
            return list(inputs)

    (output,) = run(cast("Runner", Echo()), Batching.NONE, [np.array([b"a", b"bc"], object)], 2)

    assert output.tolist() == [b"a", b"bc"]


def opened(folder: Path, model: bytes) -> Runner:
    path = folder / "model.tflite"
    path.write_bytes(model)
    return Runner(path)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (tflite.affine(), (4,)),
        (tflite.fixed_one(), (4,)),
        (tflite.whole(), (3, 2)),
        (tflite.affine(shape=()), ()),
        (tflite.scalar_records(), ()),
        (tflite.free_inner(), (2, 3)),
    ],
)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_every_way_to_hold_records_gives_the_same_answers_in_the_same_order(
    tmp_path: Path, model: bytes, shape: tuple[int, ...], rows: int
) -> None:
    runner = opened(tmp_path, model)

    (output,) = run(runner, runner.signature().batching, [records(rows, *shape)], rows)

    assert output.tolist() == (records(rows, *shape) * 2 + 1).tolist()


def test_a_model_that_answers_another_number_of_rows_is_at_fault(tmp_path: Path) -> None:
    runner = opened(tmp_path, tflite.doubles_rows())

    with pytest.raises(ModelError, match=r"the model answered shape \[4, 4\] to a batch of 2"):
        run(runner, Batching.FREE, [records(2, 4)], 2)


def test_records_whose_outputs_differ_in_shape_cannot_be_one_answer(tmp_path: Path) -> None:
    runner = opened(tmp_path, tflite.places_of_true())
    inputs = np.array([[1, 0, 0, 0], [1, 0, 1, 0]], np.bool_)

    with pytest.raises(InvalidArgument, match=r"different shapes, \[1, 1\] and \[2, 1\]: send them one by one"):
        run(runner, Batching.NONE, [inputs], 2)
    assert run(runner, Batching.NONE, [inputs[1:]], 1)[0].tolist() == [[[0], [2]]]


def test_one_record_that_fails_fails_its_batch(tmp_path: Path) -> None:
    runner = opened(tmp_path, tflite.lookup())

    with pytest.raises(ModelError, match="out of bounds"):
        run(runner, Batching.FREE, [np.array([[0], [3]], np.int32)], 2)
