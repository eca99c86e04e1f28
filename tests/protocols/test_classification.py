import numpy as np
import pytest

from app.protocols.classification import best


def test_the_best_classes_come_first_with_value_index_and_label() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], np.float32)
    assert best(scores, 2, ["a", "b", "\u00e7"]).tolist() == [
        [b"0.700000:1:b", "0.200000:2:\u00e7".encode()],
        [b"0.500000:0:a", b"0.250000:1:b"],
    ]


def test_no_more_classes_come_than_there_are() -> None:
    assert best(np.array([[1, 2]], np.float32), 9, []).tolist() == [[b"2.000000:1", b"1.000000:0"]]


def test_labels_may_be_fewer_than_classes() -> None:
    assert best(np.array([[1, 2]], np.float32), 2, ["a"]).tolist() == [[b"2.000000:1", b"1.000000:0:a"]]


def test_a_record_of_several_dimensions_is_one_list() -> None:
    assert best(np.array([[[1, 5], [7, 3]]], np.float64), 2, []).tolist() == [[b"7.000000:2", b"5.000000:1"]]


def test_a_record_without_dimensions_is_a_list_of_one() -> None:
    assert best(np.array([1, 2], np.float32), 3, []).tolist() == [[b"1.000000:0"], [b"2.000000:0"]]


@pytest.mark.parametrize(
    ("values", "dtype", "order"),
    [
        ([0, 255, 1], "uint8", [b"255:1", b"1:2", b"0:0"]),
        ([-(2**63), 2**63 - 1, 2**63 - 2], "int64", [b"9223372036854775807:1", b"9223372036854775806:2",
                                                     b"-9223372036854775808:0"]),
        ([0, 2**64 - 1, 2**63], "uint64", [b"18446744073709551615:1", b"9223372036854775808:2", b"0:0"]),
        ([0.5, 2.0, -1.0], "float16", [b"2.000000:1", b"0.500000:0", b"-1.000000:2"]),
    ],
)  # fmt: skip
def test_numbers_of_any_type_are_compared_as_what_they_are(values: list[int], dtype: str, order: list[bytes]) -> None:
    assert best(np.array([values], dtype), 3, []).tolist() == [order]


def test_of_equal_scores_the_lower_index_comes_first_and_what_is_no_number_last() -> None:
    scores = np.array([[np.nan, 1, 1, np.inf, 1, -np.inf]], np.float32)
    assert [text.split(b":")[1] for text in best(scores, 6, [])[0]] == [b"3", b"1", b"2", b"4", b"5", b"0"]
