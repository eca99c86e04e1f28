"""`grpclib`: gRPC in pure Python, on an HTTP/2 stack (`h2`) that has nothing in common with gRPC's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.v1 import reflection_pb2
from grpclib.reflection.v1.reflection_grpc import ServerReflectionStub
from tritonclient.grpc import service_pb2 as messages

from calls import Addresses, call, equal, refused, run_async

X = np.array([1, 2, 5], np.float32)
Y = np.array([2.5, 3.0, 4.5], np.float32)
LARGE = np.arange(2_500_000, dtype=np.float32)

PATIENCE = 60.0
SMALL_WINDOW = 1 << 16


@asynccontextmanager
async def client(addresses: Addresses) -> AsyncIterator[Channel]:
    async with channel_to(addresses.grpc) as channel:
        # Where another is needed.
        channel.address = addresses.grpc
        yield channel


def channel_to(address: str, **config: int) -> Channel:
    host, _, port = address.partition(":")
    return Channel(host, int(port), config=Configuration(**config))


def infer_method(channel: Channel) -> Any:
    path = "/inference.GRPCInferenceService/ModelInfer"
    return UnaryUnaryMethod(channel, path, messages.ModelInferRequest, messages.ModelInferResponse)


def infer_request(model: str, x: np.ndarray[Any, Any], **fields: Any) -> Any:
    tensor = {"name": "x", "datatype": "FP32", "shape": x.shape}
    return messages.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[x.tobytes()], **fields)


async def infer(channel: Channel, x: np.ndarray[Any, Any], model: str = "m", **options: Any) -> np.ndarray[Any, Any]:
    answer = await infer_method(channel)(infer_request(model, x), **options)
    (raw,) = answer.raw_output_contents
    return np.frombuffer(raw, np.float32)


@call
async def infers(channel: Channel) -> None:
    equal(await infer(channel, X), Y)


@call
async def is_told_of_other_calls(channel: Channel) -> None:
    path = "/inference.GRPCInferenceService/ServerMetadata"
    ask = UnaryUnaryMethod(channel, path, messages.ServerMetadataRequest, messages.ServerMetadataResponse)
    equal((await ask(messages.ServerMetadataRequest())).name, "litepool")


@call
async def is_told_what_is_wrong_and_goes_on(channel: Channel) -> None:
    with refused(GRPCError, "NOT_FOUND", "no model 'none'"):
        await infer(channel, X, "none")
    with refused(GRPCError, "INVALID_ARGUMENT", "x"):
        await infer(channel, X, "two")
    path = "/inference.GRPCInferenceService/None"
    with refused(GRPCError, "UNIMPLEMENTED", "has no method"):
        await UnaryUnaryMethod(channel, path, messages.ServerLiveRequest, messages.ServerLiveResponse)(
            messages.ServerLiveRequest()
        )
    equal(await infer(channel, X), Y)


@call
async def gives_up_by_itself(channel: Channel) -> None:
    record = np.ones((1, 1), np.float32)
    # Whoever of the two sees first that it is over.
    for _ in range(5):
        try:
            await infer(channel, record, "slow", timeout=0.003)
        except TimeoutError:
            continue
        except GRPCError as error:
            equal(error.status, Status.DEADLINE_EXCEEDED)
        else:
            raise AssertionError("answered in time")
    equal(await infer(channel, X), Y)


@call
async def cancels(channel: Channel) -> None:
    record = np.ones((1, 1), np.float32)
    for _ in range(5):
        async with infer_method(channel).open() as stream:
            await stream.send_message(infer_request("slow", record), end=True)
            await stream.cancel()
    equal(await infer(channel, X), Y)


@call
async def infers_10_megabytes_through_small_windows(channel: Channel) -> None:
    config = {"http2_connection_window_size": SMALL_WINDOW, "http2_stream_window_size": SMALL_WINDOW}
    async with channel_to(channel.address, **config) as narrow:
        for each in (narrow, channel):
            equal(np.array_equal(await infer(each, LARGE, timeout=PATIENCE), LARGE / 2 + 2), True)
            answers = await asyncio.gather(*(infer(each, LARGE[:200_000] + number) for number in range(8)))
            for number, answer in enumerate(answers):
                equal(np.array_equal(answer, (LARGE[:200_000] + number) / 2 + 2), True)


@call
async def infers_many_at_a_time_on_one_connection(channel: Channel) -> None:
    for _ in range(3):
        answers = await asyncio.gather(*(infer(channel, X + number) for number in range(200)))
        for number, answer in enumerate(answers):
            equal(answer, (X + number) / 2 + 2)


@call
async def streams(channel: Channel) -> None:
    path = "/inference.GRPCInferenceService/ModelStreamInfer"
    method = StreamStreamMethod(channel, path, messages.ModelInferRequest, messages.ModelStreamInferResponse)
    requests = [infer_request("m", X + number, id=str(number)) for number in range(64)]
    for number, answer in enumerate(await method(requests)):
        equal(answer.infer_response.id, str(number))
        (raw,) = answer.infer_response.raw_output_contents
        equal(np.frombuffer(raw, np.float32), (X + number) / 2 + 2)


@call
async def asks_and_watches_the_health(channel: Channel) -> None:
    equal((await HealthStub(channel).Check(HealthCheckRequest())).status, HealthCheckResponse.SERVING)
    watch = UnaryStreamMethod(channel, "/grpc.health.v1.Health/Watch", HealthCheckRequest, HealthCheckResponse)
    async with watch.open() as stream:
        await stream.send_message(HealthCheckRequest(), end=True)
        message = await stream.recv_message()
        assert message is not None
        equal(message.status, HealthCheckResponse.SERVING)
        await stream.cancel()


@call
async def asks_for_the_services(channel: Channel) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = await ServerReflectionStub(channel).ServerReflectionInfo([request])
    names = [service.name for service in answer.list_services_response.service]
    assert "inference.GRPCInferenceService" in names, names


if __name__ == "__main__":
    run_async(client)
