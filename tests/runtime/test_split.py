from itertools import permutations

import numpy as np
import pytest

from app.runtime.split import Outcome, Split, bounds, outputs_of


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_parts_are_put_together_in_the_order_of_the_rows_whichever_comes_last(order: tuple[int, ...]) -> None:
    outcomes: list[Outcome] = []
    split = Split(3, outcomes.append)

    for part in order:
        assert not outcomes
        split.bring(part, [np.full((2, 1), part), np.full(2, -part)])

    (outcome,) = outcomes
    assert [array.tolist() for array in outputs_of(outcome)] == [[[0], [0], [1], [1], [2], [2]], [0, 0, -1, -1, -2, -2]]


def test_the_first_part_s_error_is_the_whole_s_and_only_when_all_parts_are_in() -> None:
    outcomes: list[Outcome] = []
    split = Split(3, outcomes.append)

    split.bring(2, KeyError("second"))
    split.bring(1, ValueError("first"))
    assert not outcomes
    split.bring(0, [np.zeros(1)])

    with pytest.raises(ValueError, match="first"):
        outputs_of(outcomes[0])


@pytest.mark.parametrize(
    ("rows", "parts", "expected"),
    [(6, 3, [(0, 2), (2, 4), (4, 6)]), (7, 3, [(0, 2), (2, 4), (4, 7)]), (5, 1, [(0, 5)]), (2, 2, [(0, 1), (1, 2)])],
)
def test_parts_are_as_even_as_can_be(rows: int, parts: int, expected: list[tuple[int, int]]) -> None:
    assert bounds(rows, parts) == expected
