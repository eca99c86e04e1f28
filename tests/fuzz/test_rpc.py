"""Whatever message comes to a gRPC method, on either road, the call ends in a status that is its caller's own doing."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import strategies as st

from app.bound import Wants
from app.protocols.call import Wire
from app.repository.manager import Target
from app.server.rpc.edge import Edge
from app.server.rpc.hot import PATHS
from app.server.rpc.messages import POOL, SERVICES, methods, new
from app.tensors import Signature
from tests.fuzz import mutations
from tests.fuzz.bodies import BODIES
from tests.fuzz.budget import budget, try_all
from tests.fuzz.checks import check_message
from tests.fuzz.test_routes import write_models
from tests.server.inprocess import InProcess
from tests.server.rpc.served import LANE, PLAIN, Rpc, floats, infer_request, serving

FAULTS = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.ABORTED,
}
"""What no caller should be told here."""

_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"

Seeds = list[tuple[str, list[bytes]]]
"""By the method's path."""


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(write_models(tmp_path_factory.mktemp("fuzz") / "models"), default_model="affine") as served:
        yield served


@pytest.fixture(scope="module", params=[LANE, PLAIN])
def rpc(application: InProcess, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Iterator[Rpc]:
    stack = AsyncExitStack()
    folder = tmp_path_factory.mktemp("rpc") / "models"
    folder.mkdir()
    yield application.run(stack.enter_async_context(serving(application, request.param, folder)))
    application.run(stack.aclose())


def seeds_of(application: InProcess) -> Seeds:
    found: dict[str, list[bytes]] = {}
    for name in ("affine", "pair", "lookup", "whole", "sum"):
        signature: Signature = application.services.dataplane.route(Target(name), Wants()).bound.servable.signature
        for wire, path in PATHS.items():
            found.setdefault(path, []).extend(_named(wire, name, body.data) for body in BODIES[wire](signature))
    found[_STREAM] = found[PATHS[Wire.GRPC_INFER]]
    for service in SERVICES:
        for method in methods(service):
            found.setdefault(method.path, []).extend(_plain(method.descriptor.input_type.full_name))
    return list(found.items())


def _named(wire: Wire, name: str, data: bytes) -> bytes:
    kind = POOL.FindServiceByName(PATHS[wire][1:].partition("/")[0]).methods_by_name[PATHS[wire].rpartition("/")[2]]
    request = new(kind.input_type.full_name)
    request.ParseFromString(data)
    if wire is Wire.GRPC_INFER:
        request.model_name = name
        request.model_version = "1" if len(data) % 2 else ""
    else:
        request.model_spec.name = name
        request.model_spec.ClearField("version")
    written: bytes = request.SerializeToString()
    return written


def _plain(kind: str) -> list[bytes]:
    """A message of a type with the names in it that there usually are."""
    request = new(kind)
    fields = {field.name for field in request.DESCRIPTOR.fields}
    if "model_spec" in fields:
        request.model_spec.name = "affine"
    for field in ("name", "model_name"):
        if field in fields:
            setattr(request, field, "affine")
    if "metadata_field" in fields:
        request.metadata_field.append("signature_def")
    if "tasks" in fields:
        task = request.tasks.add(method_name="tensorflow/serving/regress")
        task.model_spec.name = "affine"
    if "config" in fields:
        request.config.model_config_list.config.add(name="affine", base_path="/models/affine")
    return [b"", request.SerializeToString()]


def messages(seeds: Seeds) -> st.SearchStrategy[tuple[str, bytes]]:
    def make(which: int, seed: int, steps: list[tuple[int, int]]) -> tuple[str, bytes]:
        rng = Random(seed)
        path, found = seeds[which % len(seeds)]
        return path, mutations.mutated(rng.choice(found), steps, mutations.MESSAGE, rng.choice(found))

    steps = st.tuples(st.integers(0, len(mutations.MESSAGE) - 1), st.integers(0, 2**32 - 1))
    return st.builds(make, st.integers(0, 60), st.integers(0, 2**32 - 1), st.lists(steps, max_size=4))


async def called(rpc: Rpc, path: str, message: bytes) -> None:
    """Call a method, with one message or, on the lane where it takes a stream, with two."""
    if path == _STREAM and isinstance(rpc.server, Edge):
        stream = rpc.channel.stream_stream(path)(iter((message, message)))
        assert len([answer async for answer in stream]) == 2
        return
    call = rpc.channel.unary_unary(path)(message)
    # It does not raise, as the call itself would.
    assert await call.code() not in FAULTS, await call.details()
    if await call.code() is not grpc.StatusCode.OK:
        check_message(await call.details())


@budget
def test_no_message_does_more_than_be_answered_or_refused(
    application: InProcess, rpc: Rpc, share: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(path: str, message: bytes) -> None:
        await called(rpc, path, message)
        good = await rpc.call("/inference.GRPCInferenceService/ModelInfer", infer_request("affine"))
        assert floats(good.raw_output_contents) == [3, 5, 7, 9]

    def run(example: tuple[str, bytes]) -> None:
        application.run(check(*example))
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    try_all("rpc", messages(seeds_of(application)), run, share, many=800)
