"""What TensorFlow Serving and Triton answer to the half_plus_two of TensorFlow Serving's tests, byte for byte.

The vectors are derived from the sources of both; `m` is `y = x / 2 + 2` for records of rank 0, in version 1.
"""

import gzip
import zlib
from typing import Any

import orjson
import pytest

from tests.clients.conftest import Served
from tests.e2e.process import Reply

pytestmark = pytest.mark.slow

JSON = "application/json"
HEAD_LENGTH = "inference-header-content-length"

NUMBERS = bytes.fromhex("0000803F 00000040 0000A040")
"""1, 2 and 5 as little-endian float32."""
ANSWERS = bytes.fromhex("00002040 00004040 00009040")
"""2.5, 3 and 4.5."""

PREDICTED: dict[bytes, Any] = {
    b'{"instances":[1.0,2.0,5.0]}': {"predictions": [2.5, 3.0, 4.5]},
    b'{"inputs":[1.0,2.0,5.0]}': {"outputs": [2.5, 3.0, 4.5]},
    b'{"instances":[{"x":1.0},{"x":2.0}]}': {"predictions": [2.5, 3.0]},
    b'{"inputs":{"x":[1.0]}}': {"outputs": [2.5]},
    b'{"instances":[1,2]}': {"predictions": [2.5, 3.0]},
}

NOT_PREDICTED = {
    b'{"instances":[]}': "No values in 'instances' array",
    b'{"instances":[1.0],"inputs":[1.0]}': "'inputs' or 'instances'",
    b"{}": "Missing 'inputs' or 'instances' key",
    b'{"instances":["a"]}': "is not of expected type: float",
    b'{"instances":[[1.0],[1.0,2.0]]}': "Expecting tensor size: 1 but got: 2",
    b'{"instances":[{"z":1.0}]}': "does not have named input: z",
    b'{"signature_name":7,"instances":[1.0]}': "signature_name",
    b"": "JSON Parse error",
    b"[1.0]": "object",
}

