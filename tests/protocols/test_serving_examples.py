"""TensorFlow Serving's `classify` and `regress`, by REST and by gRPC alike."""

import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidArgument
from app.protocols.call import Call, Form, Identity, OtherSignature
from app.protocols.example_proto import read_example
from app.protocols.serving_examples import ServingClassify, ServingExamples, ServingRegress
from app.protocols.serving_grpc_examples import GrpcClassify, GrpcExamples, GrpcRegress
from app.server.rpc.messages import new
from app.tensors import STRING, Array, Signature, make_signature
from tests.examples import many
from tests.protocols.golden_serving import EXAMPLES, GoldenExamples
from tests.protocols.test_serving_json import same
from tests.signatures import one_in, spec, two_in

LABELS = {"risk": ["low", "h\u00f6h"]}
IDENTITY = Identity("m", 3, LABELS)
ANSWERED = Call((), 2, Form.INSTANCES)


def example(features: dict[str, tuple[str, list[Any]]]) -> Any:
    found = new("tensorflow.Example")
    for name, (kind, values) in features.items():
        getattr(found.features.feature[name], f"{kind}_list").value.extend(values)
    return found


def request(golden: GoldenExamples) -> Any:
    found = new("tensorflow.serving.ClassificationRequest")
    found.model_spec.name = "m"
    listed = found.input.example_list
    if golden.context:
        listed = found.input.example_list_with_context
        listed.context.CopyFrom(example(golden.context))
    listed.examples.extend(map(example, golden.features))
    found.input.SetInParent()
    return found


def calls(golden: GoldenExamples) -> list[Call]:
    """What each of the two reads."""
    data = request(golden).SerializeToString()
    return [
        ServingExamples(golden.signature, "classify", "").decode(golden.rest.encode()),
        GrpcExamples(IDENTITY, golden.signature, "classify", "").decode(data),
        GrpcExamples(IDENTITY, golden.signature, "classify", "").decode(memoryview(data)),
    ]


@pytest.mark.parametrize("golden", EXAMPLES.values(), ids=EXAMPLES)
def test_golden_examples_become_the_same_tensors(golden: GoldenExamples) -> None:
    for call in calls(golden):
        assert call.rows == len(golden.features)
        if golden.inputs:
            for found, expected in zip(call.inputs, golden.inputs, strict=True):
                assert same(found, expected), (found, expected)
            continue
        # A graph that takes serialized examples gets them, whatever the order of their features.
        (strings,) = call.inputs
        assert strings.dtype == STRING
        for data, features in zip(strings, golden.features, strict=True):
            merged = new("tensorflow.Example").FromString(data)
            assert merged.features == example(golden.context | features).features


@settings(max_examples=many(100))
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.one_of(
            st.tuples(st.just("bytes"), st.lists(st.binary(max_size=5), max_size=4)),
            st.tuples(st.just("float"), st.lists(st.floats(width=32, allow_nan=False), max_size=4)),
            st.tuples(st.just("int64"), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)),
        ),
        max_size=4,
    )
)
def test_an_example_is_read_as_protobuf_writes_it(features: dict[str, tuple[str, list[Any]]]) -> None:
    found = read_example(example(features).SerializeToString(), "an example")

    assert {name: list(feature.values) for name, feature in found.items()} == {
        name: values for name, (_, values) in features.items()
    }
    assert all(feature.kind == features[name][0] for name, feature in found.items() if len(feature.values))


# What is answered


def two_scores() -> list[Array]:
    return [np.array([[0.25, np.nan], [1, 0]], "float32"), np.array([2, np.inf], "float32")]


def test_a_classification_has_labels_and_scores_in_both_formats() -> None:
    assert ServingClassify(IDENTITY, two_in()).encode(ANSWERED, two_scores()).decode() == (
        '{"results":[[["low",0.25],["h\u00f6h",NaN]],[["low",1.0],["h\u00f6h",0.0]]]}'
    )
    message = new("tensorflow.serving.ClassificationResponse").FromString(
        GrpcClassify(IDENTITY, two_in()).encode(ANSWERED, two_scores())
    )
    (first, second) = message.result.classifications
    assert [(each.label, each.score) for each in second.classes] == [("low", 1.0), ("h\u00f6h", 0.0)]
    assert first.classes[0].score == 0.25
    assert np.isnan(first.classes[1].score)
    assert (message.model_spec.name, message.model_spec.version.value) == ("m", 3)


