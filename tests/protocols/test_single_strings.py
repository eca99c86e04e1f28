"""Strings that are no part of a list: what gives one takes no road that only arrays can take."""

import json
from typing import Any

import numpy as np
import pytest

from app.protocols.call import Call, Form, Identity
from app.protocols.predict_json import PredictJson
from app.protocols.serving_grpc import GrpcPredict
from app.protocols.serving_json import ServingPredict
from app.tensors import STRING, Array, Signature, make_signature
from tests import protobuf
from tests.signatures import spec


def strings(*values: bytes) -> Array:
    return np.array(values, STRING)


def alone(name: str) -> Signature:
    """Without a batch dimension: a string to a string."""
    return make_signature("serving_default", (spec("x", "string", ()),), (spec(name, "string", ()),))


@pytest.mark.parametrize(("name", "expected"), [("y", "null"), ("y_bytes", {"b64": "bnVsbA=="})])
def test_a_whole_answer_that_is_one_string_is_written_as_it(name: str, expected: Any) -> None:
    call = Call((strings(b"x"),), 1, Form.INPUTS)

    assert json.loads(ServingPredict(alone(name)).encode(call, [strings(b"null")])) == {"outputs": expected}


def test_of_several_outputs_each_row_s_string_is_written_as_it() -> None:
    outputs = (spec("y", "string", (-1,)), spec("y_bytes", "string", (-1,)), spec("z", "float32", (-1,)))
    signature = make_signature("serving_default", (spec("x"),), outputs)
    call = Call((np.zeros((2, 4), np.float32),), 2, Form.INSTANCES)
    given = [strings(b"no", b"null"), strings(b"a", b"b"), np.array([np.nan, 1], np.float32)]

    answer = ServingPredict(signature).encode(call, given)

    assert answer == (
        b'{"predictions":[{"y":"no","y_bytes":{"b64":"YQ=="},"z":NaN},{"y":"null","y_bytes":{"b64":"Yg=="},"z":1.0}]}'
    )


def test_so_it_is_for_predict() -> None:
    call = Call((strings(b"x"),), 1, Form.INPUTS)

    assert PredictJson(alone("y")).encode(call, [strings(b"null")]) == b'{"outputs":"null"}'


def test_and_by_grpc() -> None:
    answer = GrpcPredict(Identity("m", 1, {}), alone("y")).encode(Call((), 1, Form.INPUTS), [strings(b"null")])

    assert isinstance(answer, bytes)
    assert list(protobuf.read(protobuf.one(answer, 1, 2))) == [(1, 7), (2, b""), (8, b"null")]
