"""One model's answers are the same bits whatever the protocol and the form they are asked for in."""

import io
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from app.runtime.interpreter import Runner
from tests import protobuf
from tests.e2e.process import MODELS, PATIENCE, Litepool
from tests.e2e.reference import RECORDS, Reference

pytestmark = pytest.mark.slow

Floats = npt.NDArray[np.float32]

MODEL = "mlp"
INPUT = "x"
SIZES = (1, 2, 7, 32, 256)


class Server:
    """A server of the shipped models, with a connection for each protocol."""

    def __init__(self, litepool: Litepool, address: str) -> None:
        self.http = litepool.client()
        self.channel = grpc.insecure_channel(address)

    def post(self, path: str, body: bytes, **headers: str) -> tuple[bytes, dict[str, str]]:
        reply = self.http.send("POST", path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        assert reply.status == 200, reply.body
        return reply.body, reply.headers

    def json(self, path: str, document: Any) -> Any:
        return json.loads(self.post(path, json.dumps(document).encode())[0])

    def call(self, method: str, request: bytes) -> bytes:
        answer: bytes = self.channel.unary_unary(f"/{method}")(request, timeout=PATIENCE)
        return answer


@pytest.fixture(scope="module")
def server(cache: Path) -> Iterator[Server]:
    settings: dict[str, str | Path] = {"cache_dir": cache, "grpc_port": "0"}
    with Litepool(MODELS, "--workers", "2", settings=settings) as litepool:
        made = Server(litepool.wait_ready(), litepool.out.wait_for(r" and grpc://([^\s:]+:\d+): ")[1])
        yield made
        made.http.close()
        made.channel.close()


def listed(records: Floats) -> list[Any]:
    # Not by way of NumPy's own text: each float32 as the double that it is.
    values: list[Any] = records.astype(float).tolist()
    return values


def floats(values: Any) -> Floats:
    return np.array(values, np.float64).astype(np.float32)


def predict_instance(server: Server, records: Floats) -> Floats:
    path = f"/predict/{MODEL}"
    return floats([server.json(path, {"instance": record})["prediction"] for record in listed(records)])


def predict_instances(server: Server, records: Floats) -> Floats:
    return floats(server.json(f"/predict/{MODEL}", {"instances": listed(records)})["predictions"])


def predict_inputs(server: Server, records: Floats) -> Floats:
    return floats(server.json(f"/predict/{MODEL}", {"inputs": listed(records)})["outputs"])


def predict_npy(server: Server, records: Floats) -> Floats:
    body = io.BytesIO()
    np.save(body, records)
    npy = "application/x-npy"
    answer: Floats = np.load(
        io.BytesIO(server.post(f"/predict/{MODEL}", body.getvalue(), content_type=npy, accept=npy)[0])
    )
    return answer


def serving_row(server: Server, records: Floats) -> Floats:
    return floats(server.json(f"/v1/models/{MODEL}:predict", {"instances": listed(records)})["predictions"])


def serving_row_by_name(server: Server, records: Floats) -> Floats:
    document = {"signature_name": "serving_default", "instances": [{INPUT: each} for each in listed(records)]}
    return floats(server.json(f"/v1/models/{MODEL}/versions/1:predict", document)["predictions"])


def serving_columns(server: Server, records: Floats) -> Floats:
    return floats(server.json(f"/v1/models/{MODEL}:predict", {"inputs": {INPUT: listed(records)}})["outputs"])


def infer(server: Server, records: Floats, flat: bool) -> Floats:
    data = listed(records.reshape(-1) if flat else records)
    tensor = {"name": INPUT, "datatype": "FP32", "shape": list(records.shape), "data": data}
    (output,) = server.json(f"/v2/models/{MODEL}/infer", {"inputs": [tensor]})["outputs"]
    return floats(output["data"]).reshape(output["shape"])


def infer_json(server: Server, records: Floats) -> Floats:
    return infer(server, records, flat=True)


def infer_nested(server: Server, records: Floats) -> Floats:
    return infer(server, records, flat=False)


def infer_binary(server: Server, records: Floats) -> Floats:
    sent = records.tobytes()
    tensor = {"name": INPUT, "datatype": "FP32", "shape": list(records.shape)}
    document = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(sent)}}],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(document).encode()
    return binary_answer(
        *server.post(f"/v2/models/{MODEL}/infer", head + sent, inference_header_content_length=str(len(head)))
    )


def infer_raw(server: Server, records: Floats) -> Floats:
    """Each record alone, with no JSON at all."""
    path = f"/v2/models/{MODEL}/infer"
    answers = [server.post(path, record.tobytes(), inference_header_content_length="0") for record in records]
    return np.concatenate([binary_answer(*answer) for answer in answers])


