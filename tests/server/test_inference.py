"""Open Inference v2 over HTTP: the vectors, what is refused with which status, what is said of the models."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.server import inference_info
from tests import tflite
from tests.server.inprocess import InProcess, error_of

LABELS = 'class_labels = ["low", "high", "none", "all"]\n'
REAL = 'numbers = "real"\n'
MAX_BODY = 4096


def write_models(folder: Path) -> Path:
    """`m` is y = x/2 + 2 for records of rank 0; `two` has two versions; the others say what they are."""
    for version, scale in ((1, 1.0), (2, 2.0)):
        (folder / "two" / str(version)).mkdir(parents=True)
        (folder / "two" / str(version) / "model.tflite").write_bytes(tflite.affine(scale=scale, offset=0.0))
    (folder / "two" / "model.toml").write_text("versions = { all = true }\n")
    (folder / "m.tflite").write_bytes(tflite.affine(0.5, 2.0, (-1,)))
    (folder / "pair.tflite").write_bytes(tflite.two_in_two_out())
    (folder / "whole.tflite").write_bytes(tflite.whole())
    (folder / "one.tflite").write_bytes(tflite.fixed_one())
    (folder / "state.tflite").write_bytes(tflite.running_sum())
    (folder / "broken.tflite").write_bytes(tflite.truncated(tflite.affine()))
    for name, dtype in (("half", "float16"), ("text", "string"), ("bool", "bool"), ("complex", "complex64")):
        (folder / f"{name}.tflite").write_bytes(tflite.identity(dtype))
    for name, model, config in (
        ("labelled", tflite.affine(), LABELS),
        ("quantized", tflite.quantized(), REAL),
        ("named", tflite.two_signatures(), ""),
    ):
        (folder / name).mkdir()
        (folder / name / "model.tflite").write_bytes(model)
        (folder / name / "model.toml").write_text(config)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = write_models(tmp_path_factory.mktemp("inference") / "models")
    with InProcess(folder, default_model="m", max_body_bytes=MAX_BODY, model_control=True) as server:
        yield server


def infer(served: InProcess, document: Any, *tensors: bytes, model: str = "m", **headers: str) -> httpx.Response:
    """Send a request with tensors behind its JSON, if there are any."""
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    if tensors:
        headers = {"inference_header_content_length": str(len(head))} | headers
    return served.send(f"/v2/models/{model}/infer", head + b"".join(tensors), **headers)


def request(data: Any = (1, 2, 5), shape: tuple[int, ...] = (3,), datatype: str = "FP32", **others: Any) -> Any:
    return {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}], **others}


def binary(size: Any, shape: tuple[int, ...] = (3,), datatype: str = "FP32", **others: Any) -> Any:
    one = {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    return {"inputs": [one], **others}


ALL_BINARY: dict[str, Any] = {"parameters": {"binary_data_output": True}}
NUMBERS = bytes.fromhex("0000803F 00000040 0000A040")
ANSWERS = bytes.fromhex("00002040 00004040 00009040")


def split(response: httpx.Response) -> tuple[Any, bytes]:
    """The JSON of a binary answer, and what lies behind it."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    return json.loads(response.content[:length]), response.content[length:]


# The vectors


def test_a_json_request_is_answered_in_json(served: InProcess) -> None:
    body = b'{"id":"42","inputs":[{"name":"x","shape":[3],"datatype":"FP32","data":[1,2,5]}]}'
    response = infer(served, body)

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in response.headers
    assert response.content == (
        b'{"id":"42","model_name":"m","model_version":"1","outputs":'
        b'[{"name":"y","datatype":"FP32","shape":[3],"data":[2.5,3.0,4.5]}]}'
    )


