"""TensorFlow Serving's gRPC, by its own stubs, `tensorflow-serving-api`, with TensorFlow's own tensors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from calls import Addresses, call, equal, refused, run

X = np.array([1, 2, 5], np.float32)
Y = [2.5, 3.0, 4.5]

TYPES = {
    "bool": np.array([[True, False]]),
    **{name: np.array([[np.iinfo(name).min, np.iinfo(name).max]], name)
       for name in (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))},
    **{name: np.array([[0.1, -np.inf]], name) for name in ("float16", "float32", "float64")},
    "string": np.array([[b"owl", b"\xff"]], np.object_),
}  # fmt: skip


MODELS = ("m", "half", "two", "classes", "words", "types", "methods", "sum", "places", "spare", "slow")


class Serving:
    """The stubs of both services, over one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)


@contextmanager
def client(addresses: Addresses) -> Iterator[Serving]:
    with grpc.insecure_channel(addresses.grpc) as channel:
        yield Serving(channel)


def asked(request: Any, model: str, **spec: Any) -> Any:
    """A request with its model_spec: `version`, `version_label`, `signature_name`."""
    request.model_spec.name = model
    if version := spec.pop("version", None):
        request.model_spec.version.value = version
    for name, value in spec.items():
        setattr(request.model_spec, name, value)
    return request


def predict(model: str, inputs: dict[str, Any] | None = None, *output_filter: str, **named: Any) -> Any:
    request = asked(predict_pb2.PredictRequest(output_filter=output_filter), model)
    for name, array in {**(inputs or {}), **named}.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def examples(request: Any, model: str, *features: dict[str, list[float]], **spec: Any) -> Any:
    """A request with an example of each, in `request.input.example_list`."""
    for named in features:
        example = request.input.example_list.examples.add()
        for name, values in named.items():
            example.features.feature[name].float_list.value.extend(values)
    return asked(request, model, **spec)


@call
def predicts(serving: Serving) -> None:
    answer = serving.predictions.Predict(predict("m", x=X), timeout=60)
    equal(list(answer.outputs), ["y"])
    equal(tf.make_ndarray(answer.outputs["y"]), np.array(Y, np.float32))
    spec = answer.model_spec
    equal((spec.name, spec.version.value, spec.signature_name), ("m", 1, "serving_default"))


@call
def predicts_with_typed_values_and_tensor_content(serving: Serving) -> None:
    content = predict("m", x=X)
    assert content.inputs["x"].tensor_content or content.inputs["x"].float_val
    for fields in ({"tensor_content": X.tobytes()}, {"float_val": X.tolist()}, {"float_val": [2.0]}):
        request = predict("m", x=X)
        request.inputs["x"].ClearField("tensor_content")
        request.inputs["x"].ClearField("float_val")
        request.inputs["x"].MergeFrom(tensor_pb2.TensorProto(**fields))
        answer = serving.predictions.Predict(request)
        # Fewer values than elements: the last is meant for the rest, as TensorFlow has it.
        expected = Y if len(fields.get("float_val", X)) == 3 else [3.0] * 3
        equal(tf.make_ndarray(answer.outputs["y"]).tolist(), expected)


@call
def predicts_every_type(serving: Serving) -> None:
    answer = serving.predictions.Predict(predict("types", TYPES))
    for name, array in TYPES.items():
        found = tf.make_ndarray(answer.outputs[f"same_{name}"])
        equal((found.dtype, found.tolist()), (array.dtype, array.tolist()))


@call
def predicts_every_type_from_typed_values(serving: Serving) -> None:
    fields = {
        "float32": "float_val", "float64": "double_val", "bool": "bool_val", "int64": "int64_val",
        "uint64": "uint64_val", "uint32": "uint32_val", "float16": "half_val",
    }  # fmt: skip
    request = predict("types", TYPES)
    for name, array in TYPES.items():
        if name == "string":
            continue
        tensor = request.inputs[name]
        tensor.ClearField("tensor_content")
        values = array.view(np.uint16) if name == "float16" else array
        field = fields.get(name, "int_val")
        tensor.ClearField(field)
        getattr(tensor, field).extend(values.ravel().tolist())
    answer = serving.predictions.Predict(request)
    for name, array in TYPES.items():
        equal(tf.make_ndarray(answer.outputs[f"same_{name}"]).tolist(), array.tolist())


