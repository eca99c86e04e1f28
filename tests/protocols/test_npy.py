import io
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidArgument, UnsupportedFormat
from app.protocols.call import Call, Form
from app.protocols.npy import Npy, write
from app.tensors import Array, Shape, Signature
from tests.examples import many
from tests.signatures import one_in, two_in

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]
COMPLEX = ["complex64", "complex128"]
RECORD = np.array([1, 2, 3, 4], np.float32)
BATCH = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)


def saved(array: Array, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def made(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin1")
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


def header_of(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n"


def decode(array: Array, signature: Signature | None = None) -> Call:
    return Npy(signature or one_in()).decode(saved(array))


def refusal(body: bytes, signature: Signature | None = None) -> str:
    with pytest.raises(InvalidArgument) as refusal:
        Npy(signature or one_in()).decode(body)
    return refusal.value.message


def answer(signature: Signature, form: Form, output: Array) -> Any:
    body = Npy(signature).encode(Call((), output.shape[0], form), [output])
    return np.load(io.BytesIO(body), allow_pickle=False)


# In


@pytest.mark.parametrize("batch", [-1, 1])
def test_one_record_and_a_batch_are_told_apart_by_their_rank(batch: int) -> None:
    signature = one_in(shape=(batch, 4))
    one, many = decode(RECORD, signature), decode(BATCH, signature)

    assert (one.form, one.rows, one.inputs[0].tolist()) == (Form.INSTANCE, 1, [RECORD.tolist()])
    assert (many.form, many.rows, many.inputs[0].tolist()) == (Form.INSTANCES, 2, BATCH.tolist())


def test_without_a_batch_dimension_the_array_is_the_whole_tensor() -> None:
    call = decode(BATCH, one_in(shape=(2, 4)))

    assert (call.form, call.rows, call.inputs[0].tolist()) == (Form.INPUTS, 1, [BATCH.tolist()])


def test_a_record_of_rank_0_is_an_array_of_rank_0() -> None:
    call = decode(np.array(3, np.float32), one_in(shape=(-1,)))

    assert (call.form, call.rows, call.inputs[0].tolist()) == (Form.INSTANCE, 1, [3])


def test_a_free_inner_dimension_is_the_caller_s() -> None:
    assert decode(np.zeros((2, 5, 3), np.float32), one_in(shape=(-1, -1, 3))).inputs[0].shape == (2, 5, 3)


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX, *INTEGERS, "bool"])
def test_every_dtype_is_read_from_both_versions_of_the_format(dtype: str, version: tuple[int, int]) -> None:
    array = np.array([[0, 1, 1, 0], [1, 0, 0, 1]], dtype)

    (read,) = Npy(one_in(dtype)).decode(saved(array, version)).inputs

    assert read.dtype == np.dtype(dtype)
    assert read.tolist() == array.tolist()


def test_a_boolean_is_true_whatever_its_byte_but_0() -> None:
    whole = saved(np.zeros((2, 4), bool))

    (read,) = Npy(one_in("bool")).decode(whole[:-8] + b"\0\1\2\x80\xff\0\0\1").inputs

    assert read.view(np.uint8).tolist() == [[0, 1, 1, 1], [1, 0, 0, 1]]


def test_an_array_in_fortran_order_is_read_by_its_meaning() -> None:
    body = saved(np.asfortranarray(BATCH))
    assert b"'fortran_order': True" in body

    (read,) = Npy(one_in()).decode(body).inputs

    assert read.tolist() == BATCH.tolist()
    assert read.flags.c_contiguous


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">f2", ">i4", ">u8"])
def test_a_big_endian_array_is_read_by_its_meaning(dtype: str) -> None:
    (read,) = decode(BATCH.astype(dtype)).inputs

    assert read.dtype == np.dtype("float32")
    assert read.dtype.isnative
    assert read.tolist() == BATCH.tolist()


def test_a_body_of_the_input_s_own_dtype_is_not_copied() -> None:
    body = saved(BATCH)
    (read,) = Npy(one_in()).decode(body).inputs

    assert not read.flags.owndata
    assert np.shares_memory(read, np.frombuffer(body, np.uint8))


def test_values_that_are_not_finite_are_read_as_they_are() -> None:
    read = decode(np.array([np.nan, np.inf, -np.inf, 1], np.float64)).inputs[0][0]

    assert np.isnan(read[0])
    assert read[1:].tolist() == [np.inf, -np.inf, 1]