def test_a_binary_request_is_answered_in_bytes(served: InProcess) -> None:
    for _ in range(2):
        said, blob = split(infer(served, binary(12, **ALL_BINARY), NUMBERS))
        output = {"name": "y", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": 12}}
        assert said == {"model_name": "m", "model_version": "1", "outputs": [output]}
        assert blob == ANSWERS


def test_a_raw_body_is_one_record(served: InProcess) -> None:
    said, blob = split(infer(served, b"", bytes.fromhex("00002040"), inference_header_content_length="0"))
    assert said["outputs"][0]["shape"] == [1]
    assert np.frombuffer(blob, np.float32).tolist() == [3.25]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_requests_and_answers_may_be_compressed_and_the_head_s_length_is_that_of_the_plain_body(
    served: InProcess, coding: str
) -> None:
    head = json.dumps(binary(12, **ALL_BINARY)).encode()
    packed = (gzip if coding == "gzip" else zlib).compress(head + NUMBERS)
    lengths = {"inference_header_content_length": str(len(head)), "content_encoding": coding}
    said, blob = split(served.send("/v2/models/m/infer", packed, **lengths))
    assert (said["outputs"][0]["shape"], blob) == ([3], ANSWERS)
    response = infer(served, binary(12, **ALL_BINARY), NUMBERS, accept_encoding=coding)
    assert response.headers["content-encoding"] == coding
    assert split(response)[1] == ANSWERS


# What models take


def test_a_model_of_a_fixed_batch_takes_any_number_of_records(served: InProcess) -> None:
    response = infer(served, request([1] * 8, (2, 4)), model="one")
    assert response.json()["outputs"][0] == {"name": "y", "datatype": "FP32", "shape": [2, 4], "data": [3] * 8}


def test_a_model_without_a_batch_dimension_takes_the_whole_tensor(served: InProcess) -> None:
    response = infer(served, request([1] * 6, (3, 2)), model="whole")
    assert response.json()["outputs"][0] == {"name": "y", "datatype": "FP32", "shape": [3, 2], "data": [3] * 6}


def test_a_model_of_two_inputs_and_outputs_answers_what_was_asked_in_that_order(served: InProcess) -> None:
    document = {
        "inputs": [
            {"name": "right", "shape": [1, 3], "datatype": "FP32", "data": [4, 5, 6]},
            {"name": "left", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]},
        ],
        "outputs": [{"name": "total"}, {"name": "difference"}],
    }
    outputs = infer(served, document, model="pair").json()["outputs"]
    assert [(output["name"], output["data"]) for output in outputs] == [("total", [21]), ("difference", [-3, -3, -3])]


def test_float16_goes_as_bytes(served: InProcess) -> None:
    data = np.array([[1, 2, 3, 0.5]], np.float16).tobytes()
    said, blob = split(infer(served, binary(8, (1, 4), "FP16", **ALL_BINARY), data, model="half"))
    assert (said["outputs"][0]["datatype"], blob) == ("FP16", data)


def test_strings_go_both_ways(served: InProcess) -> None:
    response = infer(served, request(["hi", "", "\u00e9", "]"], (1, 4), "BYTES"), model="text")
    assert response.json()["outputs"][0]["data"] == ["hi", "", "\u00e9", "]"]


def test_a_quantized_model_that_is_served_in_real_numbers_takes_and_gives_them(served: InProcess) -> None:
    assert served.get("/v2/models/quantized").json()["inputs"][0]["datatype"] == "FP32"
    data = np.array([[1, -2, 0.5, 0]], np.float32)
    for _ in range(2):
        _, blob = split(infer(served, binary(16, (1, 4), **ALL_BINARY), data.tobytes(), model="quantized"))
        assert blob == data.tobytes()


def test_classes_have_the_names_of_model_toml(served: InProcess) -> None:
    asked = [{"name": "y", "parameters": {"classification": 2}}]
    response = infer(served, request([0, 3, 1, 2], (1, 4), outputs=asked), model="labelled")
    assert response.json()["outputs"] == [
        {"name": "y", "datatype": "BYTES", "shape": [1, 2], "data": ["7.000000:1:high", "5.000000:3:all"]}
    ]


def test_a_sequence_goes_on_where_its_last_request_left_it(served: InProcess) -> None:
    def step(**parameters: Any) -> Any:
        response = infer(served, request([1] * 4, (1, 4), parameters=parameters), model="state")
        return response.json()["outputs"][0]["data"][0]

    assert step() == 1
    assert step() == 1
    assert step(sequence_id=7, sequence_start=True, sequence_end=False) == 1
    assert step(sequence_id=7) == 2
    assert step(sequence_id=8, sequence_start=True) == 1
    assert step(sequence_id=7, sequence_end=True) == 3