@call
def predicts_the_outputs_asked_for(serving: Serving) -> None:
    ones = np.ones((1, 3), np.float32)
    answer = serving.predictions.Predict(predict("two", left=ones, right=ones))
    equal(set(answer.outputs), {"total", "difference"})
    answer = serving.predictions.Predict(predict("two", {"left": ones, "right": ones}, "total"))
    equal(list(answer.outputs), ["total"])
    with refused(grpc.RpcError, "INVALID_ARGUMENT", "nothing"):
        serving.predictions.Predict(predict("two", {"left": ones, "right": ones}, "nothing"))


@call
def predicts_with_versions_and_labels(serving: Serving) -> None:
    for spec, version in (
        ({}, 2),
        ({"version": 1}, 1),
        ({"version": 2, "signature_name": "serving_default"}, 2),
        ({"version_label": "stable"}, 1),
        ({"version_label": "canary"}, 2),
    ):
        answer = serving.predictions.Predict(asked(predict("half", x=np.zeros(1, np.float32)), "half", **spec))
        equal(tf.make_ndarray(answer.outputs["y"]).tolist(), [version + 1.0])
        equal(answer.model_spec.version.value, version)
    for spec, words in (
        ({"version": 7}, ("NOT_FOUND", "7")),
        ({"version_label": "other"}, ("other",)),
        ({"signature_name": "other"}, ("INVALID_ARGUMENT", "other")),
    ):
        with refused(grpc.RpcError, *words):
            serving.predictions.Predict(asked(predict("half", x=np.zeros(1, np.float32)), "half", **spec))
    with refused(grpc.RpcError, "NOT_FOUND", "nowhere"):
        serving.predictions.Predict(predict("nowhere", x=X))


@call
def predicts_from_compressed_messages(serving: Serving) -> None:
    x = np.zeros(100_000, np.float32)
    for algorithm in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        answer = serving.predictions.Predict(predict("m", x=x), compression=algorithm)
        equal(tf.make_ndarray(answer.outputs["y"]), x + 2)


@call
def predicts_many_at_a_time(serving: Serving) -> None:
    futures = [serving.predictions.Predict.future(predict("m", x=np.full(n + 1, n, np.float32))) for n in range(64)]
    for number, future in enumerate(futures):
        found = tf.make_ndarray(future.result(timeout=60).outputs["y"])
        equal(found, np.full(number + 1, number, np.float32) / 2 + 2)


@call
def gives_up_by_itself(serving: Serving) -> None:
    one = np.ones((1, 1), np.float32)
    with refused(grpc.RpcError, "DEADLINE_EXCEEDED"):
        serving.predictions.Predict(predict("slow", x=one), timeout=0.005)
    future = serving.predictions.Predict.future(predict("slow", x=one))
    future.cancel()
    equal(future.cancelled(), True)
    equal(tf.make_ndarray(serving.predictions.Predict(predict("m", x=X)).outputs["y"]).tolist(), Y)


@call
def is_told_what_is_wrong_with_a_request(serving: Serving) -> None:
    short = predict("m", x=X)
    short.inputs["x"].CopyFrom(tensor_pb2.TensorProto(dtype=1, tensor_content=b"123"))
    short.inputs["x"].tensor_shape.dim.add().size = 3
    for request, words in (
        (predict("m"), ("x",)),
        (predict("m", z=X), ("z",)),
        (predict("m", x=X, z=X), ("z",)),
        (predict("m", x=X.astype(np.float64)), ("float", "double")),
        (predict("classes", x=np.ones((1, 3), np.float32)), ("x",)),
        (predict("m", x=[b"owl"]), ("string",)),
        (short, ("x",)),
    ):
        with refused(grpc.RpcError, "INVALID_ARGUMENT", *words):
            serving.predictions.Predict(request)


@call
def classifies(serving: Serving) -> None:
    request = classification_pb2.ClassificationRequest()
    answer = serving.predictions.Classify(examples(request, "classes", {"x": [1, 4, 2, 3]}, {"x": [9, 6, 7, 8]}))
    found = [[(each.label, each.score) for each in listed.classes] for listed in answer.result.classifications]
    equal(
        found, [[("cat", 3), ("dog", 9), ("owl", 5), ("yak", 7)], [("cat", 19), ("dog", 13), ("owl", 15), ("yak", 17)]]
    )
    equal(answer.model_spec.version.value, 1)


