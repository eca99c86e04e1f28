"""Open Inference over gRPC: what is refused and in which words, and what is remembered."""

import struct
from typing import Any

import numpy as np
import pytest

from app.errors import InvalidArgument
from app.protocols import infer_request
from app.protocols.call import Identity, Place
from app.protocols.infer_grpc import GrpcInfer
from app.tensors import Signature, make_signature
from tests.protobuf import field, message, varint
from tests.protocols.golden_infer import read_grpc, strings
from tests.signatures import one_in, spec, two_in

ONES = np.ones((1, 4), np.float32)


def codec_of(signature: Signature) -> GrpcInfer:
    return GrpcInfer(Identity("m", 3, {}), signature)


def tensor(name: str = "x", kind: str = "FP32", shape: tuple[int, ...] = (1, 4), *more: tuple[int, Any]) -> bytes:
    return message((1, name), (2, kind), (3, b"".join(map(varint, shape))), *more)


def request(*parts: tuple[int, Any], raw: bytes | None = ONES.tobytes(), identity: str = "") -> bytes:
    named = [(3, identity)] if identity else []
    return message((1, "m"), *named, *(parts or [(5, tensor())]), *([(7, raw)] if raw is not None else []))


def parameter(name: str, number: int, value: Any) -> tuple[int, bytes]:
    if isinstance(value, float):
        return 4, message((1, name), (2, varint(number << 3 | 1) + struct.pack("<d", value)))
    return 4, message((1, name), (2, field(number, value)))


def refusal(signature: Signature, body: bytes) -> str:
    with pytest.raises(InvalidArgument) as caught:
        codec_of(signature).decode(body)
    return caught.value.message


# What is read


def test_raw_tensors_are_views_of_the_message_and_are_not_copied() -> None:
    codec = codec_of(one_in())
    body = request()
    for _ in range(2):
        assert np.shares_memory(codec.decode(body).inputs[0], np.frombuffer(body, np.uint8))


@pytest.mark.parametrize(
    ("given", "timeout_ns", "place"),
    [
        ([parameter("timeout", 2, 2500)], 2_500_000, None),
        ([parameter("timeout", 5, 2500)], 2_500_000, None),
        ([parameter("sequence_id", 2, 7), parameter("sequence_start", 1, 1)], 0, Place("7", True, False)),
        ([parameter("sequence_id", 3, "seven"), parameter("sequence_end", 1, 1)], 0, Place("seven", False, True)),
        ([parameter("sequence_id", 2, 0), parameter("mine", 4, 1.5)], 0, None),
    ],
)
def test_parameters_that_mean_something_here_are_understood_and_others_ignored(
    given: list[tuple[int, bytes]], timeout_ns: int, place: Place | None
) -> None:
    codec = codec_of(one_in())
    for _ in range(2):
        call = codec.decode(request(*given, (5, tensor())))
        assert (call.timeout_ns, call.place) == (timeout_ns, place)


def test_fields_in_any_order_and_unknown_ones_are_read() -> None:
    codec = codec_of(one_in())
    body = message((7, ONES.tobytes()), (99, "new"), (5, tensor()), (98, 7), (3, "1"), (1, "m"))
    for _ in range(2):
        call = codec.decode(body)
        assert call.inputs[0].tolist() == ONES.tolist()
        assert read_grpc(codec.encode(call, [ONES]))[0]["id"] == "1"


def test_an_id_behind_the_inputs_is_not_kept_for_others() -> None:
    codec = codec_of(one_in())
    for identity in ("1", "2"):
        body = message((1, "m"), (5, tensor()), (3, identity), (7, ONES.tobytes()))
        for _ in range(2):
            assert read_grpc(codec.encode(codec.decode(body), [ONES]))[0]["id"] == identity


def test_sizes_and_values_need_not_be_packed() -> None:
    sizes = field(3, 1) + field(3, 4)
    values = b"".join(varint(6 << 3 | 5) + struct.pack("<f", value) for value in (1, 2, 3, 4))
    body = request((5, message((1, "x"), (2, "FP32")) + sizes + field(5, values)), raw=None)
    assert codec_of(one_in()).decode(body).inputs[0].tolist() == [[1, 2, 3, 4]]


def test_the_id_is_each_request_s_own_though_the_rest_was_seen_before() -> None:
    codec = codec_of(one_in())
    for identity in ("1", "2", "", "2", "\u00e9", "x" * 300, "1"):
        call = codec.decode(request(identity=identity))
        assert read_grpc(codec.encode(call, [ONES]))[0].get("id", "") == identity


