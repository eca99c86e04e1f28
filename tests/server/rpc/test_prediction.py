"""TensorFlow Serving's `PredictionService`."""

import grpc
import numpy as np
import pytest

from app.server.rpc.messages import new
from tests.server.rpc.served import PREDICTION, SERVING, Rpc, model_spec, predict_request, tensor

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def examples(*values: float) -> object:
    feature = [{"features": {"feature": {"x": {"float_list": {"value": [value]}}}}} for value in values]
    return {"example_list": {"examples": feature}}


def floats_of(proto: object) -> list[list[float]]:
    shape = [dim.size for dim in proto.tensor_shape.dim]  # type: ignore[attr-defined]
    content = proto.tensor_content  # type: ignore[attr-defined]
    flat = np.frombuffer(content, np.float32) if content else np.array(proto.float_val)  # type: ignore[attr-defined]
    found: list[list[float]] = flat.reshape(shape).tolist()
    return found


def test_predict_answers_by_name(rpc: Rpc) -> None:
    answer = rpc.served.run(rpc.call(f"{PREDICTION}/Predict", predict_request("affine", [[1, 2, 3, 4], [0, 0, 0, 0]])))

    assert floats_of(answer.outputs["y"]) == [[3, 5, 7, 9], [1, 1, 1, 1]]
    assert answer.model_spec.name == "affine"
    assert answer.model_spec.version.value == 2
    assert answer.model_spec.signature_name == "serving_default"


@pytest.mark.parametrize(("spec", "version"), [({"version": 1}, 1), ({"label": "stable"}, 1), ({}, 2)])
def test_a_version_or_a_label_is_what_is_asked_for(rpc: Rpc, spec: dict[str, object], version: int) -> None:
    answer = rpc.served.run(rpc.call(f"{PREDICTION}/Predict", predict_request("affine", **spec)))  # type: ignore[arg-type]

    assert answer.model_spec.version.value == version


def test_another_signature_has_other_inputs(rpc: Rpc) -> None:
    request = new(
        f"{SERVING}.PredictRequest",
        model_spec=model_spec("two", signature="add"),
        inputs={"left": tensor([[1, 2]]), "right": tensor([[10, 20]])},
    )

    answer = rpc.served.run(rpc.call(f"{PREDICTION}/Predict", request))

    assert floats_of(answer.outputs["total"]) == [[11, 22]]
    assert answer.model_spec.signature_name == "add"


def test_regress_and_classify_take_examples(rpc: Rpc) -> None:
    request = new(
        f"{SERVING}.RegressionRequest", model_spec=model_spec("both", signature="value"), input=examples(1, 2)
    )
    answer = rpc.served.run(rpc.call(f"{PREDICTION}/Regress", request))
    assert [one.value for one in answer.result.regressions] == [3, 5]

    spec = model_spec("both", signature="scores")
    request = new(f"{SERVING}.ClassificationRequest", model_spec=spec, input=examples(4))
    answer = rpc.served.run(rpc.call(f"{PREDICTION}/Classify", request))
    assert [one.score for one in answer.result.classifications[0].classes] == [4, 4, 4]


def test_several_inferences_share_their_examples(rpc: Rpc) -> None:
    request = new(
        f"{SERVING}.MultiInferenceRequest",
        tasks=[
            {"model_spec": model_spec("both", signature="value"), "method_name": REGRESS},
            {"model_spec": model_spec("both", signature="scores"), "method_name": CLASSIFY},
        ],
        input=examples(1, 2),
    )

    answer = rpc.served.run(rpc.call(f"{PREDICTION}/MultiInference", request))

    regression, classification = answer.results
    assert [one.value for one in regression.regression_result.regressions] == [3, 5]
    assert regression.model_spec.signature_name == "value"
    scores = [[one.score for one in each.classes] for each in classification.classification_result.classifications]
    assert scores == [[1, 1, 1], [2, 2, 2]]
    assert classification.model_spec.version.value == 1


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (("both", "value", REGRESS), ("both", "value", REGRESS), "Duplicate evaluation of signature: value"),
        (("both", "value", REGRESS), ("affine", "", REGRESS), "must access the same model name: found 'both'"),
        (("both", "", REGRESS), ("both", "serving_default", REGRESS), "evaluation of signature: serving_default"),
        (("both", "value", REGRESS), ("both", "odd", REGRESS), "No signature was found with the name: odd"),
    ],
)
def test_inferences_that_cannot_be_done_at_once_are_refused(
    rpc: Rpc, first: tuple[str, str, str], second: tuple[str, str, str], words: str
) -> None:
    tasks = [
        {"model_spec": model_spec(name, signature=signature), "method_name": method}
        for name, signature, method in (first, second)
    ]
    request = new(f"{SERVING}.MultiInferenceRequest", tasks=tasks, input=examples(1))

    code, text = rpc.served.run(rpc.refused(f"{PREDICTION}/MultiInference", request))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in text


def test_more_inferences_than_a_model_has_signatures_are_refused_at_once(rpc: Rpc) -> None:
    tasks = [{"model_spec": model_spec("both", signature=f"{n}"), "method_name": REGRESS} for n in range(257)]
    request = new(f"{SERVING}.MultiInferenceRequest", tasks=tasks, input=examples(1))

    code, text = rpc.served.run(rpc.refused(f"{PREDICTION}/MultiInference", request))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text == "the request has 257 tasks: expected 256 at most"


def test_an_inference_of_another_kind_is_not_implemented(rpc: Rpc) -> None:
    tasks = [{"model_spec": model_spec("both"), "method_name": "tensorflow/serving/predict\n"}]
    request = new(f"{SERVING}.MultiInferenceRequest", tasks=tasks, input=examples(1))

    code, text = rpc.served.run(rpc.refused(f"{PREDICTION}/MultiInference", request))

    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert r"Unsupported signature method_name: tensorflow/serving/predict\n of tasks[0]" in text


def test_metadata_are_the_signatures(rpc: Rpc) -> None:
    request = new(f"{SERVING}.GetModelMetadataRequest", model_spec=model_spec("two"), metadata_field=["signature_def"])

    answer = rpc.served.run(rpc.call(f"{PREDICTION}/GetModelMetadata", request))

    packed = answer.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = new(f"{SERVING}.SignatureDefMap")
    signatures.ParseFromString(packed.value)
    assert set(signatures.signature_def) == {"serving_default", "add"}
    left = signatures.signature_def["add"].inputs["left"]
    assert left.dtype == 1
    assert [dim.size for dim in left.tensor_shape.dim] == [-1, 2]
    assert answer.model_spec.name == "two"
    assert answer.model_spec.version.value == 1