@call
def classifies_with_a_context(serving: Serving) -> None:
    request = asked(classification_pb2.ClassificationRequest(), "classes")
    request.input.example_list_with_context.context.features.feature["x"].float_list.value.extend([1, 4, 2, 3])
    request.input.example_list_with_context.examples.add()
    (listed,) = serving.predictions.Classify(request).result.classifications
    equal([each.score for each in listed.classes], [3, 9, 5, 7])


@call
def regresses(serving: Serving) -> None:
    answer = serving.predictions.Regress(examples(regression_pb2.RegressionRequest(), "m", {"x": [1]}, {"x": [2]}))
    equal([each.value for each in answer.result.regressions], [2.5, 3.0])
    with refused(grpc.RpcError, "INVALID_ARGUMENT"):
        serving.predictions.Regress(examples(regression_pb2.RegressionRequest(), "m", {"z": [1]}))
    with refused(grpc.RpcError, "INVALID_ARGUMENT"):
        serving.predictions.Regress(asked(regression_pb2.RegressionRequest(), "m"))


@call
def infers_several_tasks(serving: Serving) -> None:
    request = inference_pb2.MultiInferenceRequest()
    for method, signature in (("regress", "total"), ("classify", "serving_default")):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "methods", signature
    example = request.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.extend([1, 2, 3, 4])
    regressed, classified = serving.predictions.MultiInference(request).results
    equal([each.value for each in regressed.regression_result.regressions], [10])
    equal([each.score for each in classified.classification_result.classifications[0].classes], [2, 4, 6, 8])


@call
def reads_the_metadata(serving: Serving) -> None:
    request = asked(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]), "two")
    answer = serving.predictions.GetModelMetadata(request)
    equal((answer.model_spec.name, answer.model_spec.version.value), ("two", 1))
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    signature = signatures.signature_def["serving_default"]
    equal(signature.method_name, "tensorflow/serving/predict")
    equal(set(signature.inputs), {"left", "right"})
    shapes = {name: [dim.size for dim in info.tensor_shape.dim] for name, info in signature.outputs.items()}
    equal(shapes, {"total": [-1, 1], "difference": [-1, 3]})
    equal({info.dtype for info in signature.inputs.values()}, {tf.float32.as_datatype_enum})
    for wrong, words in (([], ("metadata",)), (["lineage"], ("lineage",))):
        request = asked(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=wrong), "two")
        with refused(grpc.RpcError, "INVALID_ARGUMENT", *words):
            serving.predictions.GetModelMetadata(request)


@call
def reads_the_status(serving: Serving) -> None:
    def states(**spec: Any) -> dict[int, int]:
        request = asked(get_model_status_pb2.GetModelStatusRequest(), "half", **spec)
        found = serving.models.GetModelStatus(request).model_version_status
        equal({each.status.error_code for each in found}, {0})
        return {each.version: each.state for each in found}

    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    equal(states(), {1: available, 2: available})
    equal(states(version=1), {1: available})
    equal(states(version_label="canary"), {2: available})
    with refused(grpc.RpcError, "NOT_FOUND", "7"):
        states(version=7)
    with refused(grpc.RpcError, "NOT_FOUND", "nowhere"):
        serving.models.GetModelStatus(asked(get_model_status_pb2.GetModelStatusRequest(), "nowhere"))


@call
def has_the_listed_models_served_and_no_others(serving: Serving) -> None:
    def reload(*names: str, **config: str) -> Any:
        request = model_management_pb2.ReloadConfigRequest()
        for name in names:
            request.config.model_config_list.config.add(name=name, **config)
        return serving.models.HandleReloadConfigRequest(request).status

    record = predict("spare", x=np.ones((1, 4), np.float32))
    others = [name for name in MODELS if name != "spare"]
    serving.predictions.Predict(record)
    equal(reload(*others).error_code, 0)
    with refused(grpc.RpcError, "spare"):
        serving.predictions.Predict(record)
    equal(reload(*MODELS).error_code, 0)
    equal(tf.make_ndarray(serving.predictions.Predict(record).outputs["y"]).tolist(), [[3, 3, 3, 3]])
    with refused(grpc.RpcError, "INVALID_ARGUMENT", "base_path"):
        reload(*MODELS, base_path="/elsewhere")
    with refused(grpc.RpcError, "nowhere"):
        reload(*MODELS, "nowhere")
    serving.predictions.Predict(record)


if __name__ == "__main__":
    run(client)