def test_a_model_without_state_takes_the_name_of_a_sequence_and_does_nothing_with_it(served: InProcess) -> None:
    assert infer(served, request(parameters={"sequence_id": "s", "sequence_start": True})).status_code == 200


def test_another_signature_is_asked_for_by_our_header(served: InProcess) -> None:
    pair = [
        {"name": name, "shape": [1, 2], "datatype": "FP32", "data": data}
        for name, data in (("left", [1, 2]), ("right", [3, 4]))
    ]
    added = infer(served, {"inputs": pair}, model="named", litepool_signature="add")
    assert added.json()["outputs"] == [{"name": "total", "datatype": "FP32", "shape": [1, 2], "data": [4, 6]}]
    assert "no signature 'none'" in error_of(infer(served, request(), model="named", litepool_signature="none"), 404)


def test_the_highest_version_answers_where_none_is_named(served: InProcess) -> None:
    found = {}
    for path in ("two", "two/versions/1", "two/versions/2"):
        answer = infer(served, request([1] * 4, (1, 4)), model=path).json()
        found[path] = answer["model_version"], answer["outputs"][0]["data"][0]
    assert found == {"two": ("2", 2), "two/versions/1": ("1", 1), "two/versions/2": ("2", 2)}


# What is refused

REFUSED: list[tuple[str, Any, tuple[bytes, ...], dict[str, str], int, str]] = [
    ("empty", b"", (), {}, 400, "failed to parse the request JSON buffer"),
    ("no JSON", b"{", (), {}, 400, "failed to parse the request JSON buffer"),
    ("no object", [], (), {}, 400, "expected an object"),
    ("no inputs", {}, (), {}, 400, "Unable to parse 'inputs'"),
    ("missing input", {"inputs": []}, (), {}, 400, "missing required inputs ['x']"),
    ("unknown input", {"inputs": [{"name": "z", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}]}, (), {}, 400,
     "unexpected inference input 'z' for model 'm'"),
    ("wrong type", request(datatype="FP64"), (), {}, 400, "data-type is 'FP64', but model 'm' expects 'FP32'"),
    ("wrong rank", request(shape=(3, 1)), (), {}, 400, "unexpected shape for input 'x' for model 'm'"),
    ("negative size", request(shape=(-3,)), (), {}, 400, "Unable to parse 'shape'"),
    ("too few values", request([1, 2]), (), {}, 400, "Shape does not match true shape of 'data' field"),
    ("strings for numbers", request(["1", "2", "5"]), (), {}, 400, "expected one float32 number"),
    ("beyond float32", request([1, 2, 1e39]), (), {}, 400, "beyond float32"),
    ("unknown output", request(outputs=[{"name": "z"}]), (), {}, 400, "unexpected inference output 'z'"),
    ("reserved parameter", request(parameters={"triton_x": 1}), (), {}, 400, "parameter keys starting with 'triton_'"),
    ("shared memory", {"inputs": [{"name": "x", "shape": [3], "datatype": "FP32",
                                   "parameters": {"shared_memory_region": "r"}}]}, (), {}, 400, "shared memory"),
    ("size not of the shape", binary(8), (bytes(8),), {}, 400, "Expected 12, got 8"),
    ("fewer bytes than said", binary(16), (bytes(12),), {}, 400, "expecting 4 additional bytes for model 'm'"),
    ("an extra byte", binary(12), (bytes(13),), {}, 400, "unexpected additional input data for model 'm'"),
    ("data and bytes", {"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3],
                                    "parameters": {"binary_data_size": 12}}]}, (bytes(12),), {}, 400, "only one of"),
    ("negative header", binary(12), (bytes(12),), {"inference_header_content_length": "-1"}, 400, "got: '-1'"),
    ("header beyond the body", binary(12), (), {"inference_header_content_length": "4000"}, 400, "in range (0, "),
    ("header within the JSON", binary(12), (bytes(12),), {"inference_header_content_length": "9"}, 400, "not JSON"),
    ("bytes without the header", json.dumps(binary(12)).encode() + bytes(12), (), {}, 400, "not JSON"),
    ("raw of another size", b"", (bytes(5),), {"inference_header_content_length": "0"}, 400, "Expected 4, got 5"),
    ("too large", b" " * (MAX_BODY + 1), (), {}, 413, "4096 at most"),
    ("unknown coding", request(), (), {"content_encoding": "br"}, 415, "expected gzip, deflate or none"),
    ("damaged coding", request(), (), {"content_encoding": "gzip"}, 400, "the body is no gzip data"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "tensors", "headers", "status", "text"),
    [case[1:] for case in REFUSED],
    ids=[case[0] for case in REFUSED],
)
def test_a_bad_request_is_refused_with_its_status_and_the_original_s_words(
    served: InProcess, document: Any, tensors: tuple[bytes, ...], headers: dict[str, str], status: int, text: str
) -> None:
    assert text in error_of(infer(served, document, *tensors, **headers), status)


