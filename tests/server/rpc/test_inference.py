"""Open Inference's `GRPCInferenceService`."""

from typing import Any

from app import __version__
from app.server.rpc.messages import new
from tests.server.rpc.served import INFERENCE, Rpc, floats, infer_request


def call(rpc: Rpc, method: str, **fields: Any) -> Any:
    return rpc.served.run(rpc.call(f"{INFERENCE}/{method}", new(f"inference.{method}Request", **fields)))


def test_the_server_is_alive_and_ready(rpc: Rpc) -> None:
    assert call(rpc, "ServerLive").live
    assert call(rpc, "ServerReady").ready


def test_a_model_is_ready_or_is_not(rpc: Rpc) -> None:
    assert call(rpc, "ModelReady", name="affine").ready
    assert call(rpc, "ModelReady", name="affine", version="1").ready
    assert not call(rpc, "ModelReady", name="affine", version="7").ready
    assert not call(rpc, "ModelReady", name="none").ready


def test_the_server_says_what_it_is(rpc: Rpc) -> None:
    answer = call(rpc, "ServerMetadata")

    assert (answer.name, answer.version) == ("litepool", __version__)
    assert "model_repository" in answer.extensions


def test_metadata_and_configuration_have_the_tensors(rpc: Rpc) -> None:
    answer = call(rpc, "ModelMetadata", name="affine")
    assert answer.versions == ["1", "2"]
    assert [(one.name, one.datatype, list(one.shape)) for one in answer.inputs] == [("x", "FP32", [-1, 4])]

    config = call(rpc, "ModelConfig", name="affine").config
    assert config.name == "affine"
    assert config.max_batch_size > 0
    assert [(one.name, one.data_type, list(one.dims)) for one in config.output] == [("y", 11, [4])]


def test_infer_answers_with_raw_bytes(rpc: Rpc) -> None:
    request = infer_request("affine", [[1, 2, 3, 4]], id="some id", model_version="1")

    answer = rpc.served.run(rpc.call(f"{INFERENCE}/ModelInfer", request))

    assert floats(answer.raw_output_contents) == [3, 5, 7, 9]
    assert (answer.model_name, answer.model_version, answer.id) == ("affine", "1", "some id")
    assert [(one.name, one.datatype, list(one.shape)) for one in answer.outputs] == [("y", "FP32", [1, 4])]


def test_answers_are_counted(rpc: Rpc) -> None:
    def count() -> int:
        (one,) = call(rpc, "ModelStatistics", name="both").model_stats
        return int(one.inference_stats.fail.count)

    before = count()
    rpc.served.run(rpc.refused(f"{INFERENCE}/ModelInfer", infer_request("both")))

    assert count() == before + 1
    assert len(call(rpc, "ModelStatistics").model_stats) >= 4


def test_a_model_is_unloaded_and_loaded(rpc: Rpc) -> None:
    call(rpc, "RepositoryModelUnload", model_name="two", parameters={"unload_dependents": {"bool_param": False}})
    assert not call(rpc, "ModelReady", name="two").ready
    states = {one.name: one.state for one in call(rpc, "RepositoryIndex").models if one.name in {"two", "both"}}
    assert states == {"two": "UNAVAILABLE", "both": "READY"}
    assert "two" not in {one.name for one in call(rpc, "RepositoryIndex", ready=True).models}

    call(rpc, "RepositoryModelLoad", model_name="two")
    assert call(rpc, "ModelReady", name="two").ready


def test_a_sequence_is_named_by_the_request(rpc: Rpc) -> None:
    def step(**flags: bool) -> list[float]:
        named: dict[str, Any] = {name: {"bool_param": value} for name, value in flags.items()}
        request = infer_request("state", [[1, 1, 1, 1]], {"sequence_id": {"int64_param": 77}, **named}.items())
        return floats(rpc.served.run(rpc.call(f"{INFERENCE}/ModelInfer", request)).raw_output_contents)

    assert step(sequence_start=True)[0] == 1
    assert step()[0] == 2
    assert step(sequence_end=True)[0] == 3
    assert step(sequence_start=True, sequence_end=True)[0] == 1
