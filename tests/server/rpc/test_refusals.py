"""What is wrong with a request, and the status and the words that it is answered with; the same on both roads."""

from typing import Any

import grpc
import pytest

from app.protocols import protobuf
from app.server.rpc.messages import new
from tests.server.rpc.served import (
    INFERENCE,
    MODELS,
    PREDICTION,
    SERVING,
    Rpc,
    infer_request,
    model_spec,
    predict_request,
    tensor,
)

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
UNIMPLEMENTED, EXHAUSTED = grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED


def with_inputs(**inputs: Any) -> Any:
    return new(f"{SERVING}.PredictRequest", model_spec=model_spec("affine"), inputs=inputs)


def infer(**fields: Any) -> Any:
    request = infer_request("affine")
    for name, value in fields.items():
        request.ClearField(name)
        request.MergeFrom(new("inference.ModelInferRequest", **{name: value}))
    return request


X = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
GOOD_INPUT = b"\0" * 16

HOT = {
    "no bytes": (PREDICTION, "Predict", b"", INVALID, "Missing ModelSpec"),
    "no message": (
        PREDICTION,
        "Predict",
        b"\x0a\x05ab",
        INVALID,
        "at byte 0 field 1 has 5 bytes, of which 2 are there",
    ),
    "no name": (PREDICTION, "Predict", predict_request(""), INVALID, "ModelSpec has no name specified"),
    "a name that is no text": (
        PREDICTION,
        "Predict",
        protobuf.write_bytes(1, protobuf.write_bytes(1, b"\xff")),
        INVALID,
        "model_spec.name is no UTF-8 text",
    ),
    "no such model": (PREDICTION, "Predict", predict_request("none"), NOT_FOUND, "no model 'none'"),
    "no such version": (PREDICTION, "Predict", predict_request("affine", version=9), NOT_FOUND, "version 9"),
    "no such label": (PREDICTION, "Predict", predict_request("affine", label="odd"), None, "odd"),
    "no such signature": (
        PREDICTION,
        "Predict",
        predict_request("affine", signature="odd"),
        INVALID,
        'Serving signature key "odd" not found; ',
    ),
    "no inputs": (PREDICTION, "Predict", with_inputs(), INVALID, "x"),
    "an unknown input": (PREDICTION, "Predict", with_inputs(x=tensor([[1, 2, 3, 4]]), z=tensor([[1]])), INVALID, "z"),
    "a wrong shape": (PREDICTION, "Predict", with_inputs(x=tensor([[1, 2]])), INVALID, "4"),
    "classify without examples": (
        PREDICTION,
        "Classify",
        new(f"{SERVING}.ClassificationRequest", model_spec=model_spec("affine")),
        INVALID,
        "",
    ),
    "regress for what is no number": (
        PREDICTION,
        "Regress",
        new(f"{SERVING}.RegressionRequest", model_spec=model_spec("affine")),
        INVALID,
        "",
    ),
    "no bytes for Open Inference": (INFERENCE, "ModelInfer", b"", INVALID, "names no model"),
    "a damaged beginning": (INFERENCE, "ModelInfer", b"\x0a\x06aff", INVALID, "field 1 has 6 bytes"),
    "a damaged end": (INFERENCE, "ModelInfer", b"\x0a\x06affine\x3a\x70", INVALID, "field 7 has 112 bytes"),
    "a group": (INFERENCE, "ModelInfer", b"\x0a\x06affine\x0b\x0c", INVALID, "wire type 3"),
    "an unknown model": (INFERENCE, "ModelInfer", infer_request("none"), NOT_FOUND, "none"),
    "an unknown version": (INFERENCE, "ModelInfer", infer_request("affine", model_version="9"), NOT_FOUND, "9"),
    "a version that is no number": (
        INFERENCE,
        "ModelInfer",
        infer_request("affine", model_version="one"),
        INVALID,
        "failed to get model version from specified version string 'one'",
    ),
    "a version that is too long a number": (
        INFERENCE,
        "ModelInfer",
        infer_request("affine", model_version="9" * 19),
        INVALID,
        "version should be an integral value > 0",
    ),
    "too few bytes": (INFERENCE, "ModelInfer", infer(raw_input_contents=[b"1234"]), INVALID, "x"),
    "too many tensors": (INFERENCE, "ModelInfer", infer(raw_input_contents=[GOOD_INPUT] * 2), INVALID, ""),
    "a wrong type": (INFERENCE, "ModelInfer", infer(inputs=[{**X, "datatype": "FP64"}]), INVALID, "FP32"),
    "no type": (INFERENCE, "ModelInfer", infer(inputs=[{**X, "datatype": "F"}]), INVALID, ""),
    "a negative size": (INFERENCE, "ModelInfer", infer(inputs=[{**X, "shape": [-1, 4]}]), INVALID, ""),
    "an unknown output": (INFERENCE, "ModelInfer", infer(outputs=[{"name": "odd"}]), INVALID, "odd"),
    "too large": (INFERENCE, "ModelInfer", infer_request("affine", [[0] * 4] * 70_000), EXHAUSTED, "1048576"),
}