@pytest.mark.parametrize("identity", ["", "7"])
def test_what_is_around_a_raw_tensor_is_read_once(identity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codec_of(one_in())
    output = (6, message((1, "y")))
    codec.decode(request((5, tensor()), output, raw=bytes(16), identity=identity))
    monkeypatch.setattr(codec, "_read", lambda *_: pytest.fail("it is read once more"))
    call = codec.decode(request((5, tensor()), output, identity=identity * 3))
    assert call.inputs[0].tolist() == ONES.tolist()


def test_records_of_other_numbers_are_told_apart_though_the_rest_is_alike() -> None:
    codec = codec_of(one_in())
    for rows in (1, 3, 1, 2, 3):
        array = np.full((rows, 4), rows, np.float32)
        call = codec.decode(request((5, tensor(shape=(rows, 4))), raw=array.tobytes()))
        assert (call.rows, call.inputs[0].tolist()) == (rows, array.tolist())


def step(number: int, *behind: tuple[int, bytes], timeout: int = 9, identity: str = "") -> bytes:
    """A request in a sequence; `behind` comes behind its input."""
    named = parameter("sequence_id", 2, number), parameter("sequence_start", 1, 1), parameter("timeout", 2, timeout)
    return request(*named, (5, tensor()), *behind, identity=identity)


def test_what_is_around_a_sequence_s_place_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codec_of(one_in())
    for number in (1, 2, 300):
        call = codec.decode(step(number, identity=str(number)))
        assert call.inputs[0].tolist() == ONES.tolist()
        assert (call.timeout_ns, call.place) == (9000, Place(str(number), True, False))
        assert read_grpc(codec.encode(call, [ONES]))[0]["id"] == str(number)
        monkeypatch.setattr(codec, "_read", lambda *_: pytest.fail("it is read once more"))


def test_parameters_are_each_request_s_own_though_what_is_around_them_was_seen_before() -> None:
    codec = codec_of(one_in())
    codec.decode(request((5, tensor())))
    for number in (1, 2):
        # Of parameters that are given twice the last counts.
        for behind, place in (((), str(number)), ((parameter("sequence_id", 2, 7),), "7")):
            for body in (request((5, tensor()), *behind), step(number, *behind)):
                call = codec.decode(body)
            assert (call.timeout_ns, call.place) == (9000, Place(place, True, False))
        assert codec.decode(request((5, tensor()))).place is None
        with pytest.raises(InvalidArgument, match="Unable to parse 'timeout'"):
            codec.decode(step(number, timeout=-1))


# What is refused


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\x0a", "ModelInferRequest is no protobuf message"),
        (request()[:-1], "ModelInferRequest is no protobuf message"),
        (request(raw=None), "input 'x' got unexpected number of elements 0, expecting 4"),
        (request(raw=bytes(12)), "input byte size mismatch for input 'x' for model 'm'. Expected 16, got 12"),
        (request(raw=bytes(20)), "Expected 16, got 20"),
        (request() + field(7, b""), "unexpected additional input data for model 'm'"),
        (request((5, tensor()), raw=None) + field(8, ONES.tobytes()), "unexpected number of elements 0, expecting 4"),
        (request((5, tensor()), (5, tensor())), "input 'x' already exists in request"),
        (message((1, "m")), "expected 1 inputs but got 0 inputs for model 'm'"),
        (request((5, tensor("z"))), "unexpected inference input 'z' for model 'm'"),
        (request((5, tensor(kind="FP64"))), "data-type is 'FP64', but model 'm' expects 'FP32'"),
        (request((5, tensor(kind="BF16"))), "data-type is 'BF16', but model 'm' expects 'FP32'"),
        (request((5, tensor(shape=(4,)))), "Expected [-1, 4], got [4]"),
        (request((5, tensor(shape=(-1, 4)))), "Expected [-1, 4], got [-1, 4]"),
        (request((5, tensor(shape=()))), "Expected [-1, 4], got []"),
        (request((5, tensor("x", "FP32", (1, 4), (5, field(6, ONES.tobytes()))))),
         "contents field must not be specified when using raw_input_contents for 'x' for model 'm'"),
        (request((5, tensor("x", "FP32", (1, 4), (5, field(7, bytes(32))))), raw=None),
         "FP32 values are in field 6 of InferTensorContents, found field 7"),
        (request((5, tensor("x", "FP32", (1, 4), (5, field(6, bytes(15))))), raw=None), "a multiple of 4"),
        (request((5, tensor("x", "FP32", (1, 4), (5, field(6, bytes(12))))), raw=None),
         "unexpected number of elements 3, expecting 4"),
        (request((5, tensor("x", "FP32", (1, 4), parameter("shared_memory_region", 3, "r")))),
         "shared memory is not supported"),
        (request((5, tensor()), (6, message((1, "z")))), "unexpected inference output 'z' for model 'm'"),
        (request((5, tensor()), (6, message((1, "y"))), (6, message((1, "y")))), "output 'y' is requested twice"),
        (request((5, tensor()), (6, message((1, "y"), (2, message((1, "classification"), (2, field(3, "1"))))))),
         "Unable to parse 'classification'"),
        (request((5, tensor()), (6, message((1, "y"), (2, message((1, "shared_memory_region"), (2, field(3, "r"))))))),
         "shared memory is not supported"),
        (request((5, tensor()), parameter("triton_x", 2, 1)), "parameter keys starting with 'triton_'"),
        (request((5, tensor()), (4, message((1, "empty")))), "parameter 'empty' has invalid type"),
        (request((5, tensor()), parameter("timeout", 3, "1")), "Unable to parse 'timeout'"),
        (request((5, tensor()), parameter("timeout", 2, -1)), "Unable to parse 'timeout'"),
        (message((1, "m"), (3, b"\xff"), (5, tensor()), (7, ONES.tobytes())), "id is no UTF-8 text"),
        (request((5, message((1, b"\xff")))), "an input's name is no UTF-8 text"),
    ],
)  # fmt: skip
def test_a_request_that_does_not_fit_is_refused_also_when_its_like_was_seen_before(body: bytes, text: str) -> None:
    assert text in refusal(one_in(), body)
    codec = codec_of(one_in())
    for identity in ("", "1"):
        for _ in range(2):
            codec.decode(request(identity=identity))
    with pytest.raises(InvalidArgument) as caught:
        codec.decode(body)
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        ("int8", 128, "INT8 values are from -128 to 127, found values from 128 to 128"),
        ("int16", -40000, "INT16 values are from -32768 to 32767"),
        ("uint8", 256, "UINT8 values are from 0 to 255"),
        ("uint16", 1 << 20, "UINT16 values are from 0 to 65535"),
    ],
)
def test_typed_values_beyond_the_type_are_refused(dtype: str, value: int, text: str) -> None:
    number = 4 if dtype[0] == "u" else 2
    contents = field(number, varint(value))
    body = request((5, tensor("x", dtype.upper(), (1, 1), (5, contents))), raw=None)
    assert text in refusal(one_in(dtype, (-1, 1)), body)


