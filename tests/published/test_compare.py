"""A wrong answer is seen, whatever is wrong with it."""

from typing import Any

import numpy as np
import pytest

from app.tensors import Array
from tests.published.compare import worst
from tests.published.reference import Reference


def differ(right: Array, predictions: list[Any]) -> float:
    return worst(Reference({}, {"y": right}, {}), {"y": right}, list(range(len(right))), predictions)


def test_the_same_numbers_do_not_differ() -> None:
    right = np.array([[0.5, -2.0], [0.0, 0.1]], np.float32)
    assert differ(right, right.tolist()) == 0
    assert differ(right, [[0.5, -2.0], [0.0, 0.1]]) == 0


def test_each_row_is_measured_by_its_own_largest_value() -> None:
    right = np.array([[1000.0, 0.0], [1.0, 0.0]], np.float32)
    assert differ(right, [[1000, 0], [1, 0.1]]) == pytest.approx(0.1)
    assert differ(right, [[1000, 0.1], [1, 0]]) == pytest.approx(1e-4)


def test_a_row_of_zeros_is_measured_by_what_rows_usually_have() -> None:
    right = np.array([[2.0], [0.0], [2.0]], np.float32)
    assert differ(right, [[2], [2e-6], [2]]) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    "predictions",
    [
        [[1.0]],
        [[1.0], [2.0, 3.0]],
        [[1.0], 2.0],
        [[1.0], ["2"]],
        [[None], ["2"]],
        [[1.0], {"y": [2.0]}],
        [[1.0], [None]],
        [[1.0], None],
    ],
)
def test_answers_of_another_form_are_infinitely_wrong(predictions: list[Any]) -> None:
    assert differ(np.array([[1.0], [2.0]], np.float32), predictions) == np.inf


def test_what_is_not_finite_is_null_there_and_nowhere_else() -> None:
    right = np.array([[np.nan, 1.0], [2.0, np.inf]], np.float32)
    assert differ(right, [[None, 1], [2, None]]) == 0
    assert differ(right, [[0, 1], [2, None]]) == np.inf


@pytest.mark.parametrize("right", [np.array([[3], [4]], np.uint8), np.array([["a"], ["b"]])])
def test_integers_and_texts_are_right_or_wrong(right: Array) -> None:
    assert differ(right, right.tolist()) == 0
    assert differ(right, right[::-1].tolist()) == np.inf


def test_every_output_counts_and_a_missing_one_is_seen() -> None:
    right = {"a": np.ones((1, 1), np.float32), "b": np.ones((1, 1), np.float32)}
    reference = Reference({}, right, {})
    assert worst(reference, right, [0], [{"a": [1], "b": [1]}]) == 0
    assert worst(reference, right, [0], [{"a": [1], "b": [1.5]}]) == 0.5
    assert worst(reference, right, [0], [{"a": [1]}]) == np.inf
    assert worst(reference, right, [0], [[1]]) == np.inf
