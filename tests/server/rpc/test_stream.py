"""Triton's stream of requests, each answered in its turn."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from app.dataplane import Caller
from app.errors import InvalidArgument, Unavailable
from app.runtime.job import Job
from app.server.rpc import stream
from app.server.rpc.messages import new
from app.server.rpc.stream import streaming
from tests.server.rpc.served import INFERENCE, Rpc, floats, infer_request

FINAL = b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01"
"""What every answer ends with."""


async def answers(rpc: Rpc, *requests: bytes) -> list[Any]:
    call = rpc.channel.stream_stream(f"{INFERENCE}/ModelStreamInfer")()
    for request in requests:
        await call.write(request)
    await call.done_writing()
    found = []
    async for message in call:
        answer = new("inference.ModelStreamInferResponse")
        answer.ParseFromString(message)
        found.append(answer)
    assert await call.code() is grpc.StatusCode.OK
    return found


def test_requests_are_answered_in_their_order(rpc: Rpc) -> None:
    requests = [infer_request("affine", [[number] * 4], id=str(number)).SerializeToString() for number in range(100)]

    found = rpc.served.run(answers(rpc, *requests))

    assert [floats(answer.infer_response.raw_output_contents)[0] for answer in found] == list(range(1, 200, 2))
    assert [answer.infer_response.id for answer in found] == [str(number) for number in range(100)]
    assert not any(answer.error_message for answer in found)


def test_one_that_is_refused_says_so_and_the_others_are_answered(rpc: Rpc) -> None:
    good = infer_request("affine").SerializeToString()
    unknown = infer_request("none", id="second").SerializeToString()

    found = rpc.served.run(answers(rpc, good, unknown, b"\x0a\x05ab", good))

    assert [bool(answer.error_message) for answer in found] == [False, True, True, False]
    assert "none" in found[1].error_message
    assert found[1].infer_response.id == "second"
    assert found[2].infer_response.id == ""


def test_every_answer_says_that_it_is_the_last_to_its_request(rpc: Rpc) -> None:
    asking = infer_request("affine", [[1] * 4], [("triton_enable_empty_final_response", {"bool_param": True})])
    unknown = infer_request("none")

    found = rpc.served.run(answers(rpc, *(request.SerializeToString() for request in (asking, unknown))))

    assert [bool(answer.error_message) for answer in found] == [False, True]
    for answer in found:
        assert answer.infer_response.parameters["triton_final_response"].bool_param


def test_a_stream_without_requests_has_no_answers(rpc: Rpc) -> None:
    assert rpc.served.run(answers(rpc)) == []


def test_a_sequence_goes_over_one_stream(rpc: Rpc) -> None:
    def step(number: int) -> bytes:
        flags = {"sequence_start": number == 0, "sequence_end": number == 4}
        named: dict[str, Any] = {name: {"bool_param": value} for name, value in flags.items()}
        parameters = {"sequence_id": {"string_param": "stream"}, **named}
        message: bytes = infer_request("state", [[1, 1, 1, 1]], parameters.items()).SerializeToString()
        return message

    found = rpc.served.run(answers(rpc, *map(step, range(5))))

    assert [floats(answer.infer_response.raw_output_contents)[0] for answer in found] == [1, 2, 3, 4, 5]


class Begun:
    """A `Start` that answers nothing of itself."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.callers: list[Caller] = []
        self.messages: list[bytes] = []

    def __call__(self, message: bytes, seconds: float | None, caller: Caller) -> Job:
        self.messages.append(message)
        self.callers.append(caller)
        self.jobs.append(Job())
        return self.jobs[-1]


class Client:
    """Messages that come when they are put."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def messages(self) -> AsyncIterator[bytes]:
        while (message := await self.queue.get()) is not None:
            yield message


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_answers_wait_for_those_before_them() -> None:
    async def run() -> None:
        begun, client = Begun(), Client()
        for message in (b"one", b"two", None):
            client.queue.put_nowait(message)
        found = aiter(streaming(begun, asyncio.Event())(client.messages(), lambda: None))
        first = asyncio.ensure_future(anext(found))
        await _settle()
        assert begun.messages == [b"one", b"two"], "the second does not wait for the first"
        begun.callers[1].answer(b"2", "")
        await _settle()
        assert not first.done()
        begun.callers[0].answer(b"1", "")
        assert await first == b"\x12\x1e1" + FINAL
        assert [message async for message in found] == [b"\x12\x1e2" + FINAL]
        assert not any(job.abandoned for job in begun.jobs)

    asyncio.run(run())


def test_only_so_many_are_under_way_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_AHEAD", 2)

    async def run() -> None:
        begun, client = Begun(), Client()
        for number in range(5):
            client.queue.put_nowait(b"%d" % number)
        found = aiter(streaming(begun, asyncio.Event())(client.messages(), lambda: None))
        first = asyncio.ensure_future(anext(found))
        await _settle()
        assert len(begun.messages) == 2
        begun.callers[0].answer(b"", "")
        await first
        second = asyncio.ensure_future(anext(found))
        await _settle()
        assert len(begun.messages) == 3
        second.cancel()
        await asyncio.wait((second,))

    asyncio.run(run())


def test_when_the_client_goes_nobody_waits_for_what_is_under_way() -> None:
    async def run() -> None:
        begun, client = Begun(), Client()
        client.queue.put_nowait(b"one")
        client.queue.put_nowait(b"two")
        found = aiter(streaming(begun, asyncio.Event())(client.messages(), lambda: None))
        first = asyncio.ensure_future(anext(found))
        await _settle()
        first.cancel()
        await asyncio.wait((first,))
        assert [job.abandoned for job in begun.jobs] == [True, True]

    asyncio.run(run())


def test_at_the_end_what_has_begun_is_answered_and_no_more_is_taken() -> None:
    async def run() -> None:
        begun, client, ending = Begun(), Client(), asyncio.Event()
        client.queue.put_nowait(b"one")
        found = aiter(streaming(begun, ending)(client.messages(), lambda: None))
        first = asyncio.ensure_future(anext(found))
        await _settle()
        ending.set()
        await _settle()
        client.queue.put_nowait(b"late")
        begun.callers[0].refuse(InvalidArgument("no"))
        assert await first == b"\x0a\x02no\x12\x1f\x1a\x00" + FINAL
        with pytest.raises(Unavailable, match="shutting down"):
            await anext(found)
        assert begun.messages == [b"one"]

    asyncio.run(run())
