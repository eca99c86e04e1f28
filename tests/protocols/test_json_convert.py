"""NumPy's conversion is used where it means what the slow road means, and nowhere else."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from app.protocols.json_convert import convert, has_words
from app.tensors import DTYPES, Shape, dtype_name
from tests.signatures import spec

GOOD: dict[str, Any] = {
    **{key: [[0.5, 1], [2, -3]] for key in ["float16", "float32", "float64"]},
    **{key: [[[0.5, 1], [2, -3]], [[0, 0], [1, 1.5]]] for key in ["complex64", "complex128"]},
    **{key: [[0, 1], [2, 127]] for key in ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]},
    "bool": [[True, False], [False, False]],
    "string": [["a", "\u00e9"], ["", "null"]],
}


@pytest.mark.parametrize("dtype", sorted(map(dtype_name, DTYPES)))
def test_every_dtype_is_converted_into_an_array_of_its_own(dtype: str) -> None:
    array = convert(GOOD[dtype], spec("x", dtype), (-1, 2))

    assert array is not None
    assert (array.dtype, array.shape) == (spec("x", dtype).dtype, (2, 2))
    assert array.flags.c_contiguous


def test_strings_become_their_utf_8_and_pairs_complex_numbers() -> None:
    strings = convert(GOOD["string"], spec("x", "string"), (2, 2))
    pairs = convert(GOOD["complex64"], spec("x", "complex64"), (2, 2))

    assert strings is not None
    assert pairs is not None
    assert strings.tolist() == [[b"a", b"\xc3\xa9"], [b"", b"null"]]
    assert pairs.tolist() == [[0.5 + 1j, 2 - 3j], [0, 1 + 1.5j]]


@pytest.mark.parametrize(
    ("dtype", "value", "wanted"),
    [
        ("float32", [1, 2, 3], (2,)),
        ("float32", [[1, 2]], (2,)),
        ("float32", [[1], [1, 2]], (2, -1)),
        ("float32", [1, None], (2,)),
        ("float32", [True, False], (2,)),
        ("float32", [1e39, 0], (2,)),
        ("float32", ["1", "2"], (2,)),
        ("float32", [2**64, 0], (2,)),
        ("float16", [65520, 0], (2,)),
        ("complex64", [1, 2], (2,)),
        ("complex64", [[1, 2, 3]], (1,)),
        ("complex64", [[1, 1e39]], (1,)),
        ("complex64", [[True, False]], (1,)),
        ("int8", [1.0, 2.0], (2,)),
        ("int8", [1, 128], (2,)),
        ("int8", [True, False], (2,)),
        ("uint64", [-1, 2**64 - 1], (2,)),
        ("uint64", [-1, 0], (2,)),
        ("bool", [1, 0], (2,)),
        ("bool", [True, 0], (2,)),
        ("bool", [True, None], (2,)),
        ("bool", [True, "a"], (2,)),
        ("string", ["a", 1], (2,)),
        ("string", ["a", None], (2,)),
        ("string", ["a", True], (2,)),
        ("string", ["a", {"b64": "YQ=="}], (2,)),
        ("string", [["a"], ["b", "c"]], (2,)),
        ("string", [["a"], ["b", "c"]], (2, -1)),
        ("string", ["a", "\ud800"], (2,)),
        ("string", "ab", (2,)),
    ],
)
def test_what_the_slow_road_must_look_at_is_left_to_it(dtype: str, value: Any, wanted: Shape) -> None:
    assert convert(value, spec("x", dtype), wanted) is None


def test_one_long_string_does_not_make_all_of_them_long() -> None:
    tracemalloc.start()
    try:
        array = convert(["a" * 10_000] + ["b"] * 10_000, spec("x", "string"), (-1,))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert array is not None
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"[true]", True), (b"[false]", True), (b"[null]", True), (b"[1]", False), (b'{"until": 1}', False), (b"", False)],
)
def test_words_are_found_wherever_they_are(body: bytes, expected: bool) -> None:
    assert has_words(body) is expected


def test_an_array_of_rank_0_is_one_value() -> None:
    assert convert(3, spec("x", "int8"), ()) == np.int8(3)
    assert convert("a", spec("x", "string"), ()) == np.array(b"a", object)