def test_a_regression_has_a_value_for_each_example_in_both_formats() -> None:
    assert ServingRegress(IDENTITY, two_in()).encode(ANSWERED, two_scores()) == b'{"results":[2.0,Infinity]}'
    message = new("tensorflow.serving.RegressionResponse").FromString(
        GrpcRegress(IDENTITY, two_in()).encode(ANSWERED, two_scores())
    )
    assert [each.value for each in message.result.regressions] == [2.0, np.inf]
    assert message.model_spec.signature_name == "serving_default"


def scored(*outputs: Any) -> Signature:
    return make_signature("serving_default", (spec("x"),), outputs)


def test_the_model_may_name_the_classes_itself() -> None:
    signature = scored(spec("classes", "string", (-1, 2)), spec("scores", "float64", (-1, 2)), spec("z", shape=(-1, 2)))
    outputs = [np.array([[b"a", b"\xff"]], STRING), np.array([[0.5, 1e300]]), np.zeros((1, 2), "f4")]

    answer = ServingClassify(IDENTITY, signature).encode(ANSWERED, outputs)

    assert answer.decode() == '{"results":[[["a",0.5],["\ufffd",Infinity]]]}'
    alone = scored(spec("names", "string", (-1, 2)))
    assert ServingClassify(IDENTITY, alone).encode(ANSWERED, outputs[:1]) == (
        '{"results":[[["a",0.0],["\ufffd",0.0]]]}'.encode()
    )
    with pytest.raises(InvalidArgument, match="expected them alike"):
        ServingClassify(IDENTITY, signature).encode(ANSWERED, [outputs[0][:, :1], *outputs[1:]])


def test_classes_without_a_name_are_called_by_their_numbers() -> None:
    outputs = [np.array([[1, 2, 3]], "f4")]

    assert ServingClassify(Identity("m", 1, {"y": ["a"]}), scored(spec("y", shape=(-1, -1)))).encode(
        ANSWERED, outputs
    ) == (b'{"results":[[["a",1.0],["1",2.0],["2",3.0]]]}')


@pytest.mark.parametrize(
    ("signature", "verb", "words"),
    [
        (one_in("int8"), "classify", "cannot classify: Expected classification signature outputs"),
        (one_in(shape=(-1,)), "classify", "Expected classification signature outputs"),
        (scored(spec("a"), spec("b")), "classify", "Expected classification signature outputs"),
        (one_in(), "regress", "cannot regress: Expected output Tensor shape to be either [batch_size]"),
        (one_in("string", (-1,)), "regress", "Expected output Tensor shape"),
        (scored(spec("a", shape=(-1,)), spec("b", shape=(-1, 1))), "regress", "Expected output Tensor shape"),
        (one_in(shape=(4, 4)), "classify", "its tensors have no batch dimension"),
        (make_signature("s", (spec("x", "complex64"),), (spec("y"),)), "classify", "takes complex numbers"),
        (make_signature("s", (spec("x", shape=(-1, -1, -1)),), (spec("y"),)), "classify", "has the shape [-1, -1, -1]"),
    ],
)
def test_a_signature_that_has_no_such_answer_says_why(signature: Signature, verb: str, words: str) -> None:
    rest, grpc = (ServingClassify, GrpcClassify) if verb == "classify" else (ServingRegress, GrpcRegress)
    for codec, body in ((rest(IDENTITY, signature), b'{"examples":[{"x":1}]}'), (grpc(IDENTITY, signature), b"")):
        with pytest.raises(InvalidArgument) as refused:
            codec.decode(body)
        assert words in refused.value.message
        assert f"Expected signature method_name to be tensorflow/serving/{verb}" in refused.value.message


def test_another_signature_is_asked_before_this_one_says_that_it_cannot() -> None:
    message = new("tensorflow.serving.ClassificationRequest")
    message.model_spec.signature_name = "z"
    for codec, body in (
        (ServingClassify(IDENTITY, one_in("int8")), b'{"signature_name":"z","examples":[{}]}'),
        (GrpcClassify(IDENTITY, one_in("int8")), message.SerializeToString()),
    ):
        with pytest.raises(OtherSignature):
            codec.decode(body)


