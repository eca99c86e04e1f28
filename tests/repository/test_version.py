"""Which texts are numbers of versions."""

import pytest

from app.repository.version import LARGEST, version_of


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("0", 0),
        ("00000123", 123),
        ("0" * 240 + "7", 7),
        ("1700000000000000000", 1700000000000000000),
        ("9223372036854775807", LARGEST),
    ],
)
def test_digits_are_a_number_as_far_as_64_bits_reach(text: str, number: int) -> None:
    assert version_of(text) == number


@pytest.mark.parametrize(
    "text", ["", "+1", "-1", "1.0", " 1", "1\n", "1_0", "\u0663", "\u00b2", "x", str(LARGEST + 1), "9" * 19, "9" * 5000]
)
def test_nothing_else_is_one(text: str) -> None:
    assert version_of(text) is None


def test_a_text_that_no_folder_is_called_is_not_looked_at() -> None:
    assert version_of("0" * 5000 + "1") is None
