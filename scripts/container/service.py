"""What a client sees of a started image."""

import http.client
import json
import socket
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from app.server.rpc.messages import new
from container import CheckError
from container.sandbox import Sandbox

POLL_SECONDS = 0.02
POLLS_PER_MEASUREMENT = 10
TOLERANCE = 1e-4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON answer of one call."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def wait_ready(sandbox: Sandbox, port: int, deadline: float) -> float:
    """Seconds from the start until /healthz says "ok"; a service that is degraded has failed."""
    said: Any = "nothing"
    polls = 0
    while sandbox.elapsed < deadline:
        try:
            status, said = ask(port, "GET", "/healthz")
        except (OSError, http.client.HTTPException):
            status = 0
        ready = sandbox.elapsed
        if status == HTTPStatus.OK and said.get("status") == "ok":
            return ready
        if status == HTTPStatus.OK or (status and said.get("status") == "failed") or not sandbox.alive():
            break
        polls += 1
        if polls % POLLS_PER_MEASUREMENT == 0:
            sandbox.memory()
        time.sleep(POLL_SECONDS)
    raise CheckError(f"Not ready after {sandbox.elapsed:.1f} s; /healthz said {said}.\n{sandbox.said()}")


def _largest(values: list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def check_digits(port: int, samples: Path) -> int:
    """Post every sample to /predict: the digit and its probabilities must be those in the file."""
    cases = json.loads(samples.read_text())
    for case in cases:
        status, answer = ask(port, "POST", "/predict", case["request"])
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise CheckError(f"/healthz has said ok, and yet a worker answers /predict with 503: {answer}")
        if status != HTTPStatus.OK:
            raise CheckError(f"/predict answered {status} to the sample '{case['about']}': {answer}")
        _compare("/predict", case, answer["prediction"])
    return len(cases)


def check_grpc(port: int, samples: Path) -> None:
    """Ask for the health by gRPC, and send every sample to ModelInfer."""
    infer = "/inference.GRPCInferenceService/ModelInfer"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            # Its worker may be still beginning, which the other's answer to /healthz does not say.
            asked = health_pb2.HealthCheckRequest(service="")
            answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=30, wait_for_ready=True)
            if answer.status != health_pb2.HealthCheckResponse.SERVING:
                raise CheckError(f"gRPC's health service says {answer}")
            call = channel.unary_unary(infer)
            for case in json.loads(samples.read_text()):
                record = np.array(case["request"]["instance"], "<f4")[None]
                tensor = {"name": "image", "datatype": "FP32", "shape": record.shape}
                request = new("inference.ModelInferRequest", model_name="digits", inputs=[tensor])
                request.raw_input_contents.append(record.tobytes())
                response = new("inference.ModelInferResponse")
                response.ParseFromString(call(request.SerializeToString(), timeout=30))
                _compare(infer, case, np.frombuffer(response.raw_output_contents[0], "<f4").tolist())
        except grpc.RpcError as error:
            raise CheckError(f"gRPC failed: {error}") from error


def _compare(route: str, case: Any, got: list[float]) -> None:
    expected = case["answer"]["prediction"]
    apart = max(abs(a - b) for a, b in zip(got, expected, strict=True))
    if _largest(got) != _largest(expected) or apart > TOLERANCE:
        raise CheckError(f"{route} is wrong for '{case['about']}': expected {expected}, got {got}")