# What is refused


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({}, "Feature: age (data type: int32) is required but could not be found: example 1 has no features"),
        ({"age": ("int64", [1])}, "Feature: body (data type: float32) is required"),
        ({"age": ("float", [1.0]), "body": ("float", [1, 2, 3])}, "Key: age, Index: 1.  Data types don't match"),
        ({"age": ("int64", [1 << 40]), "body": ("float", [1, 2, 3])}, "out of range for int32"),
        ({"age": ("int64", [1, 2]), "body": ("float", [1, 2, 3])}, "values size: 2 but output shape: [1]"),
        ({"age": ("int64", []), "body": ("float", [1, 2, 3])}, "values size: 0 but output shape: [1]"),
        ({"age": ("int64", [1]), "body": ("bytes", [b"1", b"2", b"3"])}, "Data type: bytes but expected type: float"),
    ],
)
def test_features_that_do_not_fit_are_refused_by_grpc_in_the_words_of_rest(
    features: dict[str, tuple[str, list[Any]]], words: str
) -> None:
    good: dict[str, tuple[str, list[Any]]] = {"age": ("int64", [1]), "body": ("float", [1, 2, 3])}
    golden = GoldenExamples(two_in(), "", [good, features], {}, [])
    with pytest.raises(InvalidArgument) as refused:
        GrpcClassify(IDENTITY, two_in()).decode(request(golden).SerializeToString())
    assert words in refused.value.message


def test_a_context_is_not_copied_for_each_of_any_number_of_examples() -> None:
    """A body of some kilobytes could ask for all memory: the context is each example's."""
    many_examples, values = 1 << 16, 1 << 9
    serialized = make_signature("s", (spec("inputs", "string", (-1,)),), (spec("scores", "float32", (-1, 2)),))
    strings = make_signature("s", (spec("x", "string", (-1,)),), (spec("scores", "float32", (-1, 2)),))
    cases: list[tuple[Signature, str, list[Any]]] = [
        (one_in(shape=(-1, values)), "float", [0.5] * values),
        (one_in(shape=(-1, -1)), "float", [0.5] * values),
        (strings, "bytes", [b"a" * 4 * values]),
        (serialized, "float", [0.5] * values),
    ]
    for signature, kind, content in cases:
        golden = GoldenExamples(signature, "", [{}] * many_examples, {"x": (kind, content)}, [])
        shown = [each.decode() if kind == "bytes" else each for each in content]
        body = orjson.dumps({"context": {"x": shown}, "examples": [{}] * many_examples})
        for codec, data in (
            (GrpcClassify(IDENTITY, signature), request(golden).SerializeToString()),
            (ServingClassify(IDENTITY, signature), body),
        ):
            with pytest.raises(InvalidArgument, match=r"the context has 2\d\d\d bytes for each of 65536 examples"):
                codec.decode(data)


def test_many_features_of_a_context_that_nobody_looks_at_are_not_copied_either() -> None:
    context = {f"feature {index}": index for index in range(2_000)}
    body = orjson.dumps({"context": context, "examples": [{"x": [1, 2, 3, 4]}] * 2_000})

    tracemalloc.start()
    call = ServingClassify(IDENTITY, one_in()).decode(body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert call.rows == 2_000
    assert most < 40_000_000


def test_a_request_without_examples_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="Input is empty"):
        GrpcRegress(IDENTITY, two_in()).decode(b"")


def test_any_damage_is_refused_and_nothing_worse() -> None:
    seeds = [request(golden).SerializeToString() for golden in EXAMPLES.values()]
    codecs = [GrpcClassify(IDENTITY, two_in()), GrpcRegress(IDENTITY, one_in(shape=(-1, 1)))]

    @settings(max_examples=many(400))
    @given(st.sampled_from(seeds), st.integers(0, 120), st.binary(max_size=4), st.integers(0, 4))
    def check(seed: bytes, place: int, put: bytes, taken: int) -> None:
        data = seed[:place] + put + seed[place + taken :]
        for codec in codecs:
            try:
                call = codec.decode(data)
            except InvalidArgument:
                continue
            assert all(len(array) == call.rows for array in call.inputs)

    check()