def binary_answer(body: bytes, headers: dict[str, str]) -> Floats:
    assert headers["content-type"] == "application/octet-stream"
    length = int(headers["inference-header-content-length"])
    (output,) = json.loads(body[:length])["outputs"]
    assert output["parameters"]["binary_data_size"] == len(body) - length
    return np.frombuffer(body[length:], "<f4").reshape(output["shape"])


def grpc_predict(server: Server, records: Floats, tensor: bytes) -> Floats:
    """Of `tensorflow.serving.PredictRequest` 1 is the model_spec and 2 the inputs; of the response 1 the outputs."""
    spec = protobuf.message((1, MODEL))
    entry = protobuf.message((1, INPUT), (2, tensor))
    answer = server.call("tensorflow.serving.PredictionService/Predict", protobuf.message((1, spec), (2, entry)))
    found = protobuf.one(answer, 1, 2)
    fields = dict(protobuf.read(found))
    values = fields.get(4) or fields[5]
    assert isinstance(values, bytes)
    return np.frombuffer(values, "<f4").reshape(len(records), -1)


def tensor_of(records: Floats, content: tuple[int, bytes]) -> bytes:
    """A `tensorflow.TensorProto`: 1 dtype (1 is float), 2 shape, 4 tensor_content, 5 float_val."""
    shape = protobuf.message(*((2, protobuf.message((1, size))) for size in records.shape))
    return protobuf.message((1, 1), (2, shape), content)


def grpc_predict_content(server: Server, records: Floats) -> Floats:
    return grpc_predict(server, records, tensor_of(records, (4, records.tobytes())))


def grpc_predict_values(server: Server, records: Floats) -> Floats:
    return grpc_predict(server, records, tensor_of(records, (5, records.tobytes())))


def grpc_infer(server: Server, records: Floats, *content: tuple[int, bytes], raw: bool) -> Floats:
    """Of `inference.ModelInferRequest` 1 is the name, 5 the inputs, 7 raw contents; of an input 1 name, 2 datatype,
    3 shape, 5 contents. Of the response 6 are raw contents."""
    shape = b"".join(map(protobuf.varint, records.shape))
    tensor = protobuf.message((1, INPUT), (2, "FP32"), (3, shape), *(() if raw else content))
    request = protobuf.message((1, MODEL), (5, tensor), *(content if raw else ()))
    answer = server.call("inference.GRPCInferenceService/ModelInfer", request)
    return np.frombuffer(protobuf.one(answer, 6), "<f4").reshape(len(records), -1)


def grpc_infer_raw(server: Server, records: Floats) -> Floats:
    return grpc_infer(server, records, (7, records.tobytes()), raw=True)


def grpc_infer_typed(server: Server, records: Floats) -> Floats:
    """Of `InferTensorContents` 6 is fp32_contents, packed."""
    return grpc_infer(server, records, (5, protobuf.message((6, records.tobytes()))), raw=False)


FORMS: dict[str, Callable[[Server, Floats], Floats]] = {
    form.__name__: form
    for form in (
        *(predict_instance, predict_instances, predict_inputs, predict_npy),
        *(serving_row, serving_row_by_name, serving_columns),
        *(infer_json, infer_nested, infer_binary, infer_raw),
        *(grpc_predict_content, grpc_predict_values, grpc_infer_raw, grpc_infer_typed),
    )
}


@pytest.fixture(scope="module")
def records(reference: dict[str, Reference]) -> Floats:
    (array,) = reference[MODEL].inputs.values()
    return np.ascontiguousarray(array[:RECORDS], np.float32)


@pytest.fixture(scope="module")
def answers(server: Server, cache: Path, records: Floats) -> Floats:
    """What the interpreter itself answers, in this process, to one record at a time."""
    size = server.http.get(f"/models/{MODEL}/versions/1").json()["tflite_bytes"]
    (model,) = [path for path in cache.rglob("*.tflite") if path.stat().st_size == size]
    runner = Runner(model.read_bytes())
    return np.concatenate([runner.invoke([record[np.newaxis]])[0].copy() for record in records])


@pytest.mark.parametrize("form", FORMS)
def test_a_thousand_records_have_the_same_answers_bit_for_bit_in_every_form(
    server: Server, records: Floats, answers: Floats, form: str
) -> None:
    start, found = 0, []
    sizes = iter(SIZES * len(records))
    while start < len(records):
        size = next(sizes)
        found.append(FORMS[form](server, records[start : start + size]))
        start += size

    assert np.concatenate(found).tobytes() == answers.tobytes()


def test_answers_are_no_constants(answers: Floats) -> None:
    assert len(np.unique(answers, axis=0)) == len(answers) == RECORDS
    assert struct.pack("<f", answers[0, 0]) == answers[0, :1].tobytes()