@pytest.mark.parametrize(
    ("model", "status", "text"),
    [
        ("none", 404, "no model 'none'"),
        ("m/versions/7", 404, "model 'm' has no version 7"),
        ("m/versions/x", 404, "no version 'x'"),
        ("m/versions/-1", 404, "no version '-1'"),
        ("broken", 503, "is not served"),
        ("complex", 400, "for which Open Inference has no datatype"),
    ],
)
def test_what_is_not_there_or_does_not_serve_is_refused(served: InProcess, model: str, status: int, text: str) -> None:
    assert text in error_of(infer(served, request(), model=model), status)


def test_float16_is_refused_as_json_both_ways(served: InProcess) -> None:
    given = request([1] * 4, (1, 4), "FP16")
    assert "receiving FP16 data via JSON is not supported" in error_of(infer(served, given, model="half"), 400)
    as_bytes = binary(8, (1, 4), "FP16")
    assert "sending FP16 data via JSON" in error_of(infer(served, as_bytes, bytes(8), model="half"), 400)


def test_an_error_is_json_though_a_compressed_answer_was_asked_for(served: InProcess) -> None:
    error_of(infer(served, {}, accept_encoding="gzip"), 400)


# The server and its models


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", path, 404) for path in ("/v2/", "/v2/none", "/v2/health", "/v2/models/m/none")),
        *(("GET", path, 405) for path in ("/v2/models/m/infer", "/v2/repository/models/m/load")),
        *(("POST", path, 405) for path in ("/v2", "/v2/health/live", "/v2/models/m", "/v2/models/m/ready")),
        *(("GET", f"/v2/models/none{path}", 404) for path in ("", "/ready", "/config", "/stats")),
        *(("GET", f"/v2/models/m/versions/9{path}", 404) for path in ("", "/ready", "/config", "/stats")),
        *(("GET", f"/v2/models/broken{path}", 503) for path in ("", "/ready", "/config")),
        *(("GET", path, 501) for path in ("/v2/logging", "/v2/trace/setting", "/v2/models/m/trace/setting")),
        *(("POST", path, 501) for path in ("/v2/logging", "/v2/trace/setting", "/v2/models/m/generate")),
        ("GET", "/v2/systemsharedmemory/status", 501),
        ("POST", "/v2/cudasharedmemory/region/r/register", 501),
        ("POST", "/v2/repository/other/index", 400),
        ("POST", "/v2/repository/other/models/m/load", 400),
        ("POST", "/v2/repository/models/none/load", 404),
        ("POST", "/v2/repository/models/none/unload", 404),
    ],
)  # fmt: skip
def test_what_is_not_here_is_refused_in_our_form(served: InProcess, method: str, path: str, status: int) -> None:
    error_of(served.request(method, path), status)


@pytest.mark.parametrize("ending", ["", "/ready", "/config", "/stats", "/infer"])
def test_a_model_that_is_not_there_is_unknown_in_triton_s_words_on_every_path(served: InProcess, ending: str) -> None:
    for place, which in (("none", "'none'"), ("m/versions/9", "'m' version 9")):
        reply = served.request("POST" if ending == "/infer" else "GET", f"/v2/models/{place}{ending}")
        assert error_of(reply, 404).startswith(f"Request for unknown model: {which} is not found: ")


def test_the_server_says_what_it_is(served: InProcess) -> None:
    said = served.get("/v2").json()
    assert said.keys() == {"name", "version", "extensions"}
    assert said["name"] == "litepool"
    assert "binary_tensor_data" in said["extensions"]
    assert not {"system_shared_memory", "trace", "logging", "schedule_policy"} & set(said["extensions"])


