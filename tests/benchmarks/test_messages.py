"""The gRPC messages that the benchmark writes and reads."""

import struct

import numpy as np
import pytest

from benchmarks.messages import ModelInfer, Predict, field, fields, framed, read_varint, varint
from benchmarks.models import Floats

BATCH: Floats = np.array([[1.0, -2.0, 0.5]], dtype=np.float32)
RAW = struct.pack("<3f", 1.0, -2.0, 0.5)

INFER_REQUEST = (
    b"\x0a\x03mlp"  # model_name
    b"\x2a\x0d"  # inputs:
    b"\x0a\x01x"  # name
    b"\x12\x04FP32"  # datatype
    b"\x1a\x02\x01\x03"  # shape, packed
    b"\x3a\x0c" + RAW  # raw_input_contents
)
INFER_ANSWER = (
    b"\x0a\x03mlp\x12\x011"  # model_name, model_version
    b"\x2a\x0d\x0a\x01y\x12\x04FP32\x1a\x02\x01\x03"  # outputs
    b"\x32\x0c" + RAW  # raw_output_contents
)
TENSOR = (
    b"\x08\x01"  # dtype
    b"\x12\x08\x12\x02\x08\x01\x12\x02\x08\x03"  # tensor_shape: two times dim: size
)
PREDICT_REQUEST = (
    b"\x0a\x05\x0a\x03mlp"  # model_spec: name
    b"\x12\x1f\x0a\x01x\x12\x1a" + TENSOR + b"\x22\x0c" + RAW  # inputs: key; value, with tensor_content
)


def predict_answer(number: int) -> bytes:
    """`outputs` and `model_spec`; the values in the tensor's field of this number."""
    tensor = TENSOR + field(number, RAW)
    return field(1, b"\x0a\x01y" + field(2, tensor)) + b"\x12\x05\x0a\x03mlp"


@pytest.mark.parametrize(("value", "written"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")])
def test_a_number_takes_seven_bits_a_byte(value: int, written: bytes) -> None:
    assert varint(value) == written
    assert read_varint(written, 0) == (value, len(written))


def test_a_request_is_that_of_the_protocol_byte_for_byte() -> None:
    assert ModelInfer("mlp").encode(BATCH) == INFER_REQUEST
    assert Predict("mlp").encode(BATCH) == PREDICT_REQUEST


def test_an_inference_answer_gets_its_numbers_and_shape_back() -> None:
    found = ModelInfer("mlp").decode(INFER_ANSWER)
    assert found.dtype == np.float32
    assert np.array_equal(found, BATCH)


@pytest.mark.parametrize("number", [4, 5], ids=["tensor_content", "float_val"])
def test_a_prediction_answer_is_read_in_both_its_forms(number: int) -> None:
    assert np.array_equal(Predict("mlp").decode(predict_answer(number)), BATCH)


@pytest.mark.parametrize("wire", [ModelInfer("mlp"), Predict("mlp")])
@pytest.mark.parametrize("answer", [b"", INFER_ANSWER[:-1], predict_answer(4)[:-9], b"\x0b", b"\xff"])
def test_what_is_no_answer_is_refused(wire: ModelInfer | Predict, answer: bytes) -> None:
    with pytest.raises((ValueError, KeyError, IndexError)):
        wire.decode(answer)


def test_fields_of_a_fixed_size_are_stepped_over() -> None:
    message = b"\x0d\1\2\3\4" + b"\x11" + bytes(8) + field(3, "x")
    assert [number for number, _ in fields(message)] == [1, 2, 3]


def test_a_message_goes_with_its_length_before_it() -> None:
    assert framed(b"abc") == b"\0\0\0\0\3abc"
