"""What probes are told, and what tools that ask for the services are."""

import asyncio
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from app.server.rpc.edge import Edge
from app.server.rpc.messages import SERVICES, methods
from tests import tflite
from tests.server.inprocess import InProcess
from tests.server.rpc.served import LANE, PLAIN, Rpc, serving

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECT = tuple(f"/grpc.reflection.{v}.ServerReflection/ServerReflectionInfo" for v in ("v1", "v1alpha"))
SERVES, SERVES_NOT = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def check(rpc: Rpc, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    answer = await rpc.channel.unary_unary(CHECK)(request.SerializeToString())
    return int(health_pb2.HealthCheckResponse.FromString(answer).status)


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_each_service_serves(rpc: Rpc, service: str) -> None:
    assert rpc.served.run(check(rpc, service)) == SERVES


def test_all_services_are_told_of_at_once(rpc: Rpc) -> None:
    answer = rpc.served.run(rpc.call("/grpc.health.v1.Health/List", b""))

    statuses = health_pb2.HealthListResponse.FromString(answer).statuses
    assert {name: each.status for name, each in statuses.items()} == dict.fromkeys(("", *SERVICES), SERVES)


def test_an_unknown_service_is_not_found(rpc: Rpc) -> None:
    request = health_pb2.HealthCheckRequest(service="odd")
    assert rpc.served.run(rpc.refused(CHECK, request.SerializeToString()))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("road", [LANE, PLAIN])
def test_whoever_watches_hears_of_changes_and_of_the_end(road: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "affine.tflite").write_bytes(tflite.affine())

    async def run(served: InProcess) -> None:
        async with serving(served, road, folder) as rpc:
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
            ended = asyncio.ensure_future(end(rpc, 20))
            assert await status() == SERVES_NOT
            assert await anext(heard, None) is None
            await asyncio.wait_for(ended, 10)

    with InProcess(folder, model_control=True) as served:
        served.run(run(served))


async def end(rpc: Rpc, seconds: float) -> None:
    await (rpc.server.drain(seconds) if isinstance(rpc.server, Edge) else rpc.server.stop(seconds))


def test_at_the_end_all_hear_of_it_though_one_does_not_listen(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "affine.tflite").write_bytes(tflite.affine())

    async def run(served: InProcess) -> None:
        async with serving(served, LANE, folder) as rpc:
            deaf, *watching = [rpc.channel.unary_stream(WATCH)(b"") for _ in range(20)]
            for call in watching:
                assert health_pb2.HealthCheckResponse.FromString(await call.read()).status == SERVES
            ended = asyncio.ensure_future(end(rpc, 20))
            for call in watching:
                assert health_pb2.HealthCheckResponse.FromString(await call.read()).status == SERVES_NOT
                assert await call.read() is grpc.aio.EOF
            await asyncio.wait_for(ended, 10)
            deaf.cancel()

    with InProcess(folder) as served:
        served.run(run(served))


@pytest.mark.parametrize("path", REFLECT)
def test_a_tool_that_keeps_asking_about_the_services_does_not_hold_up_the_end(
    application: InProcess, folder: Path, path: str
) -> None:
    async def run() -> None:
        async with serving(application, LANE, folder) as rpc:
            call = rpc.channel.stream_stream(path)()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
            await call.read()
            await asyncio.wait_for(end(rpc, 20), 10)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    application.run(run())


def test_while_something_loads_nothing_serves(rpc: Rpc) -> None:
    manager = rpc.served.services.manager
    manager.peers_settled = False
    try:
        assert rpc.served.run(check(rpc)) == SERVES_NOT
    finally:
        manager.peers_settled = True
    assert rpc.served.run(check(rpc)) == SERVES


@pytest.mark.parametrize("message", [CHECK, *REFLECT])
def test_a_message_that_is_none_is_the_callers_fault(rpc: Rpc, message: str) -> None:
    status, text = rpc.served.run(rpc.refused(message, b"\xff"))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert "1 bytes that cannot be read as one" in text


def test_a_watch_without_a_request_is_refused(rpc: Rpc) -> None:
    async def run() -> grpc.StatusCode:
        call = rpc.channel.stream_stream(WATCH)()
        await call.done_writing()
        return await call.code()

    assert rpc.served.run(run()) is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("path", REFLECT)
def test_the_services_are_listed_and_described(rpc: Rpc, path: str) -> None:
    async def ask(request: reflection_pb2.ServerReflectionRequest) -> reflection_pb2.ServerReflectionResponse:
        call = rpc.channel.stream_stream(path)()
        await call.write(request.SerializeToString())
        await call.done_writing()
        (answer,) = [message async for message in call]
        return reflection_pb2.ServerReflectionResponse.FromString(answer)

    listed = rpc.served.run(ask(reflection_pb2.ServerReflectionRequest(list_services="")))
    names = {service.name for service in listed.list_services_response.service}
    assert set(SERVICES) < names
    assert "grpc.health.v1.Health" in names
    assert {each[1:].rpartition("/")[0] for each in REFLECT} < names

    for name in names:
        found = rpc.served.run(ask(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)))
        files = map(FileDescriptorProto.FromString, found.file_descriptor_response.file_descriptor_proto)
        described = {f"{file.package}.{service.name}" for file in files for service in file.service}
        assert name in described


@pytest.mark.parametrize("path", REFLECT)
def test_a_method_is_described_by_its_name(rpc: Rpc, path: str) -> None:
    async def ask(symbol: str) -> reflection_pb2.ServerReflectionResponse:
        call = rpc.channel.stream_stream(path)()
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol).SerializeToString())
        await call.done_writing()
        (answer,) = [message async for message in call]
        return reflection_pb2.ServerReflectionResponse.FromString(answer)

    for service in (*SERVICES, "grpc.health.v1.Health"):
        of_service = rpc.served.run(ask(service)).file_descriptor_response
        method = next(methods(service)).name
        assert of_service.file_descriptor_proto
        assert rpc.served.run(ask(f"{service}.{method}")).file_descriptor_response == of_service
        assert rpc.served.run(ask(f"{service}.Nothing")).error_response.error_code == 5
