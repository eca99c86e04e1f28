import math
from typing import Any

import numpy as np
import pytest

from app.errors import InvalidArgument
from app.protocols import json_values
from app.tensors import STRING, Shape
from tests.signatures import spec

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]


def refusal_of_text(body: bytes) -> str:
    with pytest.raises(InvalidArgument) as refusal:
        json_values.parse(body)
    return refusal.value.message


def refusal(text: str, dtype: str = "float32", wanted: Shape = (4,)) -> str:
    value = json_values.parse(text.encode())
    with pytest.raises(InvalidArgument) as refusal:
        json_values.tensor(value, spec("x", dtype), wanted, "here")
    return refusal.value.message


def read(text: str, dtype: str = "float32", wanted: Shape = ()) -> Any:
    array = json_values.tensor(json_values.parse(text.encode()), spec("x", dtype), wanted, "here")
    assert array.dtype == np.dtype(dtype)
    return array.tolist()


# Text


@pytest.mark.parametrize("body", [b"", b" ", b"\n\t \r"])
def test_an_empty_body_is_called_empty(body: bytes) -> None:
    assert refusal_of_text(body) == "the body is empty: expected a JSON object"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"hello", "Expecting value at line 1 column 1, found 'hello'"),
        (b'{"instance": [1,\n 2,, 3]}', "Expecting value at line 2 column 4, found ', 3]}'"),
        (b'{"instance": [1, 2', "Expecting ',' delimiter at line 1 column 19, found the end of the body"),
        (b'{"instance": 1} {}', "Extra data at line 1 column 17, found '{}'"),
        (b"{'instance': 1}", "Expecting property name enclosed in double quotes at line 1 column 2, found"),
        (b'{"instance": 01}', "Expecting ',' delimiter at line 1 column 15, found '1}'"),
        (b'{"instance": .5}', "Expecting value at line 1 column 14, found '.5}'"),
        (b'{"instance": nan}', "Expecting value at line 1 column 14, found 'nan}'"),
        (b'{"instance": -NaN}', "Expecting value at line 1 column 14, found '-NaN}'"),
        (b'{"instance": "a\nb"}', "Invalid control character at at line 1 column 16"),
    ],
)
def test_text_that_is_not_json_is_refused_with_line_column_and_what_is_there(body: bytes, place: str) -> None:
    message = refusal_of_text(body)

    assert message.startswith("the body is not JSON: ")
    assert place in message


def test_bytes_that_are_not_utf_8_are_refused_with_the_first_bad_one() -> None:
    assert refusal_of_text(b'{"instance": "\xff"}') == "the body is not UTF-8: byte 14 is 0xff"


def test_utf_16_is_not_read_by_guessing() -> None:
    assert refusal_of_text('{"instance": 1}'.encode("utf-16")) == "the body is not UTF-8: byte 0 is 0xff"


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_a_body_nested_without_end_is_refused(body: bytes) -> None:
    assert refusal_of_text(body) == "the body is nested too deeply to be a tensor"


def test_an_integer_of_thousands_of_digits_is_refused() -> None:
    assert refusal_of_text(b'{"instance": ' + b"9" * 5000 + b"}") == (
        "the body holds an integer with too many digits to be a number here"
    )


# Kinds of values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null", "null"),
        ("true", "true"),
        ("false", "false"),
        ("12", "the number 12"),
        ("-1.5", "the number -1.5"),
        ("NaN", "the number NaN"),
        ("-Infinity", "the number -Infinity"),
        ("1e400", "the number 1e400"),
        ('"7"', 'the string "7"'),
        ('"' + "a" * 100 + '"', 'the string "' + "a" * 39 + "..."),
        ("[]", "a list of 0"),
        ("[1, [2]]", "a list of 2"),
        ("{}", "an object without keys"),
        ('{"a": 1}', 'an object with the key "a"'),
        ('{"a": 1, "b": 2}', 'an object with the keys "a", "b"'),
    ],
)
def test_a_value_is_named_by_its_kind_and_a_little_of_it(text: str, expected: str) -> None:
    assert json_values.describe(json_values.parse(text.encode())) == expected


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("true", "true"),
        ("false", "false"),
        ("null", "null"),
        ('"1"', 'the string "1"'),
        ('"NaN"', 'the string "NaN"'),
        ("[1]", "a list of 1"),
        ("{}", "an object without keys"),
    ],
)
def test_nothing_but_a_number_is_a_number(dtype: str, text: str, found: str) -> None:
    kind = "number" if dtype in FLOATS else "integer"

    assert refusal(text, dtype, ()) == f"here: expected one {dtype} {kind} for input 'x', found {found}"


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("text", ["1.0", "1e2", "-0.0", "0.5", "NaN", "Infinity", "1e400"])
def test_a_number_with_a_point_or_an_exponent_is_no_integer(dtype: str, text: str) -> None:
    assert refusal(text, dtype, ()).startswith(f"here: expected one {dtype} integer for input 'x', found the number ")


