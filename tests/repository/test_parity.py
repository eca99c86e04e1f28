"""Whether LiteRT answers what TensorFlow answered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import ModelError
from app.repository.parity import Difference, Parity, Reference, compare, difference, read_reference
from app.runtime.interpreter import Runner
from app.tensors import Array, Batching
from tests import tflite
from tests.signatures import one_in


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """`y = 2x + 1`, of 4."""
    (tmp_path / "m.tflite").write_bytes(tflite.affine())
    return Runner(tmp_path / "m.tflite")


def compare_all(runner: Runner, inputs: list[Array], outputs: list[Array], tolerance: float) -> Parity:
    signature = runner.signature()
    return compare(runner, signature.batching, signature, Reference(inputs, outputs), tolerance)


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

    parity = compare_all(runner, [inputs], [inputs * 2 + 1], 1e-4)

    assert parity == Parity(3, 1e-4, {"y": Difference(0, 0, 1.0)})
    assert parity.to_json() == {
        "records": 3,
        "uncertain": 0,
        "tolerance": 1e-4,
        "differences": {"y": {"absolute": 0.0, "relative": 0.0, "top_class": 1.0}},
    }
    assert Parity.from_json(parity.to_json()) == parity


def test_a_difference_at_the_tolerance_is_served_and_beyond_it_is_not(runner: Runner) -> None:
    inputs = np.zeros((1, 4), np.float32)
    wanted = floats(1, 1, 1, 2).reshape(1, 4)

    assert compare_all(runner, [inputs], [wanted], 0.5).worst == Difference(1, 0.5, 0.0)
    with pytest.raises(ModelError) as caught:
        compare_all(runner, [inputs], [wanted], 0.49)

    assert caught.value.message == (
        "output 'y' differs from TensorFlow's by 0.5 of its scale (1), more than the tolerance of 0.49; "
        "model.toml can set another"
    )


def test_no_tolerance_is_wide_enough_for_nan(runner: Runner) -> None:
    wanted = np.full((1, 4), np.nan, np.float32)

    with pytest.raises(ModelError, match="differs from TensorFlow's by inf"):
        compare_all(runner, [np.zeros((1, 4), np.float32)], [wanted], 1e300)


def test_another_shape_is_refused_with_both(runner: Runner) -> None:
    inputs = np.zeros((2, 4), np.float32)

    with pytest.raises(ModelError, match=r"^output 'y' has shape \[2, 4\] in LiteRT and \[2, 1\] in TensorFlow$"):
        compare_all(runner, [inputs], [inputs[:, :1]], 1)


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
    report = {"number": 2, "inputs": ["left", "right"], "outputs": ["total", "difference"]}
    left, right = np.full((1, 3), 5, np.float32), np.full((1, 3), 2, np.float32)
    path = keep(
        tmp_path / "parity.npz",
        in_2_0=left,
        in_2_1=right,
        out_2_0=floats(21).reshape(1, 1),
        out_2_1=floats(3, 3, 3)[None],
    )

    reference = read_reference(path, report, signature)

    by_name = dict(zip([spec.name for spec in signature.inputs], reference.inputs, strict=True))
    assert by_name["left"][0, 0] == 5
    assert compare(several, signature.batching, signature, reference, 1e-6).worst.relative == 0


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
        read_reference(keep(tmp_path / "parity.npz", in_0_0=floats(0)), {"number": 0} | report, several.signature())


def test_of_scores_the_share_of_rows_with_the_same_largest_is_told() -> None:
    wanted = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], np.float32)
    answer = wanted.copy()
    answer[3] = [0, 2, 1]

    assert difference(answer, wanted).top_class == 0.75
    assert difference(answer[:, :1], wanted[:, :1]).top_class is None
    assert difference(answer.astype(np.int32), wanted.astype(np.int32)).top_class is None


def test_strings_differ_wholly_or_not_at_all() -> None:
    words = np.array([b"a", b"b"], object)

    assert difference(words, words.copy()) == Difference(0, 0)
    assert difference(words, words[::-1]) == Difference(np.inf, np.inf)


def test_complex_numbers_are_compared_in_both_their_parts() -> None:
    wanted = np.array([3 + 4j, 0], np.complex64)

    assert difference(wanted + np.complex64(0.5j), wanted) == Difference(0.5, 0.1)


def test_a_reference_may_be_run_record_by_record(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(tflite.maximum_over_batch())
    runner = Runner(tmp_path / "m.tflite")
    inputs = np.arange(8, dtype=np.float32).reshape(2, 4)
    reference = Reference([inputs], [inputs * 0])

    assert compare(runner, Batching.ONE, runner.signature(), reference, 1e-6).worst.absolute == 0
    with pytest.raises(ModelError):
        compare(runner, Batching.FREE, runner.signature(), reference, 1e-6)


def uncertain(*doubts: float) -> Reference:
    """Eight records of one value, to which TensorFlow says 1 in a batch, and so much more when it is asked alone."""
    ones = np.ones((8, 1), np.float32)
    alone = ones.copy()
    alone[: len(doubts), 0] += doubts
    return Reference([ones], [ones], [alone])


class Says:
    """A runner that answers the same whatever it is asked."""

    def __init__(self, *values: float) -> None:
        self._answer = floats(*values).reshape(-1, 1)

    def invoke(self, inputs: Sequence[Array]) -> list[Array]:
        return [self._answer]


def compared(reference: Reference, *values: float) -> Parity:
    answers: Any = Says(*values)
    return compare(answers, Batching.FREE, one_in(shape=(-1, 1)), reference, 1e-4)


def test_of_a_record_that_tensorflow_answers_in_two_ways_either_will_do_and_it_is_told() -> None:
    for answer in (1.0, 1.2):
        parity = compared(uncertain(0.2), answer, *[1.0] * 7)

        assert parity == Parity(8, 1e-4, {"y": Difference(0, 0)}, uncertain=1)
        assert parity == Parity.from_json(parity.to_json())


def test_it_may_not_differ_by_more_than_tensorflow_from_itself_nor_may_other_records() -> None:
    for wrong in ([1.21, *[1.0] * 7], [1.2, 1.01, *[1.0] * 6]):
        with pytest.raises(ModelError, match="differs from TensorFlow's by"):
            compared(uncertain(0.2), *wrong)


@pytest.mark.parametrize("doubts", [(0.2, 0.2, 0.2), (np.inf,), (np.nan,)])
def test_what_tensorflow_answers_otherwise_in_any_batch_is_no_doubt(doubts: tuple[float, ...]) -> None:
    with pytest.raises(ModelError, match="differs from TensorFlow's by"):
        compared(uncertain(*doubts), 1.2, *[1.0] * 7)


def test_values_that_are_not_finite_do_not_hide_a_difference() -> None:
    reference = uncertain(0.2)
    reference.outputs[0][7] = reference.alone[0][7] = np.inf

    with pytest.raises(ModelError):
        compared(reference, 1.3, *[1.0] * 6, np.inf)
