"""What probes are told, and what tools that ask for the services are."""

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from app.server.rpc.messages import SERVICES
from tests import tflite
from tests.server.inprocess import InProcess
from tests.server.rpc.served import PLAIN, Rpc, serving

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
SERVES, SERVES_NOT = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def check(rpc: Rpc, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    answer = await rpc.channel.unary_unary(CHECK)(request.SerializeToString())
    return int(health_pb2.HealthCheckResponse.FromString(answer).status)


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_each_service_serves(rpc: Rpc, service: str) -> None:
    assert rpc.served.run(check(rpc, service)) == SERVES


def test_an_unknown_service_is_not_found(rpc: Rpc) -> None:
    request = health_pb2.HealthCheckRequest(service="odd")
    assert rpc.served.run(rpc.refused(CHECK, request.SerializeToString()))[0] is grpc.StatusCode.NOT_FOUND


def test_whoever_watches_hears_of_changes_and_of_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "affine.tflite").write_bytes(tflite.affine())

    async def run(served: InProcess) -> None:
        async with serving(served, PLAIN, folder) as rpc:
            call = rpc.channel.unary_stream(WATCH)(b"")
            heard = aiter(call)

            async def status() -> int:
                return int(health_pb2.HealthCheckResponse.FromString(await anext(heard)).status)

            assert await status() == SERVES
            await served.services.orders.carry_out("unload", "affine")
            assert await status() == SERVES_NOT
            assert await check(rpc) == SERVES_NOT
            await served.services.orders.carry_out("load", "affine")
            assert await status() == SERVES
            ended = asyncio.ensure_future(rpc.server.stop(20))  # type: ignore[union-attr]
            assert await status() == SERVES_NOT
            assert await anext(heard, None) is None
            await asyncio.wait_for(ended, 5)

    with InProcess(folder, model_control=True) as served:
        served.run(run(served))


def test_while_something_loads_nothing_serves(rpc: Rpc) -> None:
    manager = rpc.served.services.manager
    manager.peers_settled = False
    try:
        assert rpc.served.run(check(rpc)) == SERVES_NOT
    finally:
        manager.peers_settled = True
    assert rpc.served.run(check(rpc)) == SERVES


def test_the_services_are_listed_and_described(rpc: Rpc) -> None:
    async def ask(request: reflection_pb2.ServerReflectionRequest) -> reflection_pb2.ServerReflectionResponse:
        call = rpc.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")()
        await call.write(request.SerializeToString())
        await call.done_writing()
        (answer,) = [message async for message in call]
        return reflection_pb2.ServerReflectionResponse.FromString(answer)

    listed = rpc.served.run(ask(reflection_pb2.ServerReflectionRequest(list_services="")))
    names = {service.name for service in listed.list_services_response.service}
    assert set(SERVICES) < names
    assert "grpc.health.v1.Health" in names

    for name in names:
        found = rpc.served.run(ask(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)))
        assert found.file_descriptor_response.file_descriptor_proto, name