def test_numbers_are_brought_to_the_input_s_dtype_where_they_keep_their_meaning() -> None:
    assert decode(np.array([1, 2, 3, 4], np.int64)).inputs[0].tolist() == [RECORD.tolist()]
    assert decode(np.array([1, 2, 3, 4], np.uint64), one_in("int8")).inputs[0].tolist() == [[1, 2, 3, 4]]
    assert decode(np.array([0.1, 2, 3, 4], np.float64)).inputs[0][0, 0] == np.float32(0.1)


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("int32", "float32"),
        ("int32", "bool"),
        ("float32", "bool"),
        ("bool", "uint8"),
        ("bool", "float32"),
        ("uint8", "float64"),
    ],
)
def test_another_kind_of_number_is_refused_with_both_dtypes(dtype: str, given: str) -> None:
    assert refusal(saved(np.ones(4, given)), one_in(dtype)) == (
        f"the body: expected {dtype} values for input 'x', found {given} values"
    )


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_taken_to_both_ends_of_their_range_and_no_further(dtype: str) -> None:
    limits = np.iinfo(dtype)
    wide = "uint64" if limits.min == 0 else "int64"
    ends = np.array([limits.min, limits.max, 0, 0], wide)

    assert decode(ends, one_in(dtype)).inputs[0].tolist() == [ends.tolist()]
    if limits.max < np.iinfo(wide).max:
        message = refusal(saved(np.array([1, limits.max + 1], wide)), one_in(dtype, (-1, 2)))
        assert message == (
            f"the body: expected {dtype} values for input 'x', found {wide} values from 1 to {limits.max + 1}"
        )
    if limits.min > np.iinfo("int64").min:
        message = refusal(saved(np.array([1, limits.min - 1], "int64")), one_in(dtype, (-1, 2)))
        assert message.endswith(f"found int64 values from {limits.min - 1} to 1")


def test_uint64_beyond_int64_is_refused() -> None:
    message = refusal(saved(np.array([0, 2**63], np.uint64)), one_in("int64", (-1, 2)))

    assert message.endswith("found uint64 values from 0 to 9223372036854775808")


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1e39), ("float32", -1e300), ("float16", 65520.0)])
def test_a_finite_number_that_would_become_infinite_is_refused(dtype: str, value: float) -> None:
    message = refusal(saved(np.array([1, value, np.inf, 2])), one_in(dtype))

    assert message == (
        f"the body: expected {dtype} values for input 'x', found values beyond its range, up to {abs(value)}"
    )


@pytest.mark.parametrize(
    ("shape", "found"), [((5,), "[5]"), ((2, 5), "[2, 5]"), ((2, 2, 4), "[2, 2, 4]"), ((), "[]"), ((2, 1), "[2, 1]")]
)
def test_another_shape_is_refused_with_both_that_would_do(shape: Shape, found: str) -> None:
    assert refusal(saved(np.zeros(shape, np.float32))) == (
        f"the body: expected an array of shape [-1, 4] (a batch) or [4] (one record) for input 'x', found {found}"
    )


def test_another_shape_is_refused_where_there_is_no_batch_dimension() -> None:
    assert refusal(saved(RECORD), one_in(shape=(2, 4))) == (
        "the body: expected an array of shape [2, 4] for input 'x', found [4]"
    )


@pytest.mark.parametrize("shape", [(0, 4), (0,), (2, 0)])
def test_an_empty_array_is_refused(shape: Shape) -> None:
    assert "dimension" in refusal(saved(np.zeros(shape, np.float32)), one_in(shape=(-1, -1)))


def test_a_model_with_several_inputs_takes_no_npy_and_says_which_they_are() -> None:
    with pytest.raises(UnsupportedFormat, match=r"holds one tensor, and the model has the inputs 'age', 'body'"):
        Npy(two_in()).decode(saved(RECORD))


# In: files that are broken, or made to harm


@pytest.mark.parametrize("cut", [0, 3, 6, 7, 8, 9, 10, 40, 127])
def test_a_header_that_ends_early_is_refused(cut: int) -> None:
    assert refusal(saved(RECORD)[:cut]).startswith("the body is not an .npy file: ")


@pytest.mark.parametrize("extra", [-16, -1, 1, 16])
def test_a_body_of_another_length_than_its_header_says_is_refused_with_both(extra: int) -> None:
    body = saved(RECORD)
    changed = body[:extra] if extra < 0 else body + b"\0" * extra

    assert refusal(changed) == (
        f"the body: expected 16 bytes after the header for shape [4] of float32, found {16 + extra}"
    )


@pytest.mark.parametrize("body", [b"", b'{"instance": [1, 2, 3, 4]}', b"PK\x03\x04", b"\x93NUMPX" + b"\0" * 200])
def test_what_is_no_npy_file_is_refused(body: bytes) -> None:
    assert refusal(body).startswith("the body is not an .npy file: ")