def test_health_is_200_with_a_small_body_and_query_strings_are_ignored(served: InProcess) -> None:
    assert served.get("/v2/health/live?a=b").json() == {"live": True}
    assert served.get("/v2/health/ready").json() == {"ready": True}
    assert served.get("/v2/models/m/ready").json() == {"name": "m", "ready": True}
    assert served.get("/v2/models/m/versions/1/ready").status_code == 200
    assert served.request("HEAD", "/v2/health/ready").status_code == 200


def test_a_server_that_starts_or_drains_is_not_ready(one_model: Path) -> None:
    with InProcess(one_model) as served:
        manager = served.services.manager
        manager.peers_settled = False
        assert served.get("/v2/health/live").status_code == 200
        assert "starting" in error_of(served.get("/v2/health/ready"), 503)
        manager.peers_settled = True
        assert served.get("/v2/health/ready").status_code == 200
        manager.drain()
        assert "draining" in error_of(served.get("/v2/health/ready"), 503)
        error_of(served.get("/v2/models/affine/ready"), 503)


def test_a_model_s_metadata_are_its_versions_and_tensors(served: InProcess) -> None:
    tensor = {"datatype": "FP32", "shape": [-1, 4]}
    assert served.get("/v2/models/two").json() == {
        "name": "two",
        "versions": ["1", "2"],
        "platform": "litert_tflite",
        "inputs": [{"name": "x", **tensor}],
        "outputs": [{"name": "y", **tensor}],
    }
    assert served.get("/v2/models/two/versions/1").json()["versions"] == ["1"]
    assert served.get("/v2/models/one").json()["inputs"][0]["shape"] == [-1, 4]
    assert served.get("/v2/models/whole").json()["inputs"][0]["shape"] == [3, 2]


def test_a_model_s_configuration_is_in_triton_s_words(served: InProcess) -> None:
    config = served.get("/v2/models/labelled/config").json()
    assert (config["name"], config["max_batch_size"]) == ("labelled", inference_info.MAX_BATCH_SIZE)
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4], "format": "FORMAT_NONE"}]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": [4], "label_filename": "model.toml"}]
    assert config["version_policy"] == {"latest": {"num_versions": 1}}
    assert "dynamic_batching" in config
    assert config["model_transaction_policy"] == {"decoupled": False}
    assert served.get("/v2/models/two/config").json()["version_policy"] == {"all": {}}
    whole = served.get("/v2/models/whole/config").json()
    assert (whole["max_batch_size"], whole["input"][0]["dims"]) == (0, [3, 2])
    state = served.get("/v2/models/state/config").json()
    assert "sequence_batching" in state
    assert "dynamic_batching" not in state
    assert served.get("/v2/models/text/config").json()["input"][0]["data_type"] == "TYPE_STRING"


@pytest.mark.parametrize(
    ("shape", "form"),
    [
        ((-1, 8, 6, 3), "FORMAT_NHWC"),
        ((8, 6, 1), "FORMAT_NHWC"),
        ((-1, 3, 8, 8), "FORMAT_NONE"),
        ((-1, 3), "FORMAT_NONE"),
    ],
)
def test_what_can_be_an_image_is_described_as_one(tmp_path: Path, shape: tuple[int, ...], form: str) -> None:
    (tmp_path / "m.tflite").write_bytes(tflite.affine(shape=shape))
    with InProcess(tmp_path) as served:
        (tensor,) = served.get("/v2/models/m/config").json()["input"]
        assert tensor["format"] == form


