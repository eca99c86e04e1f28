"""gRPC's services over a port or a private socket, in this process, and a client for them."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from app.server.listen import listen
from app.server.rpc.edge import Edge
from app.server.rpc.messages import POOL, new
from app.server.rpc.server import RpcServer
from app.settings import Settings
from tests.server.inprocess import InProcess

SERVING = "tensorflow.serving"
PREDICTION = f"/{SERVING}.PredictionService"
MODELS = f"/{SERVING}.ModelService"
INFERENCE = "/inference.GRPCInferenceService"

LANE, PLAIN = "express lane", "grpc.aio alone"


class Rpc:
    """A client of one server.

    Args:
        served: the application behind it.
    """

    def __init__(self, served: InProcess, channel: grpc.aio.Channel, server: Edge | RpcServer) -> None:
        self.served = served
        self.channel = channel
        self.server = server

    async def call(self, path: str, request: Any, **options: Any) -> Any:
        """The answer to a message, as a message if the request is one."""
        if isinstance(request, bytes):
            return await self.channel.unary_unary(path)(request, **options)
        service, _, method = path[1:].rpartition("/")
        answer = answers(service, method)
        answer.ParseFromString(await self.channel.unary_unary(path)(request.SerializeToString(), **options))
        return answer

    async def refused(self, path: str, request: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
        """The status and the text of a call that fails."""
        try:
            answer = await self.call(path, request, **options)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        raise AssertionError(f"answered: {answer}")


def answers(service: str, method: str) -> Any:
    """An empty answer to a call of a method."""
    return new(POOL.FindServiceByName(service).methods_by_name[method].output_type.full_name)


@asynccontextmanager
async def serving(served: InProcess, road: str, folder: Path, **settings: Any) -> AsyncIterator[Rpc]:
    """Serve an application's models by gRPC too."""
    chosen = Settings(models_dir=folder, grpc_port=0, max_body_bytes=1 << 20, **settings)
    services = served.services
    edge: Edge | RpcServer
    if road == LANE:
        sock = listen("127.0.0.1", 0)
        edge = Edge(chosen, sock)
        listener = await edge.open(services)
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    else:
        edge = RpcServer(services, chosen)
        address = f"unix:{folder.parent / 'grpc.sock'}"
        await edge.start(address)
    told = services.manager.changed

    def changed() -> None:
        told()
        edge.refresh()

    services.manager.changed = changed
    try:
        async with grpc.aio.insecure_channel(address, options=(("grpc.max_receive_message_length", -1),)) as channel:
            yield Rpc(served, channel, edge)
    finally:
        services.manager.changed = told
        if isinstance(edge, Edge):
            if listener is not None:
                listener.close()
            await edge.drain(1)
        else:
            await edge.stop(1)


def model_spec(name: str, version: int | None = None, label: str = "", signature: str = "") -> Any:
    spec = new(f"{SERVING}.ModelSpec", name=name, signature_name=signature)
    if version is not None:
        spec.version.value = version
    if label:
        spec.version_label = label
    return spec


def tensor(array: Any) -> Any:
    """A float `TensorProto`."""
    array = np.asarray(array, np.float32)
    return new(
        "tensorflow.TensorProto",
        dtype="DT_FLOAT",
        tensor_shape={"dim": [{"size": size} for size in array.shape]},
        tensor_content=array.tobytes(),
    )


def predict_request(name: str, rows: Sequence[Sequence[float]] = ((1, 2, 3, 4),), x: str = "x", **spec: Any) -> Any:
    return new(f"{SERVING}.PredictRequest", model_spec=model_spec(name, **spec), inputs={x: tensor(rows)})


def infer_request(
    name: str, rows: Sequence[Sequence[float]] = ((1, 2, 3, 4),), parameters: Any = (), **fields: Any
) -> Any:
    array = np.asarray(rows, np.float32)
    return new(
        "inference.ModelInferRequest",
        model_name=name,
        inputs=[{"name": "x", "datatype": "FP32", "shape": array.shape}],
        raw_input_contents=[array.tobytes()],
        parameters=dict(parameters),
        **fields,
    )


def floats(raw: Iterable[bytes]) -> list[float]:
    (one,) = raw
    found: list[float] = np.frombuffer(one, np.float32).tolist()
    return found
