"""What `Predict` keeps of the requests of a client, and that it changes no answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import LitepoolError
from app.protocols import serving_grpc
from app.protocols.call import Call, Identity
from app.protocols.serving_grpc import GrpcPredict
from app.tensors import FREE, Array, Signature, TensorSpec, make_signature
from tests import protobuf

FLOAT = np.dtype(np.float32)
SIGNATURE = make_signature(
    "serving_default", (TensorSpec("x", FLOAT, (FREE, 4)),), (TensorSpec("y", FLOAT, (FREE, 4)),)
)
CONTENT, VALUES = 4, 5


def request(array: Array, field: int = CONTENT, spec: tuple[str, ...] = ("m",), *behind: bytes) -> bytes:
    """A `PredictRequest`: 1 the model_spec, 2 an input; of the tensor 1 is the dtype, 2 the shape."""
    shape = protobuf.message(*((2, protobuf.message((1, size))) for size in array.shape))
    tensor = protobuf.message((1, 1), (2, shape), (field, array.tobytes()))
    model = protobuf.message(*zip((1, 3), spec, strict=False))
    return protobuf.message((1, model), (2, protobuf.message((1, "x"), (2, tensor)))) + b"".join(behind)


def records(rows: int, first: float = 0.0) -> Array:
    return np.arange(rows * 4, dtype=np.float32).reshape(rows, 4) + first


def codec(signature: Signature = SIGNATURE) -> GrpcPredict:
    return GrpcPredict(Identity("m", 1, {}), signature)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The requests that are read in full."""
    seen: list[bytes] = []
    read = serving_grpc.read_predict

    def watched(data: bytes) -> serving_grpc.PredictMessage:
        seen.append(data)
        return read(data)

    monkeypatch.setattr(serving_grpc, "read_predict", watched)
    return seen


@pytest.mark.parametrize("field", [CONTENT, VALUES], ids=["tensor_content", "float_val"])
def test_a_request_like_one_before_is_not_read_again_and_its_values_are_its_own(reads: list[bytes], field: int) -> None:
    made = codec()
    bodies = [request(records(3, first), field) for first in (0.0, 100.0, 200.0)]

    calls = [made.decode(body) for body in bodies]

    assert reads == bodies[:1]
    assert [call.inputs[0].tolist() for call in calls] == [records(3, first).tolist() for first in (0.0, 100.0, 200.0)]
    assert {(call.rows, call.form, call.asks) for call in calls} == {(3, calls[0].form, None)}


def test_the_values_of_a_request_like_one_before_lie_in_it(reads: list[bytes]) -> None:
    made = codec()
    made.decode(request(records(2)))
    body = request(records(2, 7.0))

    (array,) = made.decode(body).inputs

    assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    assert len(reads) == 1


@pytest.mark.parametrize(
    "other",
    [
        request(records(2)),
        request(records(3), VALUES),
        request(records(3), CONTENT, ("m", "serving_default")),
        request(records(3), CONTENT, ("m",), protobuf.message((3, "y"))),
        request(records(3))[:-4],
        request(records(3)) + b"\x00" * 4,
    ],
    ids=["rows", "field", "signature", "filter", "cut", "longer"],
)
def test_a_request_unlike_those_before_is_read(reads: list[bytes], other: bytes) -> None:
    made = codec()
    made.decode(request(records(3)))

    assert outcome(made, other) == outcome(codec(), other)
    assert reads[1] == other


def test_of_many_unlike_requests_few_are_kept(reads: list[bytes]) -> None:
    made = codec()
    for rows in range(1, 1000):
        made.decode(request(records(rows)))

    assert len(made._heads) <= 256
    assert len(made._lengths) <= 4


def outcome(made: GrpcPredict, body: bytes) -> object:
    try:
        call: Call = made.decode(body)
    except LitepoolError as error:
        return type(error), error.message
    return [array.tobytes() for array in call.inputs], [array.shape for array in call.inputs], call[1:]


@given(data=st.data())
def test_what_is_kept_changes_no_outcome(data: st.DataObject) -> None:
    seeds = [request(records(rows), field) for rows in (1, 2) for field in (CONTENT, VALUES)]
    used = codec()
    for seed in seeds:
        used.decode(seed)
    body = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not body:
            return

    assert outcome(used, bytes(body)) == outcome(codec(), bytes(body))