BINARY = {"name": "x", "shape": [3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
INLINE = {"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 5]}


def post(served: Served, path: str, body: bytes, **headers: str) -> Reply:
    with served.litepool.client() as client:
        return client.send("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})


def infer(
    served: Served, document: Any, binary: bytes | None = None, length: int | str | None = None, model: str = "m"
) -> Reply:
    """POST a request whose JSON head has the length that it says, unless another is given."""
    head = orjson.dumps(document)
    if binary is not None and length is None:
        length = len(head)
    headers = {} if length is None else {HEAD_LENGTH: str(length)}
    return post(served, f"/v2/models/{model}/infer", head + (binary or b""), **headers)


def refusal(reply: Reply, status: int) -> str:
    """An error's message."""
    assert (reply.status, reply.headers["content-type"], list(reply.json())) == (status, JSON, ["error"]), reply
    return str(reply.json()["error"])


# TensorFlow Serving


@pytest.mark.parametrize("body", PREDICTED, ids=bytes.decode)
def test_tensorflow_serving_predicts(served: Served, body: bytes) -> None:
    reply = post(served, "/v1/models/m:predict", body)
    assert (reply.status, reply.headers["content-type"], reply.json()) == (200, JSON, PREDICTED[body])


@pytest.mark.parametrize("body", NOT_PREDICTED, ids=lambda body: body.decode() or "empty")
def test_tensorflow_serving_says_what_is_wrong(served: Served, body: bytes) -> None:
    assert NOT_PREDICTED[body] in refusal(post(served, "/v1/models/m:predict", body), 400)


def test_tensorflow_serving_reads_and_writes_nan_as_a_token(served: Served) -> None:
    reply = post(served, "/v1/models/m:predict", b'{"instances":[NaN]}')
    assert (reply.status, b"".join(reply.body.split())) == (200, b'{"predictions":[NaN]}')


def test_tensorflow_serving_knows_no_other_model(served: Served) -> None:
    assert "none" in refusal(post(served, "/v1/models/none:predict", b'{"instances":[1]}'), 404)


def test_tensorflow_serving_tells_the_status(served: Served) -> None:
    with served.litepool.client() as client:
        reply = client.get("/v1/models/m")
    status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    # Beside it lies what KServe's clients look for at this URL.
    assert (reply.status, reply.json()["model_version_status"]) == (200, [status])


# Open Inference


def test_open_inference_answers_json_with_the_id(served: Served) -> None:
    reply = infer(served, {"id": "42", "inputs": [INLINE]})
    output = {"name": "y", "datatype": "FP32", "shape": [3], "data": [2.5, 3.0, 4.5]}
    answer = {"id": "42", "model_name": "m", "model_version": "1", "outputs": [output]}
    assert (reply.status, reply.headers["content-type"], reply.json()) == (200, JSON, answer)
    assert HEAD_LENGTH not in reply.headers
    assert list(reply.json()) == list(answer)


def test_open_inference_takes_nested_data_as_it_takes_flat(served: Served) -> None:
    rows = [[1, 2, 3, 4], [5, 6, 7, 8]]
    replies = [
        infer(served, {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": data}]}, model="classes")
        for data in (rows, [number for row in rows for number in row])
    ]
    assert [reply.status for reply in replies] == [200, 200]
    assert replies[0].json()["outputs"] == replies[1].json()["outputs"]
    assert replies[0].json()["outputs"][0]["data"] == [3, 5, 7, 9, 11, 13, 15, 17]


def test_open_inference_answers_in_binary(served: Served) -> None:
    reply = infer(served, {"inputs": [BINARY], "parameters": {"binary_data_output": True}}, NUMBERS)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
    length = int(reply.headers[HEAD_LENGTH])
    output = {"name": "y", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": 12}}
    assert orjson.loads(reply.body[:length]) == {"model_name": "m", "model_version": "1", "outputs": [output]}
    assert reply.body[length:] == ANSWERS


def test_open_inference_takes_a_body_of_one_tensor_alone(served: Served) -> None:
    reply = post(served, "/v2/models/m/infer", NUMBERS[-4:], **{HEAD_LENGTH: "0"})
    assert reply.status == 200
    assert reply.body[int(reply.headers[HEAD_LENGTH]) :] == ANSWERS[-4:]


def test_open_inference_lays_strings_out_with_their_lengths(served: Served) -> None:
    strings = bytes.fromhex("02000000 6869 00000000")
    tensor = {"name": "x", "shape": [1, 2], "datatype": "BYTES", "parameters": {"binary_data_size": len(strings)}}
    asked = {"inputs": [tensor], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    reply = infer(served, asked, strings, model="words")
    assert reply.status == 200
    assert reply.body[int(reply.headers[HEAD_LENGTH]) :] == strings


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_open_inference_takes_compressed_bodies(served: Served, encoding: str) -> None:
    head = orjson.dumps({"inputs": [BINARY]})
    body = (gzip if encoding == "gzip" else zlib).compress(head + NUMBERS)
    headers = {"content-encoding": encoding, HEAD_LENGTH: str(len(head))}
    reply = post(served, "/v2/models/m/infer", body, **headers)
    assert (reply.status, reply.json()["outputs"][0]["data"]) == (200, [2.5, 3.0, 4.5])


@pytest.mark.parametrize(
    ("size", "binary"),
    [(8, NUMBERS[:8]), (16, NUMBERS), (12, NUMBERS + b"\0"), (12, NUMBERS[:-1]), (13, NUMBERS + b"\0"), (-12, NUMBERS)],
    ids=["too small", "more than there is", "a byte left", "a byte too few", "too large", "negative"],
)
def test_open_inference_refuses_sizes_that_do_not_fit(served: Served, size: int, binary: bytes) -> None:
    tensor = BINARY | {"parameters": {"binary_data_size": size}}
    refusal(infer(served, {"inputs": [tensor]}, binary), 400)


def test_open_inference_refuses_data_given_twice(served: Served) -> None:
    assert "x" in refusal(infer(served, {"inputs": [BINARY | INLINE]}, NUMBERS), 400)


@pytest.mark.parametrize("length", ["-1", "100000", "1.5", "", "99999999999999999999"])
def test_open_inference_refuses_a_head_of_no_such_length(served: Served, length: str) -> None:
    refusal(infer(served, {"inputs": [BINARY]}, NUMBERS, length=length), 400)


def test_open_inference_takes_a_body_without_that_length_for_json(served: Served) -> None:
    refusal(post(served, "/v2/models/m/infer", orjson.dumps({"inputs": [INLINE]}) + NUMBERS), 400)


def test_open_inference_has_no_float16_in_json(served: Served) -> None:
    tensor = {"name": "float16", "shape": [1, 2], "datatype": "FP16", "data": [1, 2]}
    assert "FP16" in refusal(infer(served, {"inputs": [tensor]}, model="types"), 400)
    refusal(infer(served, {"inputs": [INLINE | {"datatype": "FP16"}]}), 400)


@pytest.mark.parametrize("path", ["/v2/models/none/infer", "/v2/models/m/versions/7/infer"])
def test_open_inference_knows_no_other_model_or_version(served: Served, path: str) -> None:
    refusal(post(served, path, orjson.dumps({"inputs": [INLINE]})), 404)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"inputs":{}}', b'{"inputs":[7]}'], ids=repr)
def test_open_inference_refuses_what_is_no_request(served: Served, body: bytes) -> None:
    refusal(post(served, "/v2/models/m/infer", body), 400)


def test_there_is_no_other_route_or_verb(served: Served) -> None:
    refusal(post(served, "/v2/models/m/frobnicate", b"{}"), 404)
    with served.litepool.client() as client:
        refusal(client.get("/v2/models/m/infer"), 405)
