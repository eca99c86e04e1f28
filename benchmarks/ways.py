"""The ways in which each server is asked when the wire formats are measured, and how one request goes each way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import grpc

from benchmarks.check import WrongAnswerError
from benchmarks.connection import Connection
from benchmarks.load import closed, h2
from benchmarks.messages import GRPC, ModelInfer, Predict
from benchmarks.models import MLP, Floats
from benchmarks.peers import TRITON_GRPC
from benchmarks.servers import EXPRESS_GRPC, FLOOR_SIZED, Server
from benchmarks.wire import Instances, Npy, OpenInference, OpenInferenceBinary, Request, Wire, head_length

PATIENCE_S = 30
SINGLE, BATCHES = (1,), MLP.batches
PREDICT = "/tensorflow.serving.PredictionService/Predict"
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
JSON_TEXT, FLOAT = 12, 4
"""Bytes of a number in an answer: in JSON about so many, and as it is."""


@dataclasses.dataclass(frozen=True)
class Way:
    """One wire format at one path. `sizes` are how many records the requests have that are measured.

    `path` is given that number; `headers` the body, for formats that tell of it in a header.
    """

    name: str
    title: str
    wire: Wire
    path: Callable[[int], str]
    sizes: tuple[int, ...]
    headers: Callable[[bytes], Mapping[str, str]] = lambda _body: {}

    @property
    def over_grpc(self) -> bool:
        return self.wire.content_type == GRPC

    def request(self, port: int, batch: Floats) -> Request:
        """Every server has gRPC on the port after that of HTTP."""
        body = self.wire.encode(batch)
        return Request(port + self.over_grpc, self.path(len(batch)), self.wire.content_type, body, self.headers(body))

    def fetch(self, ask: Request) -> bytes:
        """The answer's body or message, by a client that knows the status. Raises WrongAnswerError when that is bad."""
        if self.over_grpc:
            return call(ask)
        with Connection(ask.port) as connection:
            good, body = connection.fetch(ask.raw())
        if not good:
            raise WrongAnswerError(f"no 2xx: {body[:500].decode(errors='replace')}")
        return body

    def load(self, ask: Request, answer: bytes, connections: int, seconds: float) -> closed.Closed:
        """`answer` is what `fetch` gave for the same request."""
        if self.over_grpc:
            return h2.measure(ask, answer, connections, seconds)
        return closed.measure(ask, connections, seconds)


def call(ask: Request) -> bytes:
    """By gRPC's own client, which is given the message as it is."""
    with grpc.insecure_channel(f"127.0.0.1:{ask.port}") as channel:
        try:
            answer: bytes = channel.unary_unary(ask.path)(ask.body, timeout=PATIENCE_S, wait_for_ready=True)
        except grpc.RpcError as error:
            raise WrongAnswerError(f"{error.code().name}: {error.details()[:500]}") from error
    return answer


@dataclasses.dataclass(frozen=True)
class Host:
    """A server and the ways to ask it, all measured from one start in each round."""

    server: Server
    ways: tuple[Way, ...]


def v2(path: str, title: str = "v2") -> tuple[Way, Way]:
    """The Open Inference Protocol by HTTP: JSON, and Triton's binary tensors."""
    return (
        Way("v2-json", f"{title}, JSON", OpenInference(), lambda _size: path, SINGLE),
        Way(
            "v2-binary",
            f"{title}, binary",
            OpenInferenceBinary(),
            lambda _size: path,
            SINGLE + BATCHES,
            lambda body: {"Inference-Header-Content-Length": str(head_length(body))},
        ),
    )


def infer(model: str) -> Way:
    return Way("grpc-infer", "gRPC `ModelInfer`", ModelInfer(model), lambda _size: MODEL_INFER, SINGLE + BATCHES)


def answering(base: str, bytes_each: int) -> Callable[[int], str]:
    """The floor's path for an answer as long as the model's."""
    return lambda size: f"{base}/{size * MLP.outputs * bytes_each}"


FLOOR = Host(
    FLOOR_SIZED,
    (
        Way("json", "empty ASGI app, `/predict`'s bytes", Instances(), answering("/answer", JSON_TEXT), SINGLE),
        Way(
            "binary",
            "empty ASGI app, v2 binary's bytes",
            OpenInferenceBinary(),
            answering("/answer", FLOAT),
            SINGLE + BATCHES,
        ),
        Way(
            "grpc",
            "empty grpc.aio handler, `ModelInfer`'s bytes",
            ModelInfer("mlp"),
            answering("/floor.Answer", FLOAT),
            SINGLE + BATCHES,
        ),
    ),
)
LITEPOOL = Host(
    EXPRESS_GRPC,
    (
        Way("predict-json", "`/predict`, JSON", Instances(), lambda _size: "/predict/mlp", SINGLE + BATCHES),
        Way("predict-npy", "`/predict`, .npy", Npy(), lambda _size: "/predict/mlp", BATCHES),
        Way("v1-json", "v1 `:predict`, JSON", Instances(), lambda _size: "/v1/models/mlp:predict", SINGLE),
        *v2("/v2/models/mlp/infer"),
        Way("grpc-predict", "gRPC `Predict`", Predict("mlp"), lambda _size: PREDICT, SINGLE + BATCHES),
        infer("mlp"),
    ),
)
TRITON = Host(TRITON_GRPC, (*v2("/v2/models/model/infer"), infer("model")))
HOSTS = (FLOOR, LITEPOOL, TRITON)
