"""TensorFlow Serving's `Predict` over gRPC, held against protobuf's own reader and writer."""

from typing import Any

import numpy as np
import pytest

from app.errors import InvalidArgument
from app.protocols.call import Answer, Form, Identity, OtherSignature
from app.protocols.serving_grpc import GrpcPredict, Spec, read_predict, read_spec
from app.server.rpc.messages import new
from app.tensors import STRING, Array, Signature
from tests.protocols.golden_serving import PREDICTIONS, Golden
from tests.protocols.test_serving_json import same
from tests.protocols.test_tensor_proto import FIELDS, read, typed, values_of
from tests.signatures import one_in, two_in

IDENTITY = Identity("m", 3, {})


def dtype_of(array: Array) -> str:
    return "string" if array.dtype == STRING else array.dtype.name


def request(signature: Signature, inputs: dict[str, Array], **spec: Any) -> Any:
    """A `PredictRequest`; of a model without a batch dimension the inputs are without that of the call."""
    found = new("tensorflow.serving.PredictRequest")
    found.model_spec.name = "m"
    for name, value in spec.items():
        if name == "version":
            found.model_spec.version.value = value
        else:
            setattr(found.model_spec, name, value)
    for name, array in inputs.items():
        found.inputs[name].CopyFrom(typed(dtype_of(array), array.shape, values_of(array)))
    return found


def named(golden: Golden) -> dict[str, Array]:
    bare = GrpcPredict(IDENTITY, golden.signature)._bare
    arrays = [array[0, ...] if bare else array for array in golden.inputs]
    return {spec.name: np.asarray(array) for spec, array in zip(golden.signature.inputs, arrays, strict=True)}


def answered(codec: GrpcPredict, message: Any, outputs: list[Array]) -> Any:
    """The answer's message."""
    data = codec.encode(codec.decode(message.SerializeToString()), outputs)
    return new("tensorflow.serving.PredictResponse").FromString(
        b"".join(data.pieces) if isinstance(data, Answer) else data
    )


def refusal(signature: Signature, message: Any) -> str:
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with pytest.raises(InvalidArgument) as refused:
        GrpcPredict(IDENTITY, signature).decode(data)
    return refused.value.message


@pytest.mark.parametrize("form", ["bytes", "view", "taken apart"])
@pytest.mark.parametrize("golden", PREDICTIONS.values(), ids=PREDICTIONS)
def test_a_golden_request_is_read_and_answered(golden: Golden, form: str) -> None:
    codec = GrpcPredict(IDENTITY, golden.signature)
    message = request(golden.signature, named(golden))
    data: Any = message.SerializeToString()
    if form == "view":
        data = memoryview(data)
    elif form == "taken apart":
        data = read_predict(data)

    call = codec.decode(data)

    assert call.form is Form.INPUTS
    for found, expected in zip(call.inputs, golden.inputs, strict=True):
        assert same(found, expected), (found, expected)
    answer = answered(codec, message, golden.outputs)
    assert answer.outputs.keys() == {spec.name for spec in golden.signature.outputs}
    for spec, expected in zip(golden.signature.outputs, golden.outputs, strict=True):
        bare = np.asarray(expected[0, ...] if codec._bare else expected)
        found = read(answer.outputs[spec.name], dtype_of(bare), bare.shape)
        assert same(found, bare), (found, bare)
        # Programs that have no TensorFlow read the field of the dtype.
        assert not answer.outputs[spec.name].tensor_content
        assert len(getattr(answer.outputs[spec.name], FIELDS[dtype_of(bare)])) >= bare.size


def test_the_answer_says_what_has_answered() -> None:
    x = np.ones((1, 4), np.float32)
    answer = answered(GrpcPredict(IDENTITY, one_in()), request(one_in(), {"x": x}), [x])

    assert answer.model_spec.name == "m"
    assert answer.model_spec.version.value == 3
    assert answer.model_spec.signature_name == "serving_default"


def test_a_large_answer_is_not_copied_together() -> None:
    codec = GrpcPredict(IDENTITY, one_in())
    x = np.ones((20_000, 4), np.float32)
    call = codec.decode(request(one_in(), {"x": x}).SerializeToString())

    answer = codec.encode(call, [x])

    assert isinstance(answer, Answer)
    assert any(np.shares_memory(np.frombuffer(piece, np.uint8), x) for piece in answer.pieces if piece)


