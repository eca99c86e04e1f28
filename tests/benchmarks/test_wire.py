"""Bodies there and back."""

import json

import numpy as np
import pytest

from benchmarks.models import CONV, MLP, Model, records
from benchmarks.wire import Instances, Npy, OpenInference, OpenInferenceBinary, Request, head_length


@pytest.mark.parametrize("model", [MLP, CONV])
def test_the_text_of_a_record_reads_back_to_the_very_same_floats(model: Model) -> None:
    batch = records(model, 2)
    sent = json.loads(Instances().encode(batch))["instances"]
    assert np.array_equal(np.asarray(sent, dtype=np.float32), batch)


@pytest.mark.parametrize("model", [MLP, CONV])
def test_records_have_the_models_shape_and_are_unlike_each_other(model: Model) -> None:
    batch = records(model, 8)
    assert batch.shape == (8, *model.record)
    assert batch.dtype == np.float32
    assert len({record.tobytes() for record in batch}) == 8


def test_the_first_records_are_the_same_however_many_are_asked_for() -> None:
    assert np.array_equal(records(MLP, 2), records(MLP, 256)[:2])


def test_open_inference_carries_one_flat_tensor_with_its_shape() -> None:
    batch = records(MLP, 2)
    tensor = json.loads(OpenInference().encode(batch))["inputs"][0]
    assert (tensor["name"], tensor["shape"], tensor["datatype"]) == ("x", [2, 256], "FP32")
    assert np.array_equal(np.asarray(tensor["data"], dtype=np.float32).reshape(2, 256), batch)


def test_an_open_inference_answer_gets_its_shape_back() -> None:
    body = b'{"outputs": [{"name": "y", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}'
    assert OpenInference().decode(body).tolist() == [[1, 2], [3, 4]]


def test_binary_tensors_follow_the_json_that_says_their_size() -> None:
    batch = records(MLP, 2)
    body = OpenInferenceBinary().encode(batch)
    length = head_length(body)
    head = json.loads(body[:length])
    tensor = head["inputs"][0]
    assert (tensor["shape"], tensor["parameters"]["binary_data_size"]) == ([2, 256], len(body) - length)
    assert head["parameters"]["binary_data_output"] is True
    assert np.array_equal(np.frombuffer(body[length:], np.float32).reshape(2, 256), batch)


HEAD = b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}'


@pytest.mark.parametrize("blanks", [b"", b"  "])
def test_a_binary_answer_is_what_follows_its_json(blanks: bytes) -> None:
    raw = np.array([0.5, -1.0], np.float32).tobytes()
    assert OpenInferenceBinary().decode(HEAD + blanks + raw).tolist() == [[0.5, -1.0]]


@pytest.mark.parametrize("rest", [bytes(7), b"", b"x" + bytes(8)])
def test_a_binary_answer_of_another_size_than_it_says_is_refused(rest: bytes) -> None:
    with pytest.raises(ValueError, match="expected 8 bytes after the JSON, found"):
        OpenInferenceBinary().decode(HEAD + rest)


def test_npy_is_the_same_both_ways() -> None:
    batch = records(MLP, 3)
    assert np.array_equal(Npy().decode(Npy().encode(batch)), batch)


def test_a_request_asks_for_the_answer_in_its_own_format() -> None:
    raw = Request(18000, "/predict/mlp", "application/x-npy", b"12345").raw()
    head, _, body = raw.partition(b"\r\n\r\n")
    assert body == b"12345"
    assert head.split(b"\r\n") == [
        b"POST /predict/mlp HTTP/1.1",
        b"Host: 127.0.0.1:18000",
        b"Content-Type: application/x-npy",
        b"Accept: application/x-npy",
        b"Content-Length: 5",
    ]


def test_what_a_format_says_beside_its_name_is_sent_too() -> None:
    ask = Request(1, "/", "application/octet-stream", b"", {"Inference-Header-Content-Length": "7"})
    assert b"\r\nInference-Header-Content-Length: 7\r\n" in ask.raw()