SLOWER = {
    "metadata of nothing": (
        PREDICTION,
        "GetModelMetadata",
        new(f"{SERVING}.GetModelMetadataRequest", metadata_field=["signature_def"]),
        INVALID,
        "Missing ModelSpec",
    ),
    "no metadata": (
        PREDICTION,
        "GetModelMetadata",
        new(f"{SERVING}.GetModelMetadataRequest", model_spec=model_spec("affine")),
        INVALID,
        "must specify at least one metadata_field",
    ),
    "other metadata": (
        PREDICTION,
        "GetModelMetadata",
        new(f"{SERVING}.GetModelMetadataRequest", model_spec=model_spec("affine"), metadata_field=["odd"]),
        INVALID,
        "Metadata field odd is not supported",
    ),
    "metadata of a model that is not there": (
        PREDICTION,
        "GetModelMetadata",
        new(f"{SERVING}.GetModelMetadataRequest", model_spec=model_spec("none"), metadata_field=["signature_def"]),
        NOT_FOUND,
        "none",
    ),
    "bytes that are no message": (PREDICTION, "GetModelMetadata", b"\x0a\x05ab", INVALID, "GetModelMetadataRequest"),
    "no tasks": (PREDICTION, "MultiInference", new(f"{SERVING}.MultiInferenceRequest"), INVALID, "no `tasks`"),
    "status of a model that is not there": (
        MODELS,
        "GetModelStatus",
        new(f"{SERVING}.GetModelStatusRequest", model_spec=model_spec("none")),
        NOT_FOUND,
        "Could not find any versions of model none",
    ),
    "a reload of nothing": (
        MODELS,
        "HandleReloadConfigRequest",
        new(f"{SERVING}.ReloadConfigRequest"),
        INVALID,
        "Only ModelConfigList is currently supported: expected config.model_config_list, found no config",
    ),
    "a reload of something else": (
        MODELS,
        "HandleReloadConfigRequest",
        new(f"{SERVING}.ReloadConfigRequest", config={"custom_model_config": {}}),
        INVALID,
        "found custom_model_config",
    ),
    "metadata without a name": (INFERENCE, "ModelMetadata", b"", INVALID, "names no model"),
    "metadata of an unknown model": (
        INFERENCE,
        "ModelMetadata",
        new("inference.ModelMetadataRequest", name="none"),
        NOT_FOUND,
        "Request for unknown model: 'none' is not found",
    ),
    "config of an unknown version": (
        INFERENCE,
        "ModelConfig",
        new("inference.ModelConfigRequest", name="affine", version="9"),
        NOT_FOUND,
        "Request for unknown model: 'affine' version 9 is not found",
    ),
    "statistics of an unknown model": (
        INFERENCE,
        "ModelStatistics",
        new("inference.ModelStatisticsRequest", name="none"),
        NOT_FOUND,
        "Request for unknown model: 'none' is not found",
    ),
    "an unknown repository": (
        INFERENCE,
        "RepositoryIndex",
        new("inference.RepositoryIndexRequest", repository_name="odd"),
        INVALID,
        "unknown repository 'odd'",
    ),
    "a load with another configuration": (
        INFERENCE,
        "RepositoryModelLoad",
        new("inference.RepositoryModelLoadRequest", model_name="affine", parameters={"config": {"string_param": "{}"}}),
        INVALID,
        "failed to load 'affine': load parameter 'config' is not supported",
    ),
    "a load of nothing": (INFERENCE, "RepositoryModelLoad", b"", INVALID, "names no model"),
    "a load of an unknown model": (
        INFERENCE,
        "RepositoryModelLoad",
        new("inference.RepositoryModelLoadRequest", model_name="none"),
        NOT_FOUND,
        "none",
    ),
    "shared memory": (INFERENCE, "SystemSharedMemoryStatus", b"", UNIMPLEMENTED, "raw_input_contents"),
    "CUDA's": (INFERENCE, "CudaSharedMemoryRegister", b"", UNIMPLEMENTED, "raw_input_contents"),
    "tracing": (INFERENCE, "TraceSetting", b"", UNIMPLEMENTED, "/metrics"),
    "log settings": (INFERENCE, "LogSettings", b"", UNIMPLEMENTED, "--log-level"),
    "no such method": (INFERENCE, "Explain", b"", UNIMPLEMENTED, "has no method 'Explain'; it has ServerLive"),
    "no such service": ("/inference.Other", "Infer", b"", UNIMPLEMENTED, "no service 'inference.Other': the services"),
}


@pytest.mark.parametrize("name", [*HOT, *SLOWER])
def test_what_is_wrong_is_said(rpc: Rpc, name: str) -> None:
    service, method, request, status, words = (HOT | SLOWER)[name]
    message = request if isinstance(request, bytes) else request.SerializeToString()

    code, text = rpc.served.run(rpc.refused(f"{service}/{method}", message))

    assert code is status or (status is None and code in {INVALID, NOT_FOUND}), text
    assert words in text
    assert text
    assert "Traceback" not in text


def test_after_all_that_requests_are_answered(rpc: Rpc) -> None:
    answer = rpc.served.run(rpc.call(f"{INFERENCE}/ModelInfer", infer_request("affine")))

    assert answer.model_name == "affine"