@pytest.mark.parametrize("text", ["0", "1", '"true"', "null", "[true]", "NaN"])
def test_nothing_but_true_and_false_is_a_boolean(text: str) -> None:
    assert refusal(text, "bool", ()).startswith("here: expected one value true or false for input 'x', found ")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1", "the number 1"),
        ("1e400", "the number 1e400"),
        ("true", "true"),
        ("null", "null"),
        ("[]", "a list of 0"),
        ('["a"]', "a list of 1"),
        ("{}", "an object without keys"),
        ('{"B64": "YQ=="}', 'an object with the key "B64"'),
        ('{"b64": "YQ==", "x": 1}', 'an object with the keys "b64", "x"'),
    ],
)
def test_nothing_but_a_string_or_base64_is_a_string(text: str, found: str) -> None:
    assert refusal(text, "string", ()) == (
        f"here: expected one string, or {{\"b64\": base64 of its bytes}}, for input 'x', found {found}"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1", "the number 1"),
        ("1e400", "the number 1e400"),
        ("null", "null"),
        ('["YQ=="]', "a list of 1"),
        ('{"b64": "YQ=="}', 'an object with the key "b64"'),
        ('"Y"', 'the string "Y"'),
        ('"YQ="', 'the string "YQ="'),
        ('"YQ==="', 'the string "YQ==="'),
        ('"="', 'the string "="'),
        ('"Y Q="', 'the string "Y Q="'),
        ('"YQ=\\n=="', 'the string "YQ=\\n=="'),
        ('"Y\u00a0Q=="', 'the string "Y\\u00a0Q=="'),
        ('"_-8="', 'the string "_-8="'),
        ('"YQ==YQ=="', 'the string "YQ==YQ=="'),
        ('"\u00e9\u00e9\u00e9\u00e9"', 'the string "\\u00e9\\u00e9\\u00e9\\u00e9"'),
    ],
)
def test_what_is_not_base64_is_refused_at_its_key(text: str, found: str) -> None:
    assert refusal(f'["a", {{"b64": {text}}}]', "string", (2,)) == (
        f"here[1].b64: expected base64 (RFC 4648, section 4) for input 'x', found {found}"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('""', b""),
        ('"a"', b"a"),
        ('"\u00e9\\u00e9\\ud83d\\ude00"', "\u00e9\u00e9\U0001f600".encode()),
        ('"\\u0000a\\u0000"', b"\0a\0"),
        ('"NaN"', b"NaN"),
        ('{"b64": ""}', b""),
        ('{"b64": "/+8="}', b"\xff\xef"),
        ('{"b64": "/+8"}', b"\xff\xef"),
        ('{"b64": "YWJj"}', b"abc"),
        ('{"b64": "YWJj\\nZGU=\\n"}', b"abcde"),
        ('{"b64": "YWJj\\r\\nZGU"}', b"abcde"),
    ],
)
def test_strings_are_their_utf_8_or_the_bytes_that_base64_stands_for(text: str, value: bytes) -> None:
    array = json_values.tensor(json_values.parse(text.encode()), spec("x", "string"), (), "here")

    assert array.dtype == STRING
    assert array.tolist() == value


