"""Whether LiteRT answers what TensorFlow answered."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import ModelError
from app.repository.parity import Difference, Parity, compare, difference, read_reference
from app.runtime.interpreter import Runner
from app.tensors import Array
from tests import tflite


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """`y = 2x + 1`, of 4."""
    (tmp_path / "m.tflite").write_bytes(tflite.affine())
    return Runner(tmp_path / "m.tflite")


def test_a_difference_is_the_largest_and_relative_to_the_largest_value_wanted() -> None:
    assert difference(floats(1, -8.5, 3), floats(1.25, -8, 3)) == Difference(0.5, 0.0625)


def test_a_difference_from_nothing_but_zeros_is_absolute() -> None:
    assert difference(floats(0, 0.5), floats(0, 0)) == Difference(0.5, 0.5)


def test_equal_values_differ_by_nothing_also_where_they_are_not_finite() -> None:
    odd = floats(np.nan, np.inf, -np.inf, 1)

    assert difference(odd, odd) == Difference(0, 0)
    assert difference(floats(), floats()) == Difference(0, 0)


@pytest.mark.parametrize(
    ("have", "want"), [(np.nan, 1), (1, np.nan), (np.inf, 1), (1, np.inf), (np.inf, -np.inf), (np.nan, np.inf)]
)
def test_a_value_that_is_not_finite_where_another_is_wanted_differs_by_infinity(have: float, want: float) -> None:
    assert difference(floats(have, 2), floats(want, 2)) == Difference(np.inf, np.inf)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool", "int64", "float16"])
def test_a_difference_does_not_wrap_round(dtype: str) -> None:
    have, want = np.array([0, 1]).astype(dtype), np.array([1, 0]).astype(dtype)

    assert difference(have, want) == Difference(1, 1)


def test_what_agrees_is_reported_by_output(runner: Runner) -> None:
    inputs = np.arange(12, dtype=np.float32).reshape(3, 4)

    parity = compare(runner, runner.signature(), [inputs], [inputs * 2 + 1], 1e-4)

    assert parity == Parity(3, 1e-4, {"y": Difference(0, 0)})
    assert parity.to_json() == {
        "records": 3,
        "tolerance": 1e-4,
        "differences": {"y": {"absolute": 0.0, "relative": 0.0}},
    }


def test_a_difference_at_the_tolerance_is_served_and_beyond_it_is_not(runner: Runner) -> None:
    inputs = np.zeros((1, 4), np.float32)
    wanted = floats(1, 1, 1, 2).reshape(1, 4)

    assert compare(runner, runner.signature(), [inputs], [wanted], 0.5).worst == Difference(1, 0.5)
    with pytest.raises(ModelError) as caught:
        compare(runner, runner.signature(), [inputs], [wanted], 0.49)

    assert caught.value.message == (
        "output 'y' differs from TensorFlow's by 0.5 of its scale (1), more than the tolerance of 0.49; "
        "model.toml can set another"
    )


def test_no_tolerance_is_wide_enough_for_nan(runner: Runner) -> None:
    wanted = np.full((1, 4), np.nan, np.float32)

    with pytest.raises(ModelError, match="differs from TensorFlow's by inf"):
        compare(runner, runner.signature(), [np.zeros((1, 4), np.float32)], [wanted], 1e300)


def test_another_shape_is_refused_with_both(runner: Runner) -> None:
    inputs = np.zeros((2, 4), np.float32)

    with pytest.raises(ModelError, match=r"^output 'y' has shape \[2, 4\] in LiteRT and \[2, 1\] in TensorFlow$"):
        compare(runner, runner.signature(), [inputs], [inputs[:, :1]], 1)


def test_the_worst_difference_is_the_relatively_largest() -> None:
    large, small = Difference(100, 0.001), Difference(0.1, 0.5)

    assert Parity(1, 1, {"a": large, "b": small}).worst == small


@pytest.fixture
def several(tmp_path: Path) -> Runner:
    (tmp_path / "m.tflite").write_bytes(tflite.two_in_two_out())
    return Runner(tmp_path / "m.tflite")


def keep(path: Path, **arrays: Array) -> Path:
    np.savez(path, allow_pickle=False, **arrays)
    return path


def test_stored_answers_go_by_name_whatever_their_order(tmp_path: Path, several: Runner) -> None:
    signature = several.signature()
    report = {"inputs": ["left", "right"], "outputs": ["total", "difference"]}
    left, right = np.full((1, 3), 5, np.float32), np.full((1, 3), 2, np.float32)
    path = keep(
        tmp_path / "parity.npz", in_0=left, in_1=right, out_0=floats(21).reshape(1, 1), out_1=floats(3, 3, 3)[None]
    )

    inputs, expected = read_reference(path, report, signature)

    by_name = dict(zip([spec.name for spec in signature.inputs], inputs, strict=True))
    assert by_name["left"][0, 0] == 5
    assert compare(several, signature, inputs, expected, 1e-6).worst == Difference(0, 0)


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (
            {"inputs": ["left", "middle"], "outputs": ["difference", "total"]},
            "has the inputs .*, and the model has .*'left', 'middle'",
        ),
        ({"inputs": ["left", "right"], "outputs": ["total"]}, r"has the outputs .*, and the model has \['total'\]"),
    ],
)
def test_other_names_are_refused(tmp_path: Path, several: Runner, report: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        read_reference(keep(tmp_path / "parity.npz", in_0=floats(0)), report, several.signature())