@pytest.mark.parametrize("version", [3, 4, 255])
def test_another_version_is_refused_by_its_number(version: int) -> None:
    assert refusal(made(header_of("(4,)"), RECORD.tobytes(), version)) == (
        f"the body: .npy version {version}.0 is not known here, 1.0 and 2.0 are"
    )


def test_an_array_of_python_objects_is_refused_without_unpickling_it() -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("it was unpickled",))

    stream = io.BytesIO()
    np.save(stream, np.array([Harmful()], object), allow_pickle=True)

    assert refusal(stream.getvalue()) == "the body: expected an array of numbers, found dtype 'object'"


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "b"]),
        np.array([b"ab"]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.zeros(2, [("a", "f4"), ("b", "i4")]),
        np.zeros(2, "V4"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_an_array_of_anything_but_numbers_is_refused(array: Array) -> None:
    assert refusal(saved(array)).startswith("the body: expected an array of numbers, found dtype ")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "\0",
        "{",
        "{'descr': (",
        "{'descr': " + "(" * 9_000,
        "{'descr': " + "[" * 150 + "]" * 150 + "}",
        "{'descr': " + "-" * 9_000 + "1}",
        "[1, 2]",
        "{'descr': '<f4'}",
        "__import__('os').getcwd()",
        header_of("(4,)", "()"),
        header_of("(4,)", "3"),
        header_of("(4,)", "None"),
        header_of("(4,)", "'<f3'"),
        header_of("(4,)", "'no such'"),
        header_of("(4,)", "('<f4', (1000000000,))"),
        header_of("(f(),)"),
        header_of("4"),
        header_of("[4]"),
        header_of("(4.0,)"),
        header_of("('4',)"),
        header_of("(4,)").ljust(20_000),
        "{'descr': '<f4', 'fortran_order': 2, 'shape': (4,)}\n",
    ],
    ids=range(23),
)
def test_a_header_that_is_no_header_is_refused(header: str) -> None:
    assert refusal(made(header, RECORD.tobytes(), 2)) == (
        "the body is not an .npy file: its header is cut short or malformed; expected a dictionary of descr, "
        "fortran_order and shape, as numpy.save writes it"
    )


LARGE = "dimension 0 of the header's shape is larger than the {} bytes sent can hold"


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ("(-4,)", "expected 1 or more in dimension 0 of the header's shape, found a negative number"),
        ("(2, -2)", "expected 1 or more in dimension 1 of the header's shape, found a negative number"),
        ("(0, 4)", "expected 1 or more in dimension 0 of the header's shape, found 0"),
        ("(1000000000000,)", LARGE),
        ("(0x" + "f" * 9_000 + ",)", LARGE),
        ("(" + "9" * 4_000 + ", " + "9" * 4_000 + ")", LARGE),
    ],
    ids=range(6),
)
def test_a_shape_that_cannot_be_is_refused_in_a_short_message(shape: str, found: str) -> None:
    body = made(header_of(shape), RECORD.tobytes(), 2)

    assert refusal(body) == "the body: " + found.format(len(body))


def test_more_dimensions_than_a_tensor_has_are_refused() -> None:
    assert refusal(made(header_of("(" + "1," * 70 + ")"), b"\0" * 4)) == (
        "the body: expected at most 32 dimensions, found 70"
    )


def test_a_truth_value_in_the_header_s_shape_is_the_number_it_is() -> None:
    (read,) = Npy(one_in()).decode(made(header_of("(True, 4)"), RECORD.tobytes())).inputs

    assert read.tolist() == [RECORD.tolist()]


def test_data_at_an_odd_address_are_read() -> None:
    header = header_of("(4,)")
    body = made(header[:-2] + " " * ((len(header) + 1) % 2) + header[-2:], RECORD.tobytes())
    assert (len(body) - len(RECORD.tobytes())) % 2

    (read,) = Npy(one_in()).decode(body).inputs

    assert read.tolist() == [RECORD.tolist()]


@settings(max_examples=many(300))
@given(st.integers(0, 127), st.integers(0, 255))
def test_one_changed_byte_is_read_or_refused_in_words(place: int, value: int) -> None:
    body = bytearray(saved(RECORD))
    body[place] = value

    try:
        call = Npy(one_in()).decode(bytes(body))
    except InvalidArgument:
        return
    assert call.inputs[0].shape in {(1, 4), (4, 1)}


# Out


