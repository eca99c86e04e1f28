"""TensorProto by hand, held against protobuf's own reader and writer, and against TensorFlow's."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.errors import InvalidArgument
from app.protocols import tensor_proto
from app.protocols.protobuf import entry, fields
from app.server.rpc.messages import new
from app.tensors import STRING, Array, Shape
from tests.alone import run_alone
from tests.examples import many
from tests.signatures import spec

FIELDS = {
    "float32": "float_val", "float64": "double_val", "float16": "half_val", "int8": "int_val", "int16": "int_val",
    "int32": "int_val", "int64": "int64_val", "uint8": "int_val", "uint16": "int_val", "uint32": "uint32_val",
    "uint64": "uint64_val", "bool": "bool_val", "string": "string_val", "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
}  # fmt: skip
NUMBERS = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "string": 7, "complex64": 8, "int64": 9,
    "bool": 10, "uint16": 17, "complex128": 18, "float16": 19, "uint32": 22, "uint64": 23,
}  # fmt: skip


def values_of(array: Array) -> list[Any]:
    """What the repeated field of a dtype holds."""
    flat = array.reshape(-1)
    if array.dtype == np.float16:
        flat = flat.view(np.uint16)
    if array.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    found: list[Any] = flat.tolist()
    return found


def typed(dtype: str, shape: Shape, values: list[Any]) -> Any:
    proto = new("tensorflow.TensorProto")
    proto.dtype = NUMBERS[dtype]
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add().size = size
    getattr(proto, FIELDS[dtype]).extend(values)
    return proto


def with_content(dtype: str, shape: Shape, content: bytes) -> Any:
    proto = typed(dtype, shape, [])
    proto.tensor_content = content
    return proto


def read(proto: Any, dtype: str, wanted: Shape) -> Array:
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    return tensor_proto.read(memoryview(data), spec("x", dtype, wanted), wanted)


def written(array: Array, dtype: str) -> Any:
    writer = tensor_proto.Writer(spec("y", dtype, (-1,) * array.ndim), 1)
    data = b"".join(writer.pieces(array))
    ((number, _, value),) = fields(memoryview(data))
    assert isinstance(value, memoryview)
    key, tensor = entry(value, "it")
    assert (number, bytes(key)) == (1, b"y")
    proto = new("tensorflow.TensorProto")
    proto.ParseFromString(bytes(tensor))
    return proto


def refusal(proto: Any, dtype: str, wanted: Shape) -> str:
    with pytest.raises(InvalidArgument) as refused:
        read(proto, dtype, wanted)
    return refused.value.message


def arrays(dtype: str) -> st.SearchStrategy[Array]:
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)
    if dtype == "string":
        return hnp.arrays(STRING, shapes, elements=st.binary(max_size=200))
    return hnp.arrays(np.dtype(dtype), shapes)


@pytest.mark.parametrize("dtype", FIELDS)
def test_a_tensor_is_read_from_its_values_and_from_its_content_and_written_as_protobuf_writes_it(dtype: str) -> None:
    @settings(max_examples=many(40))
    @given(arrays(dtype))
    def check(array: Array) -> None:
        proto = typed(dtype, array.shape, values_of(array))
        found = [read(proto, dtype, array.shape)]
        if dtype != "string":
            found.append(read(with_content(dtype, array.shape, array.tobytes()), dtype, array.shape))
        for each in found:
            assert each.dtype == array.dtype
            assert each.shape == array.shape
            if dtype == "string":
                assert each.tolist() == array.tolist()
            else:
                np.testing.assert_array_equal(each, array)
        assert written(array, dtype).SerializeToString() == proto.SerializeToString() or _has_nan(array)

    check()


def _has_nan(array: Array) -> bool:
    """A NaN's bits do not always survive Python's floats."""
    return array.dtype.kind in "fc" and bool(np.isnan(array).any())


def test_a_field_that_is_not_packed_and_one_in_several_parts_are_read_too() -> None:
    single = b"\x2d\x00\x00\x80\x3f"
    packed = b"\x2a\x04\x00\x00\x00\x40"
    head = b"\x08\x01\x12\x04\x12\x02\x08\x02"

    assert read(head + single + packed, "float32", (-1,)).tolist() == [1, 2]
    assert read(b"\x08\x03\x12\x04\x12\x02\x08\x03" + b"\x38\x07" + b"\x3a\x02\x08\x09", "int32", (3,)).tolist() == [
        7,
        8,
        9,
    ]


def test_floats_stay_where_they_lie() -> None:
    for proto in (typed("float32", (2, 2), [1, 2, 3, 4]), with_content("float32", (2, 2), b"\0" * 16)):
        data = proto.SerializeToString()
        array = read(data, "float32", (-1, 2))
        assert not array.flags.owndata
        whole = np.frombuffer(data, np.uint8)
        assert np.shares_memory(array.view(np.uint8), whole)


def test_an_output_of_floats_is_written_without_a_copy() -> None:
    array = np.ones((2, 3), np.float32)
    *_, piece = tensor_proto.Writer(spec("y", shape=(-1, 3)), 1).pieces(array)

    assert isinstance(piece, memoryview)
    assert np.shares_memory(np.frombuffer(piece, np.float32), array)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("float32", [1.5], [1.5] * 4),
        ("float32", [1.5, 2.5], [1.5, 2.5, 2.5, 2.5]),
        ("float32", [], [0.0] * 4),
        ("int64", [7], [7] * 4),
        ("bool", [True], [True] * 4),
        ("bool", [], [False] * 4),
        ("string", [b"a"], [b"a"] * 4),
        ("string", [], [b""] * 4),
        ("complex64", [1, 2], [1 + 2j] * 4),
        ("float16", [0x3C00], [1.0] * 4),
    ],
)
def test_what_is_missing_of_a_tensor_is_like_its_last_value(dtype: str, values: list[Any], expected: list[Any]) -> None:
    assert read(typed(dtype, (2, 2), values), dtype, (-1, 2)).reshape(-1).tolist() == expected


def test_a_few_bytes_do_not_ask_for_any_amount_of_memory() -> None:
    message = refusal(typed("float32", (1 << 40, 4), [1.0]), "float32", (-1, 4))
    assert "is not filled up" in message
    message = refusal(typed("string", (1 << 40,), [b""]), "string", (-1,))
    assert "is not filled up" in message
    message = refusal(typed("int8", ((4 << 20) + 1,), [1]), "int8", (-1,))
    assert "of more than 4194304 bytes is not filled up with the last one: send them all" in message
    assert read(typed("int8", (4 << 20,), [1]), "int8", (-1,)).sum(dtype=np.int64) == 4 << 20


@pytest.mark.parametrize(
    ("proto", "dtype", "wanted", "words"),
    [
        (typed("int32", (4,), [1] * 4), "float32", (4,), "input 'x': expected DT_FLOAT, found DT_INT32"),
        (typed("float64", (4,), [1] * 4), "float32", (4,), "expected DT_FLOAT, found DT_DOUBLE"),
        (b"\x08\x0e", "float32", (), "expected DT_FLOAT, found DT_BFLOAT16"),
        (b"\x08\x63", "float32", (), "expected DT_FLOAT, found the dtype 99"),
        (b"", "float32", (), "expected DT_FLOAT, found no dtype"),
        (b"\x08\x01\x12\x02\x18\x01", "float32", (4,), "expected shape [4], found an unknown rank"),
        (typed("float32", (4,), [1] * 4), "float32", (-1, 4), "expected shape [-1, 4], found [4]"),
        (typed("float32", (0, 4), []), "float32", (-1, 4), "expected shape [-1, 4], found [0, 4], and"),
        (typed("float32", (-1, 4), []), "float32", (-1, 4), "found [-1, 4], and a tensor's sizes are 1 at least"),
        (with_content("float32", (-1, -1), b"\0" * 4), "float32", (-1, -1), "found [-1, -1]"),
        (typed("float32", (1,) * 40, [1]), "float32", (1,) * 40, "more than 32 dimensions"),
        (typed("float32", (2,), [1] * 3), "float32", (-1,), "of shape [2] has 3 values: expected 2"),
        (typed("int8", (2,), [128, 0]), "int8", (-1,), "holds 128, out of range for int8, -128 to 127"),
        (typed("uint8", (2,), [-1, 0]), "uint8", (-1,), "holds -1, out of range for uint8"),
        (typed("float16", (1,), [65536]), "float16", (-1,), "holds 65536, out of range for uint16"),
        (typed("complex64", (1,), [1]), "complex64", (-1,), "expected a real and an imaginary one"),
        (with_content("float32", (2,), b"\0" * 7), "float32", (-1,), "tensor_content has 7 bytes: expected 8"),
        (with_content("float32", (2,), b"\0" * 9), "float32", (-1,), "tensor_content has 9 bytes: expected 8"),
        (with_content("string", (2,), b"\x01\x01a"), "string", (-1,), "are not 2 strings behind their lengths"),
        (with_content("string", (2,), b"\xff\xff\xff\xff\xff\xff"), "string", (-1,), "are not 2 strings"),
        (with_content("string", (1 << 50,), b"\x01"), "string", (-1,), "strings behind their lengths"),
        (b"\x08\x01\x2a\x03\x00\x00\x00", "float32", (), "expected a multiple of 4"),
        (b"\x08\x01\x2a\x7f", "float32", (), "at byte 2"),
        (b"\x08\x01\x12\x03\x12\x05\x08", "float32", (), "the shape of input 'x'"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(proto: Any, dtype: str, wanted: Shape, words: str) -> None:
    assert words in refusal(proto, dtype, wanted)


def test_strings_may_lie_behind_their_lengths() -> None:
    content = b"\x01\x00\xac\x02" + b"a" + b"b" * 300

    assert read(with_content("string", (3,), content), "string", (-1,)).tolist() == [b"a", b"", b"b" * 300]


def test_bytes_that_are_no_booleans_become_some() -> None:
    assert read(with_content("bool", (4,), b"\x00\x01\x02\xff"), "bool", (-1,)).tolist() == [False, True, True, True]
    assert read(with_content("bool", (1,), b"\x02"), "bool", (-1,)).view(np.uint8).tolist() == [1]


def test_many_integers_are_written_as_the_library_writes_them() -> None:
    rng = np.random.default_rng(1)
    wide = rng.integers(-(1 << 63), 1 << 63, 150_000, np.int64) >> rng.integers(0, 63, 150_000)
    assert written(wide, "int64").int64_val == wide.tolist()


def test_any_damage_is_refused_and_nothing_worse() -> None:
    seeds = [
        proto.SerializeToString()
        for proto in (
            typed("float32", (2, 2), [1, 2, 3, 4]),
            with_content("float32", (2, 2), b"\1" * 16),
            typed("string", (2, 2), [b"a", b"", b"c", b"d"]),
            with_content("string", (2,), b"\1\1ab"),
            typed("int64", (2, 2), [-1, 1, 300, 1 << 60]),
        )
    ]

    @settings(max_examples=many(400))
    @given(st.sampled_from(seeds), st.integers(0, 60), st.binary(max_size=4), st.integers(0, 4))
    def check(seed: bytes, place: int, put: bytes, taken: int) -> None:
        data = seed[:place] + put + seed[place + taken :]
        for dtype in ("float32", "string", "int64"):
            try:
                array = read(data, dtype, (-1, 2))
            except InvalidArgument:
                continue
            assert array.shape[1:] == (2,)
            assert array.size == math.prod(array.shape)

    check()


@pytest.mark.slow
def test_tensorflow_reads_what_is_written_and_what_it_writes_is_read() -> None:
    run_alone(exchange_with_tensorflow)


def exchange_with_tensorflow() -> None:
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    for dtype in FIELDS:
        array = np.array([[b"a", b"\xff"]], STRING) if dtype == "string" else np.array([[1, 0], [0, 1]]).astype(dtype)
        proto = tf.make_tensor_proto(array, dtype=tf.string if dtype == "string" else None)
        found = read(proto.SerializeToString(), dtype, (-1, 2))
        assert found.tolist() == array.tolist()
        back = tf.make_ndarray(tensor_pb2.TensorProto.FromString(written(array, dtype).SerializeToString()))
        assert back.dtype == array.dtype
        assert back.tolist() == array.tolist()
