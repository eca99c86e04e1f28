"""Triton's stream of requests, each answered in its turn."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from app.server.rpc.messages import new
from tests.server.inprocess import InProcess
from tests.server.rpc.served import INFERENCE, LANE, Rpc, floats, infer_request, serving


@pytest.fixture(scope="module")
def rpc(application: InProcess, folder: Path) -> Iterator[Rpc]:
    """The lane, which alone has such calls."""
    stack = AsyncExitStack()
    yield application.run(stack.enter_async_context(serving(application, LANE, folder)))
    application.run(stack.aclose())


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
