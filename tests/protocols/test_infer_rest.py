"""Open Inference over HTTP: what is read, what is refused and in which words, and what is remembered."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from app.errors import InvalidArgument
from app.protocols import infer_request, infer_rest
from app.protocols.call import Answer, Call, Identity, Place
from app.protocols.infer_rest import InferRest
from app.protocols.json_pieces import LARGE
from app.tensors import Array, Signature, make_signature
from tests.protocols.golden_infer import raw, read_rest, strings
from tests.signatures import one_in, spec, two_in

ONES = np.ones((1, 4), np.float32)
REQUEST = {"name": "x", "shape": [1, 4], "datatype": "FP32"}


def codec_of(signature: Signature, **labels: list[str]) -> InferRest:
    return InferRest(Identity("m", 3, labels), signature)


def document(data: Any = (1, 1, 1, 1), **others: Any) -> dict[str, Any]:
    return {"inputs": [{**REQUEST, "data": data}], **others}


def body_of(found: Any) -> bytes:
    return json.dumps(found).encode()


def headed(found: Any, *tensors: Array | bytes) -> tuple[bytes, str]:
    head = body_of(found)
    return head + b"".join(array if isinstance(array, bytes) else raw(array) for array in tensors), str(len(head))


def binary(size: int = 16, **others: Any) -> dict[str, Any]:
    return {"inputs": [{**REQUEST, "parameters": {"binary_data_size": size}}], **others}


def refusal(signature: Signature, body: bytes, length: str = "") -> str:
    codec = codec_of(signature)
    with pytest.raises(InvalidArgument) as caught:
        (codec.reading(length) if length else codec).decode(body)
    return caught.value.message


def answer_text(codec: InferRest, call: Call, *outputs: Array) -> bytes:
    answer = codec.encode(call, outputs)
    return b"".join(answer.pieces) if isinstance(answer, Answer) else answer


# The vectors of the protocol


def test_a_json_request_is_answered_in_json_with_its_id_first() -> None:
    codec = codec_of(one_in(shape=(-1,)))
    body = b'{"id":"42","inputs":[{"name":"x","shape":[3],"datatype":"FP32","data":[1,2,5]}]}'
    for _ in range(2):
        call = codec.decode(body)
        assert call.inputs[0].tolist() == [1, 2, 5]
        assert answer_text(codec, call, call.inputs[0] / 2 + 2) == (
            b'{"id":"42","model_name":"m","model_version":"3","outputs":'
            b'[{"name":"y","datatype":"FP32","shape":[3],"data":[2.5,3.0,4.5]}]}'
        )


def test_a_binary_request_is_answered_with_a_head_and_the_bytes_behind_it() -> None:
    codec = codec_of(one_in(shape=(-1,)))
    found = {"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}],
             "parameters": {"binary_data_output": True}}  # fmt: skip
    body, length = headed(found, bytes.fromhex("0000803F 00000040 0000A040"))
    for _ in range(2):
        call = codec.reading(length).decode(body)
        answer = codec.encode(call, [call.inputs[0] / 2 + 2])
        assert isinstance(answer, Answer)
        head, blob = answer.pieces
        assert answer.media_type == "application/octet-stream"
        assert dict(answer.headers) == {b"inference-header-content-length": str(len(head)).encode()}
        assert bytes(blob) == bytes.fromhex("00002040 00004040 00009040")
        assert json.loads(bytes(head)) == {
            "model_name": "m",
            "model_version": "3",
            "outputs": [
                {"name": "y", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": 12}},
            ],
        }


def test_nested_data_is_the_same_as_flat() -> None:
    codec = codec_of(one_in(shape=(-1, 2)))
    for data in ([[1, 2], [3, 4]], [1, 2, 3, 4]):
        given = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": data}]}
        for body in (body_of(given), json.dumps(given, indent=1).encode()):
            assert codec.decode(body).inputs[0].tolist() == [[1, 2], [3, 4]]


# What is read


def test_binary_tensors_are_views_of_the_body_and_are_not_copied() -> None:
    codec = codec_of(one_in())
    body, length = headed(binary(), ONES)
    for _ in range(2):
        array = codec.reading(length).decode(body).inputs[0]
        assert np.shares_memory(array, np.frombuffer(body, np.uint8))


def test_json_and_binary_inputs_may_be_mixed() -> None:
    codec = codec_of(two_in())
    inputs = [
        {"name": "body", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}},
        {"name": "age", "shape": [1, 1], "datatype": "INT32", "data": [7]},
    ]
    body, length = headed({"inputs": inputs}, np.array([1, 2, 3], np.float32))
    for _ in range(2):
        assert [array.tolist() for array in codec.reading(length).decode(body).inputs] == [[[7]], [[1, 2, 3]]]


def test_a_tensor_that_begins_at_an_odd_place_is_read_all_the_same() -> None:
    codec = codec_of(one_in("float64"))
    for filling in range(8):
        found = {"inputs": [{**REQUEST, "datatype": "FP64", "parameters": {"binary_data_size": 32}}],
                 "parameters": {"a": "x" * filling}}  # fmt: skip
        body, length = headed(found, np.arange(4.0))
        assert codec.reading(length).decode(body).inputs[0].tolist() == [[0, 1, 2, 3]]


def test_bytes_that_are_neither_0_nor_1_are_true_as_booleans() -> None:
    codec = codec_of(one_in("bool"))
    found = {"inputs": [{**REQUEST, "datatype": "BOOL", "parameters": {"binary_data_size": 4}}]}
    body, length = headed(found, b"\x00\x01\x02\xff")
    array = codec.reading(length).decode(body).inputs[0]
    assert array.tolist() == [[False, True, True, True]]
    assert array.view(np.uint8).tolist() == [[0, 1, 1, 1]]


def test_numbers_that_are_not_finite_are_tokens_both_ways() -> None:
    codec = codec_of(one_in())
    call = codec.decode(b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[NaN,Infinity,-Infinity,1]}]}')
    assert answer_text(codec, call, call.inputs[0]).endswith(b'"data":[NaN,Infinity,-Infinity,1.0]}]}')


def test_strings_are_strings_of_json() -> None:
    codec = codec_of(one_in("string", (-1, 2)))
    given = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "BYTES", "data": ["h\u00e9", "]"]}]}
    call = codec.decode(body_of(given))
    assert call.inputs[0].tolist() == [["h\u00e9".encode(), b"]"]]
    assert json.loads(answer_text(codec, call, call.inputs[0]))["outputs"][0]["data"] == ["h\u00e9", "]"]


def test_an_answer_of_bytes_that_are_no_text_is_refused_as_json_and_given_as_bytes() -> None:
    codec = codec_of(one_in("string", (-1, 1)))
    given = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}]}
    output = strings(b"\xff").reshape(1, 1)
    with pytest.raises(InvalidArgument, match=r"no UTF-8 .* ask for it with 'binary_data'"):
        codec.encode(codec.decode(body_of(given)), [output])
    call = codec.decode(body_of({**given, "parameters": {"binary_data_output": True}}))
    assert read_rest(codec.encode(call, [output]))[1] == {"y": ("BYTES", [1, 1], b"\x01\x00\x00\x00\xff")}


def test_the_default_for_outputs_is_for_those_that_are_not_listed() -> None:
    codec = codec_of(one_in())
    listed = document(outputs=[{"name": "y"}], parameters={"binary_data_output": True})
    assert not isinstance(codec.encode(codec.decode(body_of(listed)), [ONES]), Answer)
    none = document(outputs=[], parameters={"binary_data_output": True})
    assert isinstance(codec.encode(codec.decode(body_of(none)), [ONES]), Answer)


def test_an_answer_whose_binary_outputs_are_all_empty_is_json() -> None:
    codec = codec_of(make_signature("s", (spec("x"),), (spec("y", shape=(-1, -1)),)))
    answer = codec.encode(codec.decode(body_of(document(parameters={"binary_data_output": True}))), [ONES[:, :0]])
    assert isinstance(answer, bytes)
    assert json.loads(answer)["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [1, 0], "parameters": {"binary_data_size": 0}}
    ]


@pytest.mark.parametrize(
    ("parameters", "timeout_ns", "place"),
    [
        ({"timeout": 2500}, 2_500_000, None),
        ({"sequence_id": 7, "sequence_start": True}, 0, Place("7", True, False)),
        ({"sequence_id": "seven", "sequence_end": True}, 0, Place("seven", False, True)),
        ({"sequence_id": 0, "sequence_start": False, "priority": 3}, 0, None),
        ({"sequence_id": ""}, 0, None),
        ({"mine": 1.5, "headers": "x", "other": False}, 0, None),
    ],
)
def test_parameters_that_mean_something_here_are_understood_and_others_ignored(
    parameters: dict[str, Any], timeout_ns: int, place: Place | None
) -> None:
    codec = codec_of(one_in())
    body, length = headed(binary(parameters=parameters), ONES)
    for call in (
        codec.decode(body_of(document(parameters=parameters))),
        codec.reading(length).decode(body),
        codec.reading(length).decode(body),
    ):
        assert (call.timeout_ns, call.place) == (timeout_ns, place)


def test_what_is_null_is_not_given() -> None:
    nothing = {"id": None, "parameters": None, "outputs": None}
    codec = codec_of(one_in())
    call = codec.decode(body_of({**nothing, "inputs": [{**REQUEST, "parameters": None, "data": [1] * 4}]}))
    assert answer_text(codec, call, ONES).startswith(b'{"model_name":"m",')
    call = codec.decode(body_of(document(parameters={"content_type": None, "timeout": None, "sequence_id": None})))
    assert (call.timeout_ns, call.place) == (0, None)


def test_a_raw_body_is_one_record_and_is_answered_in_bytes() -> None:
    codec = codec_of(one_in(shape=(-1, -1, 2)))
    reader = codec.reading("0")
    call = reader.decode(np.arange(6, dtype=np.float32).tobytes())
    assert (call.rows, call.inputs[0].tolist()) == (1, [[[0, 1], [2, 3], [4, 5]]])
    assert read_rest(reader.encode(call, call.inputs))[1]["y"][1] == [1, 3, 2]


def test_a_raw_body_for_strings_is_one_of_them() -> None:
    assert codec_of(one_in("string", (-1, 1))).reading("0").decode(b"\xff[1").inputs[0].tolist() == [[b"\xff[1"]]


def test_a_large_list_is_read_in_pieces_and_to_the_same_numbers() -> None:
    array = np.random.default_rng(0).standard_normal((300, 256)).astype(np.float32)
    codec = codec_of(one_in(shape=(-1, 256)))
    for data in (array.ravel().tolist(), array.tolist()):
        body = body_of({"inputs": [{"name": "x", "shape": [300, 256], "datatype": "FP32", "data": data}]})
        assert len(body) > LARGE
        assert codec.decode(body).inputs[0].tobytes() == array.tobytes()
        assert "the body is not JSON" in refusal(one_in(shape=(-1, 256)), body[:-4] + b",]}]}")


def test_a_large_list_with_a_fault_far_within_is_refused() -> None:
    rows = [[0.25] * 256 for _ in range(600)]
    rows[500], rows[501] = [0.25] * 255, [0.25] * 257
    outline = {"name": "x", "shape": [600, 256], "datatype": "FP32"}
    assert "inputs[0].data[500]" in refusal(one_in(shape=(-1, 256)), body_of({"inputs": [{**outline, "data": rows}]}))
    rows[500] = rows[501] = [0.25] * 256
    rows[599] = [0.25] * 255
    assert "inputs[0].data[599]" in refusal(one_in(shape=(-1, 256)), body_of({"inputs": [{**outline, "data": rows}]}))


def test_a_large_list_that_ends_in_a_comma_is_refused() -> None:
    values = b"1," * 140_000 + b"1" + b" " * 140_000 + b","
    body = b'{"inputs":[{"name":"x","shape":[140001],"datatype":"FP32","data":[%b]}]}' % values
    assert "the body is not JSON" in refusal(one_in(shape=(-1,)), body)


# What is refused

BAD_JSON: list[tuple[str, Any, str]] = [
    ("no object", [], "failed to parse the request JSON buffer: expected an object, found a list of 0"),
    ("no inputs", {}, "Unable to parse 'inputs': expected a list, found null"),
    ("inputs that are no list", {"inputs": {}}, "Unable to parse 'inputs': expected a list"),
    ("none of the inputs", {"inputs": []}, "expected 1 inputs but got 0 inputs for model 'm'. Got inputs [], but "
     "missing required inputs ['x']. Please provide all required inputs."),
    ("an input that is no object", {"inputs": [1]}, "Unable to parse 'inputs': inputs[0]: expected an object"),
    ("no name", {"inputs": [{}]}, "Unable to parse 'name': inputs[0]: expected a string, found null"),
    ("a name that is no string", {"inputs": [{**REQUEST, "name": 1}]}, "Unable to parse 'name'"),
    ("no datatype", {"inputs": [{"name": "x"}]}, "Unable to parse 'datatype'"),
    ("no shape", {"inputs": [{"name": "x", "datatype": "FP32"}]}, "Unable to parse 'shape'"),
    ("a shape that is no list", {"inputs": [{**REQUEST, "shape": 4, "data": []}]}, "Unable to parse 'shape'"),
    ("a negative size", {"inputs": [{**REQUEST, "shape": [-1, 4], "data": [1] * 4}]}, "found the number -1"),
    ("a size that is no integer", {"inputs": [{**REQUEST, "shape": [1.0, 4], "data": []}]}, "found the number 1.0"),
    ("a size that is true", {"inputs": [{**REQUEST, "shape": [True, 4], "data": [1] * 4}]}, "found true"),
    ("no data", {"inputs": [REQUEST]}, "Input must set only one of the following fields: 'data', 'binary_data_size' in "
     "'parameters', 'shared_memory_region' in 'parameters'. But no field is set for input 'x'"),
    ("data and bytes", {"inputs": [{**REQUEST, "data": [1] * 4, "parameters": {"binary_data_size": 16}}]},
     "But 'data' and 'binary_data_size' in 'parameters' are set"),
    ("shared memory", {"inputs": [{**REQUEST, "parameters": {"shared_memory_region": "r"}}]},
     "shared memory is not supported"),
    ("parameters of an input that are no object", {"inputs": [{**REQUEST, "parameters": []}]}, "expected an object"),
    ("another input", {"inputs": [{**REQUEST, "name": "z", "data": [1] * 4}]},
     "unexpected inference input 'z' for model 'm', whose inputs are 'x'"),
    ("an input twice", {"inputs": [{**REQUEST, "data": [1] * 4}] * 2}, "input 'x' already exists in request"),
    ("another type", {"inputs": [{**REQUEST, "datatype": "FP64", "data": [1] * 4}]},
     "inference input 'x' data-type is 'FP64', but model 'm' expects 'FP32'"),
    ("BF16", {"inputs": [{**REQUEST, "datatype": "BF16", "parameters": {"binary_data_size": 8}}]}, "is 'BF16', but"),
    ("no batch dimension", {"inputs": [{**REQUEST, "shape": [4], "data": [1] * 4}]},
     "unexpected shape for input 'x' for model 'm'. Expected [-1, 4], got [4]. NOTE"),
    ("no record", {"inputs": [{**REQUEST, "shape": [0, 4], "data": []}]}, "got [0, 4]"),
    ("a shape without end", {"inputs": [{**REQUEST, "shape": [1] * 1000, "data": []}]}, "got 1000 dimensions"),
    ("too few values", document([1, 1, 1]), "Shape does not match true shape of 'data' field: the shape [1, 4] of "
     "input 'x' is of 4 items, and inputs[0].data is a list of 3"),
    ("ragged values", document([[1, 2], [3, 4]]), "Unable to parse 'data': Shape does not match"),
    ("lists that are no rows", document([[1, 2, 3]]), "Unable to parse 'data': inputs[0].data[0]"),
    ("no list", document(1), "Unable to parse 'data': inputs[0].data: expected a list, found the number 1"),
    ("a string among numbers", document([1, 2, "3", 4]), "inputs[0].data[2]: expected one float32 number"),
    ("a long string among numbers", document([1, 2, "3" * 100, 4]), "inputs[0].data[2]: expected one float32 number"),
    ("true among numbers", document([1, 2, True, 4]), "inputs[0].data[2]"),
    ("null among numbers", document([1, 2, None, 4]), "inputs[0].data[2]"),
    ("a number beyond float32", document([1, 2, 3, 1e39]), "beyond float32"),
    ("an id that is no string", document(id=7), "Unable to parse 'id': expected a string, found the number 7"),
    ("half of a surrogate pair as id", document(id="\ud800"), "Unable to parse 'id'"),
    ("a parameter of Triton's own", document(parameters={"triton_x": 1}), "parameter keys starting with 'triton_'"),
    ("a parameter that is a list", document(parameters={"a": []}), "parameter 'a' has invalid type"),
    ("parameters that are no object", document(parameters=7), "the request's parameters: expected an object"),
    ("a timeout that is no number", document(parameters={"timeout": "1"}), "Unable to parse 'timeout'"),
    ("a negative timeout", document(parameters={"timeout": -1}), "Unable to parse 'timeout'"),
    ("a priority that is no number", document(parameters={"priority": True}), "Unable to parse 'priority'"),
    ("a start that is no flag", document(parameters={"sequence_start": 1}), "Unable to parse 'sequence_start'"),
    ("a start of nothing", document(parameters={"sequence_start": True}), "must specify a non-zero or non-empty"),
    ("a sequence of a long name", document(parameters={"sequence_id": "x" * 129}), "Unable to parse 'sequence_id'"),
    ("a sequence that is no name", document(parameters={"sequence_id": 1.5}), "Unable to parse 'sequence_id'"),
    ("another output", document(outputs=[{"name": "z"}]), "unexpected inference output 'z' for model 'm'"),
    ("an output twice", document(outputs=[{"name": "y"}] * 2), "output 'y' is requested twice"),
    ("an output without a name", document(outputs=[{}]), "Unable to parse 'name': outputs[0]"),
    ("an output that is no object", document(outputs=["y"]), "outputs[0]: expected an object"),
    ("outputs that are no list", document(outputs="y"), "Unable to parse 'outputs'"),
    ("binary that is no flag", document(outputs=[{"name": "y", "parameters": {"binary_data": 1}}]),
     "Unable to parse 'binary_data'"),
    ("classes that are no number", document(outputs=[{"name": "y", "parameters": {"classification": "2"}}]),
     "Unable to parse 'classification'"),
    ("an output in shared memory", document(outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]),
     "shared memory is not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), [case[1:] for case in BAD_JSON], ids=[case[0] for case in BAD_JSON])
def test_json_that_does_not_fit_is_refused_with_what_was_found_and_expected(given: Any, message: str) -> None:
    assert message in refusal(one_in(), body_of(given))
    assert message in refusal(one_in(), body_of(given), str(len(body_of(given))))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not UTF-8"),
        (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]', "the body is not JSON"),
        (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}}', "the body is not JSON"),
        (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]]}', "the body is not JSON"),
        (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,,4]}]}', "the body is not JSON"),
        (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[', "the body is not JSON"),
        (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[[[[[', "the body is not JSON"),
        (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":' + b"[" * 100_000, "the body is nested"),
    ],
)
def test_what_is_no_json_is_refused_also_when_its_like_was_seen_before(body: bytes, message: str) -> None:
    codec = codec_of(one_in())
    codec.decode(b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}')
    with pytest.raises(InvalidArgument) as caught:
        codec.decode(body)
    assert f"failed to parse the request JSON buffer: {message}" in caught.value.message


@pytest.mark.parametrize(
    ("size", "sent", "message"),
    [
        (16, 12, "unexpected size for input 'x', expecting 4 additional bytes for model 'm'"),
        (16, 17, "unexpected additional input data for model 'm'"),
        (16, 0, "unexpected size for input 'x', expecting 16 additional bytes"),
        (12, 12, "input byte size mismatch for input 'x' for model 'm'. Expected 16, got 12"),
        (0, 0, "input byte size mismatch for input 'x' for model 'm'. Expected 16, got 0"),
        (1 << 62, 16, "unexpected size for input 'x'"),
        (-1, 16, "Unable to parse 'binary_data_size'"),
        ("16", 16, "Unable to parse 'binary_data_size'"),
        (True, 16, "Unable to parse 'binary_data_size'"),
    ],
)
def test_bytes_that_are_not_as_many_as_was_said_are_refused(size: Any, sent: int, message: str) -> None:
    body, length = headed(binary(size), bytes(sent))
    assert message in refusal(one_in(), body, length)


@pytest.mark.parametrize("sent", [15, 17, 0, 32])
def test_a_head_that_was_seen_before_does_not_take_another_number_of_bytes(sent: int) -> None:
    codec = codec_of(one_in())
    for identity in ({}, {"id": "1"}):
        head = body_of({**identity, **binary()})
        reader = codec.reading(str(len(head)))
        for _ in range(2):
            reader.decode(head + bytes(16))
        with pytest.raises(InvalidArgument, match=r"unexpected (size|additional)"):
            reader.decode(head + bytes(sent))


@pytest.mark.parametrize("length", ["-1", "+5", " 5", "5.0", "x", "1_0", "99999999999", "2147483648", "\u0665"])
def test_a_header_that_is_no_length_is_refused(length: str) -> None:
    with pytest.raises(InvalidArgument, match="Unable to parse Inference-Header-Content-Length, got"):
        codec_of(one_in()).reading(length)


def test_a_header_beyond_the_body_is_refused() -> None:
    message = refusal(one_in(), body_of(document()), "1000")
    assert "inference header size should be in range (0, " in message
    assert "got: 1000" in message
    # Also where the head that is there was seen before.
    codec, head = codec_of(one_in()), body_of(binary())
    codec.reading(str(len(head))).decode(head + bytes(16))
    with pytest.raises(InvalidArgument, match="inference header size"):
        codec.reading(str(len(head) + 16)).decode(head)


def test_bytes_behind_json_without_the_header_are_no_json() -> None:
    body, _ = headed(binary(), ONES)
    found = refusal(one_in(), body)
    assert "failed to parse the request JSON buffer: the body is not" in found
    assert found.endswith("Inference-Header-Content-Length gives the bytes of the JSON alone")


def test_float16_has_no_json_form() -> None:
    half = one_in("float16")
    data = {**REQUEST, "datatype": "FP16"}
    assert "receiving FP16 data via JSON is not supported. Please use the binary data format for input 'x'" in refusal(
        half, body_of({"inputs": [{**data, "data": [1] * 4}]})
    )
    body, length = headed({"inputs": [{**data, "parameters": {"binary_data_size": 8}}]}, bytes(8))
    assert "sending FP16 data via JSON is not supported" in refusal(half, body, length)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("int8", 128, "out of range for int8"),
        ("uint8", -1, "out of range for uint8"),
        ("uint64", 2**64, "out of range for uint64"),
        ("int64", -(2**63) - 1, "out of range for int64"),
        ("int32", 1.0, "expected one int32 integer"),
        ("int32", True, "expected one int32 integer"),
        ("bool", 1, "expected one value true or false"),
        ("string", 1, "expected one string"),
    ],
)
def test_values_that_do_not_fit_the_type_are_refused(dtype: str, value: Any, message: str) -> None:
    kind = {"string": "BYTES", "bool": "BOOL"}.get(dtype, dtype.upper())
    given = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": kind, "data": [value]}]}
    assert message in refusal(one_in(dtype, (-1, 1)), body_of(given))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x02\x00\x00\x00hi", "unexpected number of string elements"),
        (b"\x04\x00\x00\x00hiho", "expecting 4 bytes but only 0 bytes available"),
        (b"\x04\x00\x00\x00hiho\x00", "incomplete string length indicator"),
        (b"\x02\x00\x00\x00hi\x01\x00\x00\x00", "incomplete string data"),
        (b"\x02\x00\x00\x00hi\xff\xff\xff\xff", "expecting string of length 4294967295 but only 0 bytes available"),
        (b"\x02\x00\x00\x00hi\x00\x00\x00\x00!", "behind which 1 bytes are left"),
        (b"", "unexpected number of string elements"),
    ],
)
def test_strings_that_are_cut_short_or_too_many_are_refused(data: bytes, message: str) -> None:
    inputs = [{"name": "x", "shape": [1, 2], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}]
    body, length = headed({"inputs": inputs}, data)
    assert message in refusal(one_in("string", (-1, 2)), body, length)


def test_a_shape_of_many_strings_takes_no_memory_before_they_are_there() -> None:
    inputs = [{"name": "x", "shape": [1, 10**12], "datatype": "BYTES", "parameters": {"binary_data_size": 4}}]
    body, length = headed({"inputs": inputs}, bytes(4))
    tracemalloc.start()
    try:
        assert "unexpected number of string elements" in refusal(one_in("string", (-1, -1)), body, length)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_long_string_among_numbers_takes_no_memory_for_each_of_them() -> None:
    data = [1] * 2000 + ["x" * 100_000]
    body = body_of({"inputs": [{"name": "x", "shape": [2001], "datatype": "FP32", "data": data}]})
    tracemalloc.start()
    try:
        assert "expected one float32 number" in refusal(one_in(shape=(-1,)), body)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_inputs_of_unlike_batches_are_refused() -> None:
    inputs = [
        {"name": "age", "shape": [1, 1], "datatype": "INT32", "data": [7]},
        {"name": "body", "shape": [2, 3], "datatype": "FP32", "data": [1] * 6},
    ]
    assert "input 'body' batch size does not match other inputs for 'm'" in refusal(
        two_in(), body_of({"inputs": inputs})
    )


def test_one_of_two_inputs_is_not_enough() -> None:
    inputs = [{"name": "age", "shape": [1, 1], "datatype": "INT32", "data": [7]}]
    assert "Got inputs ['age'], but missing required inputs ['body']" in refusal(two_in(), body_of({"inputs": inputs}))


@pytest.mark.parametrize(
    ("signature", "body", "message"),
    [
        (two_in(), b"", "Raw request must only have 1 input"),
        (one_in(shape=(-1, -1, -1)), b"", "more than one variable-sized dimension"),
        (one_in("string", (-1, 2)), b"", "the model must have input shape [1]"),
        (one_in(), bytes(15), "Expected 16, got 15"),
        (one_in(), b"", "Expected 16, got 0"),
        (one_in(shape=(-1, -1)), b"", "Expected 4, got 0"),
        (one_in(shape=(-1, -1)), bytes(7), "Expected 4, got 7"),
    ],
)
def test_raw_bodies_whose_shape_they_do_not_tell_are_refused(signature: Signature, body: bytes, message: str) -> None:
    assert message in refusal(signature, body, "0")


def test_a_model_of_complex_numbers_has_no_requests_of_this_kind() -> None:
    with pytest.raises(InvalidArgument, match=r"'x' holds complex64 numbers, for which .* use /predict"):
        codec_of(one_in("complex64"))


def test_classes_of_strings_are_refused() -> None:
    given = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "BYTES", "data": [""] * 4}],
             "outputs": [{"name": "y", "parameters": {"classification": 1}}]}  # fmt: skip
    message = refusal(one_in("string"), body_of(given))
    assert message == "class result not available for output 'y' due to unsupported type 'BYTES'"


# What is remembered


def test_the_id_is_each_request_s_own_though_its_head_was_seen_before() -> None:
    codec = codec_of(one_in())
    for identity in ("1", "2", "", "2", 'a"b', "\u00e9", "x" * 300, "1"):
        found = binary(parameters={"binary_data_output": True})
        body, length = headed({**({"id": identity} if identity else {}), **found}, ONES)
        for call in (codec.reading(length).decode(body), codec.decode(body_of(document(id=identity)))):
            assert read_rest(codec.encode(call, [ONES]))[0].get("id", "") == identity


HEADS = {
    "tritonclient": b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}],'
    b'"parameters":{"binary_data_output":true}}',
    "tritonclient with an id": b'{"id":"ID","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":'
    b'{"binary_data_size":16}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}',
    "perf_analyzer": b'{"id":"","inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":'
    b'{"binary_data_size":16}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}',
    "json.dumps": b'{"id": "ID", "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": '
    b'{"binary_data_size": 16}}]}',
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_the_heads_that_clients_send_are_read_once(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codec_of(one_in())
    codec.reading(str(len(head))).decode(head + bytes(16))
    monkeypatch.setattr(codec, "decode_whole", lambda *_: pytest.fail("it is read once more"))
    head = head.replace(b"ID", b"another")
    call = codec.reading(str(len(head))).decode(head + ONES.tobytes())
    assert call.inputs[0].tolist() == ONES.tolist()


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_the_same_with_the_values_in_the_json_are_read_once(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for parameters in (b'"parameters":{"binary_data_size":16}', b'"parameters": {"binary_data_size": 16}'):
        head = head.replace(parameters, b'"data": [1.0, 2.0, 3.0, 4.0]')
    codec = codec_of(one_in())
    codec.decode(head)
    monkeypatch.setattr(codec, "decode_whole", lambda *_: pytest.fail("it is read once more"))
    monkeypatch.setattr(infer_rest, "outline", lambda *_: pytest.fail("it is read once more"))
    assert codec.decode(head.replace(b"ID", b"another")).inputs[0].tolist() == [[1, 2, 3, 4]]


def test_an_id_elsewhere_in_the_head_is_not_kept_for_others() -> None:
    codec = codec_of(one_in())
    for identity in ("1", "2"):
        body, length = headed({**binary(), "id": identity}, ONES)
        assert read_rest(codec.encode(codec.reading(length).decode(body), [ONES]))[0]["id"] == identity
        assert (
            read_rest(codec.encode(codec.decode(body_of({**document(), "id": identity})), [ONES]))[0]["id"] == identity
        )
    twice = b'{"id":"1","id":"2",' + body_of(binary())[1:]
    for _ in range(2):
        call = codec.reading(str(len(twice))).decode(twice + bytes(16))
        assert read_rest(codec.encode(call, [ONES]))[0]["id"] == "2"


STEPS = {
    "tritonclient": b'{"id":"ID","inputs":[INPUT],"parameters":{"sequence_id":NUMBER,"sequence_start":true,'
    b'"timeout":9}}',
    "tritonclient without an id": b'{"inputs":[INPUT],"outputs":[{"name":"y"}],"parameters":{"sequence_id":NUMBER,'
    b'"sequence_start":true,"timeout":9}}',
    "perf_analyzer": b'{"id":"","parameters":{"sequence_id":NUMBER,"sequence_start":true,"timeout":9},'
    b'"inputs":[INPUT]}',
    "json.dumps": b'{"id": "ID", "inputs": [INPUT], "parameters": {"timeout": 9, "sequence_start": true, '
    b'"binary_data_output": true, "sequence_id": NUMBER}}',
}


@pytest.mark.parametrize("head", STEPS.values(), ids=STEPS.keys())
def test_what_is_around_a_sequence_s_place_is_read_once(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codec_of(one_in())
    head = head.replace(b"INPUT", body_of(binary()["inputs"][0]))
    for number in (1, 2, 3):
        step = head.replace(b"NUMBER", b"%d" % number).replace(b"ID", b"%d" % number)
        call = codec.reading(str(len(step))).decode(step + ONES.tobytes())
        assert call.inputs[0].tolist() == ONES.tolist()
        assert (call.timeout_ns, call.place) == (9000, Place(str(number), True, False))
        if b"ID" in head:
            assert read_rest(codec.encode(call, [ONES]))[0]["id"] == str(number)
        monkeypatch.setattr(codec, "decode_whole", lambda *_: pytest.fail("it is read once more"))


def test_parameters_are_each_request_s_own_though_what_is_around_them_was_seen_before() -> None:
    codec = codec_of(one_in())
    for parameters in (
        *(
            {"timeout": 1},
            {"timeout": 2, "binary_data_output": True},
            {},
            {"sequence_id": 7, "binary_data_output": False},
        ),
        *({"mine": "}"}, {"mine": "{"}, {"timeout": 3, "sequence_id": "a", "sequence_end": True}, {"timeout": None}),
    ):
        body, length = headed(binary(parameters=parameters), ONES)
        call, fresh = codec.reading(length).decode(body), codec_of(one_in()).reading(length).decode(body)
        assert (call.timeout_ns, call.place) == (fresh.timeout_ns, fresh.place)
        assert answer_text(codec, call, ONES) == answer_text(codec, fresh, ONES)
        body, length = headed(binary(parameters={"timeout": -1, **parameters, "sequence_start": 1}), ONES)
        with pytest.raises(InvalidArgument, match="Unable to parse"):
            codec.reading(length).decode(body)


@pytest.mark.parametrize(
    "head",
    [
        b'{"inputs":[INPUT],"parameters":{"timeout":7},"parameters":{"timeout":NUMBER}}',
        b'{"parameters":{"timeout":NUMBER},"inputs":[INPUT],"parameters":{"timeout":7}}',
        b'{"inputs":[INPUT],"parameters":{"timeout":7},"x":{"parameters":{"timeout":NUMBER}}}',
        b'{"parameters":{"timeout":7},"inputs":[INPUT],"outputs":[{"name":"y","parameters":{"timeout":NUMBER}}]}',
        b'{"inputs":[INPUT],"parameters":{"timeout":7,"parameters":NUMBER}}',
        b'{"inputs":[INPUT],"parameters":{"timeout":7},"par\\u0061meters":{"timeout":NUMBER}}',
        b'{"inputs":[INPUT],"x":"\\"parameters\\":{\\"timeout\\":NUMBER}","parameters":{"timeout":7}}',
    ],
)
def test_what_only_looks_like_a_request_s_parameters_is_not_taken_for_them(head: bytes) -> None:
    codec = codec_of(one_in())
    head = head.replace(b"INPUT", body_of(binary()["inputs"][0]))
    for number in (3, 4, 4, 5):
        body = head.replace(b"NUMBER", b"%d" % number)
        want = json.loads(body)["parameters"]["timeout"]
        assert codec.reading(str(len(body))).decode(body + bytes(16)).timeout_ns == 1000 * want


def test_what_stands_behind_an_id_is_no_head_by_itself() -> None:
    codec = codec_of(one_in())
    head = b'{"id":"1",' + body_of(binary())[1:]
    codec.reading(str(len(head))).decode(head + bytes(16))
    rest = head[len(b'{"id":"1"') :]
    with pytest.raises(InvalidArgument, match="is not JSON"):
        codec.reading(str(len(rest))).decode(rest + bytes(16))


def test_data_within_a_string_is_no_data() -> None:
    signature = make_signature("s", (spec('"data":[1]', shape=(-1, 1)),), (spec("y"),))
    given = {"inputs": [{"name": '"data":[1]', "shape": [1, 1], "datatype": "FP32", "data": [5]}]}
    odd = {"inputs": [{"name": '"data":[1]', "shape": [1, 1], "datatype": "FP32"}]}
    codec = codec_of(signature)
    for _ in range(2):
        assert codec.decode(body_of(given)).inputs[0].tolist() == [[5]]
        with pytest.raises(InvalidArgument, match="no field is set"):
            codec.decode(body_of(odd))


def test_of_data_that_stands_twice_the_last_counts_as_in_any_json() -> None:
    codec = codec_of(one_in(shape=(-1, 1)))
    body = b'{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1],"data":[2]}]}'
    for _ in range(2):
        assert codec.decode(body).inputs[0].tolist() == [[2]]


@pytest.mark.parametrize("number", [0, 1, 1000])
def test_a_list_is_no_data_where_a_number_behind_it_is(number: int) -> None:
    codec = codec_of(one_in(shape=(-1, 1)))
    body = b'{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1],"d\\u0061ta":%d}]}' % number
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="expected a list, found the number"):
            codec.decode(body)


def test_a_nested_list_of_other_rows_is_not_taken_for_one_of_the_right_size() -> None:
    codec = codec_of(one_in(shape=(-1, 2)))
    for data in ([[1, 2, 3, 4]], [[1], [2, 3, 4]], [[1, 2], [3, 4], []], [[[1, 2], [3, 4]]]):
        given = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": data}]}
        for _ in range(2):
            with pytest.raises(InvalidArgument, match="Unable to parse 'data'"):
                codec.decode(body_of(given))


def test_what_is_kept_is_bounded_in_number_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer_request, "_MOST_KEPT", 3)
    codec = codec_of(one_in())
    for number in range(10):
        parameters = {"mine": number, "binary_data_output": True}
        timed = {"timeout": 1 + number}
        body, length = headed(binary(outputs=[{"name": "y", "parameters": {"n": number}}], parameters=timed), ONES)
        codec.reading(length).decode(body)
        body, length = headed(binary(parameters=parameters), ONES)
        assert codec.reading(length).decode(body).inputs[0].tolist() == [[1] * 4]
        codec.decode(body_of(document(parameters=parameters)))
        codec.decode(body_of(document(outputs=[{"name": "y", "parameters": {"classification": number}}])))
    long = {"mine": "x" * infer_rest._LONGEST_KEPT}
    body, length = headed(binary(parameters=long), ONES)
    codec.reading(length).decode(body)
    kept = [codec._heads, codec._rests, codec._outlines, codec._outline_rests, codec._plans._answers]
    kept.append(codec._by_parameters.kept)
    assert all(len(each) <= 3 for each in kept)  # type: ignore[arg-type]
    codec.decode(body_of(document(parameters=long)))
    assert all(len(head) <= infer_rest._LONGEST_KEPT for head in codec._heads)
    assert all(sum(map(len, left)) <= infer_rest._LONGEST_KEPT for left in codec._outlines)