@pytest.mark.parametrize(("text", "index"), [('"\\ud800"', 0), ('"ab\\udfff"', 2), ('"\\ude00\\ud83d"', 0)])
def test_half_a_surrogate_pair_is_refused_since_utf_8_has_none(text: str, index: int) -> None:
    assert refusal(f'["", {text}]', "string", (2,)) == (
        f"here[1]: character {index} of the string is half of a surrogate pair, which UTF-8 does not have, "
        "for input 'x'; send bytes as {\"b64\": base64}"
    )


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        ("1", "here", "the number 1"),
        ('"1+2j"', "here", 'the string "1+2j"'),
        ("[1]", "here", "a list of 1"),
        ("[]", "here", "a list of 0"),
        ("[1, 2, 3]", "here", "a list of 3"),
        ('{"real": 1, "imag": 2}', "here", 'an object with the keys "real", "imag"'),
        ("[1, true]", "here[1]", "true"),
        ("[null, 1]", "here[0]", "null"),
        ("[[1, 2], 1]", "here[0]", "a list of 2"),
    ],
)
def test_nothing_but_a_pair_of_numbers_is_a_complex_number(dtype: str, text: str, place: str, found: str) -> None:
    assert refusal(text, dtype, ()) == (
        f"{place}: expected one {dtype} number as [real, imaginary], both numbers, for input 'x', found {found}"
    )


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_taken_to_the_ends_of_their_parts_range_and_no_further(dtype: str) -> None:
    largest = float(np.finfo(dtype).max)

    assert read(f"[[1, -2.5], [{largest!r}, {-largest!r}]]", dtype, (2,)) == [1 - 2.5j, complex(largest, -largest)]
    assert math.copysign(1, read("[1, -0.0]", dtype).imag) == -1
    assert read("[Infinity, 1]", dtype) == complex(math.inf, 1)
    assert math.isnan(read("[1, NaN]", dtype).imag)
    assert refusal("[1, 1e400]", dtype, ()) == (
        f"here[1]: the number 1e400 is beyond {dtype}, whose largest is {np.finfo(dtype).max}, for input 'x'"
    )


def test_true_and_false_are_booleans() -> None:
    assert read("[true, false]", "bool", (2,)) == [True, False]