def test_the_answer_to_one_record_is_a_record_and_to_a_batch_a_batch() -> None:
    assert answer(one_in(), Form.INSTANCE, BATCH[:1]).tolist() == RECORD.tolist()
    assert answer(one_in(), Form.INSTANCES, BATCH).tolist() == BATCH.tolist()
    assert answer(one_in(), Form.INSTANCES, BATCH[:1]).tolist() == BATCH[:1].tolist()
    assert answer(one_in(), Form.INPUTS, BATCH).tolist() == BATCH.tolist()


def test_the_answer_of_a_whole_tensor_has_no_batch_dimension_unless_a_list_was_sent() -> None:
    signature = one_in(shape=(2, 4))
    records = BATCH[np.newaxis]

    assert answer(signature, Form.INPUTS, records).shape == (2, 4)
    assert answer(signature, Form.INSTANCE, records).shape == (2, 4)
    assert answer(signature, Form.INSTANCES, records).shape == (1, 2, 4)


def test_the_answer_to_a_record_of_rank_0_has_rank_0() -> None:
    result = answer(one_in(shape=(-1,)), Form.INSTANCE, np.array([3], np.float32))

    assert result.shape == ()
    assert result == 3


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX, *INTEGERS, "bool"])
def test_an_answer_keeps_its_dtype(dtype: str) -> None:
    result = answer(one_in(dtype), Form.INSTANCES, np.ones((2, 4), dtype))

    assert result.dtype == np.dtype(dtype)
    assert result.all()


def test_values_that_are_not_finite_are_written_as_they_are() -> None:
    output = np.array([[np.nan, np.inf, -np.inf, 1]], np.float32)

    assert answer(one_in(), Form.INSTANCES, output).tobytes() == output.tobytes()


@pytest.mark.parametrize("array", [np.asfortranarray(BATCH), BATCH[:, ::2], BATCH.T, BATCH[0], np.array(5.0)])
def test_what_is_written_is_what_numpy_reads(array: Array) -> None:
    read = np.load(io.BytesIO(write(array)), allow_pickle=False)

    assert read.shape == array.shape
    assert read.tolist() == array.tolist()


def test_a_model_with_several_outputs_answers_no_npy_and_says_which_they_are() -> None:
    codec = Npy(two_in())

    with pytest.raises(UnsupportedFormat, match=r"the model has the outputs 'risk', 'score': accept JSON"):
        codec.check_encodes()
    with pytest.raises(UnsupportedFormat):
        codec.encode(Call((), 1, Form.INSTANCE), [RECORD, RECORD])


# Strings and complex numbers


def test_strings_have_no_npy_form_on_either_side() -> None:
    codec = Npy(one_in("string"))

    with pytest.raises(UnsupportedFormat) as body:
        codec.decode(saved(BATCH))
    with pytest.raises(UnsupportedFormat) as answer:
        codec.check_encodes()

    assert body.value.message == "an .npy body holds numbers, and the input 'x' strings: send JSON"
    assert answer.value.message == "an .npy answer holds numbers, and the output 'y' strings: accept JSON"


def test_strings_are_refused_before_the_body_is_looked_at() -> None:
    with pytest.raises(UnsupportedFormat, match="send JSON"):
        Npy(one_in("string")).decode(b"")


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("given", ["float16", "float64", "int64", "uint8", ">c8", ">c16", "complex64"])
def test_numbers_of_any_kind_are_taken_for_complex_ones(dtype: str, given: str) -> None:
    (read,) = Npy(one_in(dtype)).decode(saved(BATCH.astype(given))).inputs

    assert read.dtype == np.dtype(dtype)
    assert read.tolist() == BATCH.tolist()


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool"])
def test_complex_numbers_are_no_real_ones(dtype: str) -> None:
    assert refusal(saved(BATCH.astype("complex64")), one_in(dtype)) == (
        f"the body: expected {dtype} values for input 'x', found complex64 values"
    )


@pytest.mark.parametrize("bad", [1e39, 1e39j, complex(math.inf, 1e39), complex(-1e300, math.nan)])
def test_a_part_beyond_its_range_is_refused_and_not_made_infinite(bad: complex) -> None:
    message = refusal(saved(np.array([1, 2, bad, 3], "complex128")), one_in("complex64"))

    assert message.startswith(
        "the body: expected complex64 values for input 'x', found values beyond its range, up to "
    )


def test_parts_that_are_not_finite_are_read_as_they_are() -> None:
    given = np.array([complex(math.inf, 1), complex(1, -math.inf), complex(math.nan, 2), 0], "complex128")

    (read,) = Npy(one_in("complex64")).decode(saved(given)).inputs

    np.testing.assert_array_equal(read[0], given.astype("complex64"))
