from collections.abc import Callable
from pathlib import Path

import pytest

from app.runtime.independence import why_dependent
from app.runtime.interpreter import Runner
from app.runtime.profile import workable_inputs
from tests import tflite

Why = Callable[[bytes], str | None]


@pytest.fixture
def why(tmp_path: Path) -> Why:
    def found(model: bytes) -> str | None:
        path = tmp_path / "model.tflite"
        path.write_bytes(model)
        runner = Runner(path)
        signature = runner.signature()
        return why_dependent(runner, signature, workable_inputs(runner, signature))

    return found


@pytest.mark.parametrize(
    "model",
    [
        *(tflite.affine(), tflite.two_in_two_out(), tflite.free_inner(), tflite.scalar_records(), tflite.lookup()),
        *(tflite.identity("int64"), tflite.identity("bool"), tflite.picky_inner(16)),
        *(tflite.identity("string"), tflite.identity("string", (-1,))),
    ],
)
def test_rows_that_leave_each_other_alone_are_found_so(why: Why, model: bytes) -> None:
    assert why(model) is None


def test_a_maximum_over_the_batch_is_found_though_the_shapes_look_free(why: Why) -> None:
    assert why(tflite.maximum_over_batch()) == "output 'y' of a record depends on the records beside it"


@pytest.mark.parametrize("model", [tflite.fixed_one(), tflite.whole(), tflite.affine(shape=())])
def test_without_a_free_leading_dimension_no_request_shares_an_invoke(why: Why, model: bytes) -> None:
    assert why(model) == "the leading dimension is not free in every input and output"


def test_a_model_on_which_the_probe_does_not_run_is_taken_for_dependent(why: Why) -> None:
    reason = why(tflite.lookup((10.0,)))

    assert reason is not None
    assert reason.startswith("the probe did not run: ")
