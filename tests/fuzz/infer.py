"""Targets for fuzzers: whatever comes, Open Inference's codecs give a call that fits the model, or an error of ours.

Each `check` takes a body. It holds that

- nothing else than `LitepoolError` is raised,
- a call's arrays have the signature's dtypes, shapes that it admits, and as many rows as the call says,
- a tensor that is a view lies within the body,
- a codec that has seen other requests before gives what a new one gives, and
- the call can be answered.
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from app.errors import LitepoolError
from app.protocols.call import Answer, Call, Codec, Identity
from app.protocols.infer_grpc import GrpcInfer
from app.protocols.infer_rest import InferRest
from app.tensors import STRING, Array, Batching, Shape, Signature, fits, make_signature
from tests.protocols.golden_infer import GOLDEN, Golden, read_grpc, read_rest
from tests.signatures import one_in, spec, two_in

IDENTITY = Identity("m", 1, {"y": ["a", "b"]})

SIGNATURES: list[Signature] = [
    one_in("float32", (-1,)),
    two_in(),
    one_in("string", (-1, 2)),
    one_in("float16", (-1, 2)),
    one_in("bool", (-1, 2)),
    one_in("uint64", (-1, 2)),
    one_in("float32", (3, 2)),
    make_signature("free", (spec("x", "int8", (-1, -1, 2)),), (spec("y", "int8", (-1, -1)),)),
]


def _golden_of(signature: Signature) -> list[Golden]:
    return [golden for golden in GOLDEN if golden.signature == signature]


def seeds() -> list[bytes]:
    """Bodies that are read, to begin from: JSON, JSON with bytes behind it, and messages."""
    found = []
    for golden in GOLDEN:
        found += [golden.binary_form()[0], golden.grpc_form()]
        if golden.has_json:
            found += [golden.json_form(), golden.json_form(nested=True), golden.grpc_form(typed=True)]
    return found


@cache
def _rest(which: int) -> InferRest:
    """One that has seen other requests before."""
    codec = InferRest(IDENTITY, SIGNATURES[which])
    for golden in _golden_of(SIGNATURES[which]):
        body, length = golden.binary_form()
        codec.reading(length).decode(body)
        if golden.has_json:
            codec.decode(golden.json_form())
    return codec


@cache
def _grpc(which: int) -> GrpcInfer:
    codec = GrpcInfer(IDENTITY, SIGNATURES[which])
    for golden in _golden_of(SIGNATURES[which]):
        codec.decode(golden.grpc_form())
    return codec


def check_rest(data: bytes) -> None:
    """A body over HTTP that is JSON alone."""
    for which, signature in enumerate(SIGNATURES):
        _check(signature, data, _rest(which), InferRest(IDENTITY, signature), read_rest)


def check_headed(data: bytes, length: int) -> None:
    """A body over HTTP with tensors behind `length` bytes of JSON."""
    for which, signature in enumerate(SIGNATURES):
        try:
            seen, new = (codec.reading(str(length)) for codec in (_rest(which), InferRest(IDENTITY, signature)))
        except LitepoolError:
            continue
        _check(signature, data, seen, new, read_rest)


def check_grpc(data: bytes) -> None:
    """A message."""
    for which, signature in enumerate(SIGNATURES):
        _check(signature, data, _grpc(which), GrpcInfer(IDENTITY, signature), read_grpc)


def check(data: bytes) -> None:
    """All of them; the JSON ends where there is a byte that it does not have, or elsewhere."""
    check_rest(data)
    check_grpc(data)
    end = next((place for place, byte in enumerate(data) if byte < 32 or byte > 126), len(data))
    for length in {0, end, data.rfind(b"}") + 1, data[0] if data else 0}:
        check_headed(data, length)


def _check(
    signature: Signature, data: bytes, seen: Codec, new: Codec, read: Callable[[bytes | Answer], tuple[Any, Any]]
) -> None:
    outcomes = [_decoded(codec, data) for codec in (new, seen, seen)]
    if isinstance(outcomes[0], str):
        assert outcomes == [outcomes[0]] * 3
        return
    for outcome, codec in zip(outcomes, (new, seen, seen), strict=True):
        assert isinstance(outcome, Call), outcome
        _check_call(signature, outcome, data)
        assert _bits(outcome) == _bits(outcomes[0])
        try:
            answer = codec.encode(outcome, _outputs(signature, outcome.rows))
        except LitepoolError:
            continue
        said, tensors = read(answer)
        assert said["model_name"] == "m"
        assert len(tensors) <= len(signature.outputs)


def _decoded(codec: Codec, data: bytes) -> Call | str:
    try:
        return codec.decode(data)
    except LitepoolError as error:
        message = error.message
    # As every edge sends it.
    assert json.loads(json.dumps(message).encode()) == message.encode().decode()
    return message


def _check_call(signature: Signature, call: Call, data: bytes) -> None:
    whole = signature.batching is Batching.NONE
    assert len(call.inputs) == len(signature.inputs)
    assert call.rows >= 1
    body = np.frombuffer(data, np.uint8)
    for array, wanted in zip(call.inputs, signature.inputs, strict=True):
        assert array.dtype == wanted.dtype
        assert array.shape[0] == call.rows
        assert fits(array.shape[1:] if whole else array.shape, signature.tensor_shape(wanted))
        if wanted.dtype == STRING:
            assert all(type(value) is bytes for value in array.ravel().tolist())
        elif not array.flags.owndata and np.may_share_memory(array, body):
            assert _bounds(body)[0] <= _bounds(array)[0]
            assert _bounds(array)[1] <= _bounds(body)[1]


def _bounds(array: Array) -> tuple[int, int]:
    return np.lib.array_utils.byte_bounds(array)


def _bits(call: Call) -> Any:
    arrays = [
        (array.shape, array.ravel().tolist() if array.dtype == STRING else array.tobytes()) for array in call.inputs
    ]
    return arrays, call.rows, call.timeout_ns, call.place, call.asks[0]


def _outputs(signature: Signature, rows: int) -> list[Array]:
    found = []
    for wanted in signature.outputs:
        shape: Shape = tuple(3 if size < 0 else size for size in signature.record_shape(wanted))
        array: Array = np.zeros((rows, *shape), wanted.dtype)
        if wanted.dtype == STRING:
            array[...] = b"a"
        found.append(array)
    return found
