"""What counts as a right answer."""

import json

import numpy as np
import pytest

from benchmarks.check import TOLERANCE, WrongAnswerError, judge
from benchmarks.models import Floats
from benchmarks.servers import FLOOR, NAIVE

RIGHT: Floats = np.array([[0.5, -0.25]], dtype=np.float32)


def answer(values: object) -> bytes:
    return json.dumps({"predictions": values}).encode()


def test_the_models_numbers_are_right() -> None:
    assert judge(NAIVE, NAIVE.json, True, answer([[0.5, -0.25]]), RIGHT) == 0


def test_the_difference_is_told_while_it_is_tolerable() -> None:
    off = TOLERANCE["float32"] / 2
    assert judge(NAIVE, NAIVE.json, True, answer([[0.5, -0.25 + off]]), RIGHT) == pytest.approx(off, rel=0.01)


@pytest.mark.parametrize(
    "body",
    [
        answer([[0.5, -0.2]]),
        answer([[0.5, float("nan")]]),
        answer([[-0.25, 0.5]]),
        answer([[0.5]]),
        answer([0.5, -0.25]),
        answer([[0.5, -0.25], [0.5, -0.25]]),
        answer([["a", "b"]]),
        b'{"outputs": []}',
        b"no JSON",
        b"",
    ],
)
def test_anything_else_is_wrong(body: bytes) -> None:
    with pytest.raises(WrongAnswerError):
        judge(NAIVE, NAIVE.json, True, body, RIGHT)


def test_a_right_body_with_a_wrong_status_is_wrong() -> None:
    with pytest.raises(WrongAnswerError, match="no 2xx"):
        judge(NAIVE, NAIVE.json, False, answer([[0.5, -0.25]]), RIGHT)


def test_the_floor_answers_whatever_it_likes_but_with_a_2xx() -> None:
    assert judge(FLOOR, FLOOR.json, True, b"anything", None) == 0
    with pytest.raises(WrongAnswerError):
        judge(FLOOR, FLOOR.json, False, b"anything", None)