def test_float16_has_no_typed_values() -> None:
    assert "expected its bytes in raw_input_contents" in refusal(
        one_in("float16"), request((5, tensor(kind="FP16")), raw=None)
    )


def test_tensors_are_all_raw_or_none_is() -> None:
    age = message((1, "age"), (2, "INT32"), (3, varint(1) + varint(1)))
    body = message((1, "m"), (5, age), (5, tensor("body", "FP32", (1, 3))), (7, bytes(4)))
    assert "unable to find data for input 'body' for model 'm' in request: expected 2" in refusal(two_in(), body)


def test_raw_strings_are_held_to_the_shape() -> None:
    body = request((5, tensor("x", "BYTES", (1, 2))), raw=b"\x01\x00\x00\x00a")
    assert "unexpected number of string elements" in refusal(one_in("string", (-1, 2)), body)


def test_a_model_of_complex_numbers_has_no_requests_of_this_kind() -> None:
    with pytest.raises(InvalidArgument, match="for which Open Inference has no datatype"):
        codec_of(one_in("complex64"))


# What is answered


def test_answers_are_raw_whatever_the_request_was() -> None:
    codec = codec_of(one_in("string", (-1, 1)))
    contents = field(8, b"hi")
    call = codec.decode(request((5, tensor("x", "BYTES", (1, 1), (5, contents))), raw=None))
    output = strings(b"\xff").reshape(1, 1)
    assert read_grpc(codec.encode(call, [output]))[1] == {"y": ("BYTES", [1, 1], b"\x01\x00\x00\x00\xff")}


def test_an_output_without_elements_is_answered_with_no_bytes() -> None:
    codec = codec_of(make_signature("s", (spec("x"),), (spec("y", shape=(-1, -1)),)))
    assert read_grpc(codec.encode(codec.decode(request()), [ONES[:, :0]]))[1] == {"y": ("FP32", [1, 0], b"")}


def test_large_outputs_are_not_copied_into_the_answer() -> None:
    codec = codec_of(one_in())
    output = np.zeros((1, 4), np.float32)
    *_, blob = codec.encode(codec.decode(request()), [output]).pieces
    assert np.shares_memory(np.frombuffer(blob, np.uint8), output)


def test_what_is_kept_is_bounded_in_number_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer_request, "_MOST_KEPT", 3)
    codec = codec_of(one_in())
    for number in range(10):
        for value in (number, -number, 10**number):
            call = codec.decode(request(parameter("mine", 2, value), (5, tensor())))
            assert call.inputs[0].tolist() == ONES.tolist()
        codec.decode(request(parameter("mine", 3, "x" * 5000), (5, tensor())))
    assert 0 < len(codec._heads) <= 3
    assert 0 < len(codec._bare) <= 3
    assert len(codec._lengths) <= 4
    assert all(len(head) < 4096 for head in codec._heads)
