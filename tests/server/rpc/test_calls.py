"""A hot call as one that is awaited, over whichever road."""

import asyncio
from typing import Any

import grpc
import pytest

from app.dataplane import Caller
from app.errors import NotFound
from app.protocols import protobuf
from app.protocols.call import Answer
from app.runtime.job import Job
from app.server.rpc.calls import awaited
from app.server.rpc.messages import new
from tests.server.rpc.served import INFERENCE, PREDICTION, Rpc, floats, infer_request, predict_request


class Begun:
    """A `Start` that answers nothing of itself."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.callers: list[Caller] = []

    def __call__(self, message: bytes, seconds: float | None, caller: Caller) -> Job:
        self.callers.append(caller)
        self.jobs.append(Job())
        return self.jobs[-1]


def test_an_answer_in_pieces_is_put_together() -> None:
    async def run() -> None:
        begun = Begun()
        call = asyncio.ensure_future(awaited(begun)(b"", lambda: None))
        await asyncio.sleep(0)
        begun.callers[0].answer(Answer((b"one", memoryview(b"two")), ""), "")
        assert await call == b"onetwo"

    asyncio.run(run())


def test_a_call_that_is_cancelled_is_abandoned() -> None:
    async def run() -> None:
        begun = Begun()
        call = asyncio.ensure_future(awaited(begun)(b"", lambda: None))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait((call,))
        assert begun.jobs[0].abandoned
        begun.callers[0].answer(b"too late", "")

    asyncio.run(run())


def test_an_error_is_raised() -> None:
    async def run() -> None:
        begun = Begun()
        call = asyncio.ensure_future(awaited(begun)(b"", lambda: None))
        await asyncio.sleep(0)
        begun.callers[0].refuse(NotFound("no"))
        with pytest.raises(NotFound):
            await call

    asyncio.run(run())


@pytest.mark.parametrize("coding", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_requests_may_be_compressed(rpc: Rpc, coding: grpc.Compression) -> None:
    answer = rpc.served.run(
        rpc.call(f"{INFERENCE}/ModelInfer", infer_request("affine", [[0] * 4] * 999), compression=coding)
    )

    assert floats(answer.raw_output_contents) == [1] * 4 * 999


@pytest.mark.parametrize("coding", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_what_a_request_inflates_to_has_the_same_limit(rpc: Rpc, coding: grpc.Compression) -> None:
    zeros = protobuf.write_bytes(1, b"affine") + protobuf.write_bytes(7, bytes(64 << 20))
    code, _ = rpc.served.run(rpc.refused(f"{INFERENCE}/ModelInfer", zeros, compression=coding))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_answer_may_be_larger_than_the_largest_request(rpc: Rpc) -> None:
    request = predict_request("both", [[1]] * 200_000, signature="scores")

    answer = rpc.served.run(rpc.call(f"{PREDICTION}/Predict", request))

    assert answer.ByteSize() > 1 << 20
    assert len(answer.outputs["s"].float_val) == 600_000


def test_many_calls_at_once_have_their_own_answers(rpc: Rpc) -> None:
    async def run() -> list[float]:
        calls = [rpc.call(f"{INFERENCE}/ModelInfer", infer_request("affine", [[number] * 4])) for number in range(200)]
        return [floats(answer.raw_output_contents)[0] for answer in await asyncio.gather(*calls)]

    assert rpc.served.run(run()) == list(range(1, 400, 2))


def test_a_deadline_is_the_callers(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    dataplane = rpc.served.services.dataplane
    run = dataplane.run

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.append(named["limits"])
        return run(*arguments, **named)

    monkeypatch.setattr(dataplane, "run", watched)
    rpc.served.run(rpc.call(f"{PREDICTION}/Predict", predict_request("affine"), timeout=9))
    rpc.served.run(rpc.call(f"{PREDICTION}/Predict", predict_request("affine")))

    assert 8e9 < seen[0].timeout_ns < 10e9
    assert seen[1].timeout_ns is None


def test_a_bug_is_told_by_a_number_and_without_a_trace(
    rpc: Rpc, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("app.server.inference_info.server_metadata", broken)
    code, text = rpc.served.run(rpc.refused(f"{INFERENCE}/ServerMetadata", b""))

    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in text
    assert text.rpartition(" ")[2] in caplog.text
    assert "RuntimeError: secret" in caplog.text


def test_more_than_a_thousand_calls_may_come_at_once(rpc: Rpc) -> None:
    async def run() -> set[bytes]:
        return set(await asyncio.gather(*(rpc.call(f"{INFERENCE}/ServerLive", b"") for _ in range(1500))))

    assert rpc.served.run(run()) == {b"\x08\x01"}


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata"])
def test_a_call_may_have_as_much_metadata_as_the_lane_lets_pass(rpc: Rpc, method: str) -> None:
    request = (
        infer_request("affine") if method == "ModelInfer" else new("inference.ModelMetadataRequest", name="affine")
    )
    metadata = [(f"x-{number}", "v" * 1000) for number in range(55)]

    # What gRPC allows of itself is 8 KiB, and at times more.
    for _ in range(5):
        rpc.served.run(rpc.call(f"{INFERENCE}/{method}", request, metadata=metadata))