# Ranges


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_taken_to_both_ends_of_the_range(dtype: str) -> None:
    limits = np.iinfo(dtype)

    assert read(f"[{limits.min}, {limits.max}]", dtype, (2,)) == [limits.min, limits.max]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_one_beyond_either_end_are_refused_with_the_range(dtype: str) -> None:
    limits = np.iinfo(dtype)

    for value in (limits.min - 1, limits.max + 1, 10**100):
        message = refusal(f"[0, {value}]", dtype, (2,))
        shown = str(value) if value < 10**40 else "1" + "0" * 39 + "..."
        assert message == (
            f"here[1]: the number {shown} is out of range for {dtype}, {limits.min} to {limits.max}, for input 'x'"
        )


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_are_taken_to_both_ends_of_the_range(dtype: str) -> None:
    largest = float(np.finfo(dtype).max)

    assert read(f"[{-largest!r}, {largest!r}]", dtype, (2,)) == [-largest, largest]


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("float16", "65520"),
        ("float16", "-1e5"),
        ("float32", "3.4028236e38"),
        ("float32", "-1e39"),
        ("float32", "1" + "0" * 39),
        ("float32", "1e400"),
        ("float64", "1e400"),
        ("float64", "-1e309"),
        ("float64", "1" + "0" * 400),
    ],
)
def test_a_number_that_would_become_infinite_is_refused_as_it_was_written(dtype: str, text: str) -> None:
    message = refusal(f"[0, {text}]", dtype, (2,))

    shown = {"-1e5": "-100000.0", "-1e39": "-1e+39", "3.4028236e38": "3.4028236e+38"}.get(text, text)
    shown = shown if len(shown) <= 40 else shown[:40] + "..."
    assert message == (
        f"here[1]: the number {shown} is beyond {dtype}, whose largest is {np.finfo(dtype).max}, for input 'x'"
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_number_too_small_becomes_zero(dtype: str) -> None:
    assert read("1e-400", dtype) == 0.0


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_three_tokens_that_are_not_finite_are_read_where_a_float_is_wanted(dtype: str) -> None:
    values = read("[NaN, Infinity, -Infinity]", dtype, (3,))

    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


def test_an_integer_is_a_float_where_a_float_is_wanted() -> None:
    assert read("[1, -2, 16777217]", "float32", (3,)) == [1.0, -2.0, 16777216.0]


# Shapes


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("5", (4,), "here: expected a list of 4 float32 values for input 'x', found the number 5"),
        ("null", (4,), "here: expected a list of 4 float32 values for input 'x', found null"),
        ("{}", (4,), "here: expected a list of 4 float32 values for input 'x', found an object without keys"),
        ("[1, 2, 3]", (4,), "here: expected a list of 4 float32 values for input 'x', found a list of 3"),
        ("[1, 2, 3, 4, 5]", (4,), "here: expected a list of 4 float32 values for input 'x', found a list of 5"),
        ("[]", (4,), "here: expected a list of 4 float32 values for input 'x', found an empty list"),
        ("[]", (-1,), "here: expected a list of float32 values for input 'x', found an empty list"),
        (
            "[[1, 2], [3, 4]]",
            (3, 2),
            "here: expected lists of float32 values of shape [3, 2] for input 'x', found a list of 2",
        ),
        (
            "[[1, 2], 3]",
            (2, 2),
            "here[1]: expected a list of 2 float32 values for input 'x', found the number 3",
        ),
        ("[[[1]]]", (1, 1), "here[0][0]: expected one float32 number for input 'x', found a list of 1"),
        ("[[1], [2]]", (2,), "here[0]: expected one float32 number for input 'x', found a list of 1"),
        ("[[], [1]]", (2, -1), "here[0]: expected a list of float32 values for input 'x', found an empty list"),
        (
            "[[[]], [[1]]]",
            (2, 1, -1),
            "here[0][0]: expected a list of float32 values for input 'x', found an empty list",
        ),
    ],
)
def test_lists_of_another_rank_or_length_are_refused_with_place_expected_and_found(
    text: str, wanted: Shape, expected: str
) -> None:
    assert refusal(text, wanted=wanted) == expected


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[1, 2], [3, 4], [5], [6]]", "here[2]"),
        ("[[1, 2], [3, 4, 5], [6]]", "here[1]"),
        ("[[1], [2], [3], []]", "here[3]"),
    ],
)
def test_ragged_rows_are_refused_with_the_index_of_the_first_bad_one(text: str, place: str) -> None:
    message = refusal(text, wanted=(-1, -1))

    assert message.startswith(f"{place}: expected a list of ")
    assert "as in the first list at this depth, for input 'x', found " in message


def test_the_first_list_at_each_depth_decides_its_free_dimension() -> None:
    array = json_values.tensor([[[1, 2, 3]], [[4, 5, 6]]], spec("x"), (-1, -1, 3), "here")

    assert array.shape == (2, 1, 3)


def test_the_first_fault_in_reading_order_is_the_one_that_is_named() -> None:
    assert refusal('[[1, 2], [null, "3"], [4]]', wanted=(-1, 2)).startswith("here[1][0]: ")


def test_a_fault_deep_inside_is_placed_by_all_its_indexes() -> None:
    text = str([[[0] * 3] * 4] * 5)
    flawed = text[::-1].replace("0", "eurt", 1)[::-1]

    assert refusal(flawed, wanted=(5, 4, 3)) == ("here[4][3][2]: expected one float32 number for input 'x', found true")


def test_strings_and_complex_numbers_are_called_so_where_a_list_of_them_is_wanted() -> None:
    assert refusal('"abc"', "string", (3,)) == (
        "here: expected a list of 3 string values for input 'x', found the string \"abc\""
    )
    assert refusal('{"b64": "YQ=="}', "string", (-1,)) == (
        "here: expected a list of string values for input 'x', found an object with the key \"b64\""
    )
    assert refusal("[[1, 2]]", "complex64", (2,)) == (
        "here: expected a list of 2 complex64 values for input 'x', found a list of 1"
    )


def test_a_value_without_dimensions_is_an_array_of_rank_0() -> None:
    assert read("7") == 7.0
