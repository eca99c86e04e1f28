"""Numbers as the tables show them."""

import math

import pytest

from benchmarks.format import NONE, megabytes, micros, significant, with_noise
from benchmarks.stats import Summary


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (44613.2, "44,600"),
        (107.46, "107"),
        (1.856, "1.86"),
        (0.0123, "0.0123"),
        (99.96, "100"),
        (9.996, "10.0"),
    ],
)
def test_a_number_has_three_digits_and_no_more_than_it_needs(value: float, text: str) -> None:
    assert significant(value) == text


def test_what_is_no_number_is_a_dash() -> None:
    assert significant(math.nan) == NONE


@pytest.mark.parametrize(
    ("value", "text"), [(95.2, "95.2 us"), (1800, "1.80 ms"), (46000, "46.0 ms"), (2_500_000, "2.50 s")]
)
def test_a_time_is_said_in_the_unit_that_fits(value: float, text: str) -> None:
    assert micros(value) == text


def test_the_noise_stands_below_the_median() -> None:
    assert with_noise(Summary(95, 90, 101), micros) == "95.0 us<br><sub>90.0 us to 101 us</sub>"


def test_noise_that_does_not_show_is_left_out() -> None:
    assert with_noise(Summary(100.1, 100.0, 100.2), megabytes) == "100 MB"


def test_a_figure_that_was_not_measured_is_a_dash() -> None:
    assert with_noise(None, micros) == NONE