def test_statistics_count_what_was_asked(one_model: Path) -> None:
    with InProcess(one_model) as served:
        given = request([1] * 8, (2, 4))
        for _ in range(3):
            assert infer(served, given, model="affine").status_code == 200
        error_of(infer(served, {}, model="affine"), 400)
        (stats,) = served.get("/v2/models/affine/stats").json()["model_stats"]
        assert (stats["name"], stats["version"]) == ("affine", "1")
        assert (stats["inference_count"], stats["execution_count"]) == (6, 3)
        assert stats["last_inference"] > 0
        found = stats["inference_stats"]
        assert found.keys() == {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
                                "cache_hit", "cache_miss"}  # fmt: skip
        assert (found["success"]["count"], found["fail"]["count"]) == (3, 1)
        assert all(found[phase]["ns"] > 0 for phase in ("success", "compute_input", "compute_infer"))
        (batch,) = stats["batch_stats"]
        assert batch["batch_size"] == 2
        for phase in ("compute_input", "compute_infer", "compute_output"):
            assert batch[phase] == {"count": 3, "ns": found[phase]["ns"]}
        assert served.get("/v2/models/stats").json() == {"model_stats": [stats]}
        assert served.get("/v2/models/affine/versions/1/stats").json() == {"model_stats": [stats]}


def test_the_repository_lists_what_there_is_and_what_serves(served: InProcess) -> None:
    def index(body: bytes) -> dict[tuple[str, str], Any]:
        found = served.send("/v2/repository/index", body).json()
        return {(one["name"], one["version"]): one for one in found}

    everything = index(b"")
    assert everything["two", "1"] == {"name": "two", "version": "1", "state": "READY"}
    assert everything["broken", "1"]["state"] == "UNAVAILABLE"
    assert everything["broken", "1"]["reason"]
    assert everything == index(b"{}") == index(b'{"ready": false}')
    assert everything.keys() - index(b'{"ready": true}').keys() == {("broken", "1")}
    error_of(served.send("/v2/repository/index", b'{"ready": 1}'), 400)
    error_of(served.send("/v2/repository/index", b"["), 400)
    error_of(served.send("/v2/repository/index", b"[]"), 400)


def test_models_are_loaded_and_unloaded_where_that_is_allowed(one_model: Path) -> None:
    with InProcess(one_model, model_control=True) as served:
        done = served.send("/v2/repository/models/affine/unload", b'{"parameters":{"unload_dependents":false}}')
        assert (done.status_code, done.content) == (200, b"")
        error_of(served.get("/v2/models/affine/ready"), 503)
        done = served.send("/v2/repository/models/affine/load", b"{}")
        assert (done.status_code, done.content) == (200, b"")
        assert served.get("/v2/models/affine/ready").status_code == 200


@pytest.mark.parametrize("parameters", [{"config": "{}"}, {"file:1/model.tflite": ""}, []])
def test_a_load_with_another_configuration_is_refused(served: InProcess, parameters: Any) -> None:
    body = json.dumps({"parameters": parameters}).encode()
    for model in ("m", "none"):
        message = error_of(served.send(f"/v2/repository/models/{model}/load", body), 400)
        assert message.startswith(f"failed to load '{model}': ")
    assert served.get("/v2/models/m/ready").status_code == 200


def test_an_order_that_fails_says_so_in_triton_s_words(served: InProcess) -> None:
    for do in ("load", "unload"):
        message = error_of(served.send(f"/v2/repository/models/none/{do}", b""), 404)
        assert message.startswith(f"failed to {do} 'none': ")


def test_models_are_not_loaded_where_that_is_not_allowed_nor_for_other_sites_pages(one_model: Path) -> None:
    with InProcess(one_model) as served:
        message = error_of(served.send("/v2/repository/models/affine/unload", b""), 403)
        assert "--model-control" in message
    with InProcess(one_model, model_control=True) as served:
        error_of(served.send("/v2/repository/models/affine/unload", b"", origin="http://evil.example"), 403)
        assert served.get("/v2/models/affine/ready").status_code == 200


def test_the_models_that_serve_are_listed(served: InProcess) -> None:
    names = served.get("/v2/models").json()["models"]
    assert names == sorted(names)
    assert "two" in names
    assert "broken" not in names


def test_the_schema_has_the_routes(served: InProcess) -> None:
    paths = served.get("/openapi.json").json()["paths"]
    assert {"/v2", "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"} <= paths.keys()
    assert {"/v2/repository/index", "/v2/repository/models/{model}/load"} <= paths.keys()
    assert not {"/v2/logging", "/v2/trace/setting"} & paths.keys()
    for path in ("/v2/models/{model}", "/v2/models/{model}/ready", "/v2/models/{model}/stats", "/v2/repository/index"):
        (operation,) = paths[path].values()
        assert operation["responses"].keys() == {"200", "default"}