def test_only_the_outputs_that_are_asked_for_are_answered() -> None:
    codec = GrpcPredict(IDENTITY, two_in())
    message = request(two_in(), {"age": np.ones((1, 1), "int32"), "body": np.ones((1, 3), "float32")})
    outputs: list[Array] = [np.array([[1, 2]], "float32"), np.array([3], "float32")]

    message.output_filter.append("score")
    assert answered(codec, message, outputs).outputs.keys() == {"score"}
    message.output_filter.append("risk")
    assert answered(codec, message, outputs).outputs.keys() == {"score", "risk"}
    message.output_filter.append("risk")
    assert refusal(two_in(), message) == "duplicate output tensor alias: risk"
    message.output_filter[:] = ["z"]
    assert refusal(two_in(), message) == (
        "output tensor alias not found in signature: z Outputs expected to be in the set {risk,score}."
    )


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            {},
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        ({"z": (1, 4)}, "Sent extra: {z}. Missing but required: {x}."),
        ({"x": (1, 4), "z": (1, 4)}, "Sent extra: {z}. Missing but required: {}."),
        ({"x": (4,)}, "input 'x': expected shape [-1, 4], found [4]"),
    ],
)
def test_inputs_that_are_not_the_signatures_are_refused(inputs: dict[str, tuple[int, ...]], words: str) -> None:
    arrays = {name: np.ones(shape, np.float32) for name, shape in inputs.items()}

    assert words in refusal(one_in(), request(one_in(), arrays))


def test_inputs_of_unlike_batches_are_refused() -> None:
    message = request(two_in(), {"age": np.ones((2, 1), "int32"), "body": np.ones((3, 3), "float32")})

    assert refusal(two_in(), message) == "inputs: expected as many records in each input, found 'age': 2, 'body': 3"


def test_a_signature_of_another_name_is_for_another_codec() -> None:
    x = np.ones((1, 4), np.float32)
    with pytest.raises(OtherSignature) as other:
        GrpcPredict(IDENTITY, one_in()).decode(request(one_in(), {"x": x}, signature_name="z").SerializeToString())
    assert other.value.name == "z"
    same_name = request(one_in(), {"x": x}, signature_name="serving_default")
    assert GrpcPredict(IDENTITY, one_in()).decode(same_name.SerializeToString()).rows == 1


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, Spec("m")),
        ({"version": 7}, Spec("m", 7)),
        ({"version": 0}, Spec("m", 0)),
        ({"version": -1}, Spec("m", -1)),
        ({"version_label": "stable"}, Spec("m", None, "stable")),
        ({"signature_name": "\u00e9"}, Spec("m", signature="\u00e9")),
        ({"signature_name": "s" * 2000, "version": 1 << 60}, Spec("m", 1 << 60, signature="s" * 2000)),
    ],
)
def test_what_a_request_is_for_is_read(spec: dict[str, Any], expected: Spec) -> None:
    message = request(one_in(), {}, **spec)

    assert read_predict(message.SerializeToString()).spec == expected
    assert read_spec(message.model_spec.SerializeToString()) == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x0a", "the PredictRequest is no protobuf message of its type"),
        (b"\x0a\x03\x0a\x01\xff", "no UTF-8 text"),
        (b"\x12\x05\x0a\x01x\x10\x01", "an input of the PredictRequest is no TensorProto: found a number"),
        (b"\x12\x03\x0a\x01\xff", "the name of an input is no UTF-8 text"),
        (b"\x1a\x01\xff", "output_filter is no UTF-8 text"),
    ],
)
def test_damage_is_refused_in_words(data: bytes, words: str) -> None:
    assert words in refusal(one_in(), data)


def test_what_is_not_known_of_a_request_is_passed_over() -> None:
    x = np.ones((1, 4), np.float32)
    data = request(one_in(), {"x": x}).SerializeToString() + b"\x08\x01" + b"\x7a\x01a" + b"\x19" + b"\0" * 8

    assert GrpcPredict(IDENTITY, one_in()).decode(data).rows == 1
