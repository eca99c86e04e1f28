"""`tritonclient.grpc.aio`: gRPC by asyncio."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc.aio as api
from tritonclient.utils import InferenceServerException

from calls import Addresses, call, equal, refused, run
from triton import Triton, X, Y

IN_FLIGHT = 64


@contextmanager
def client(addresses: Addresses) -> Iterator[Triton]:
    with asyncio.Runner() as runner:

        async def connect() -> Any:
            return api.InferenceServerClient(addresses.grpc)

        async def result(awaitable: Awaitable[Any]) -> Any:
            return await awaitable

        connected = runner.run(connect())
        try:
            yield Triton(
                connected, addresses.grpc, api, lambda awaitable: runner.run(result(awaitable)), {"as_json": True}
            )
        finally:
            runner.run(connected.close())


@call
def compresses(triton: Triton) -> None:
    x = np.zeros(100_000, np.float32)
    for algorithm in (None, "gzip", "deflate"):
        equal(triton.numpy("m", {"x": x}, "y", compression_algorithm=algorithm), x + 2)


@call
def infers_many_at_a_time_with_one_input(triton: Triton) -> None:
    async def many() -> list[Any]:
        inputs = [triton.tensor("x", X)]
        answers = (triton.client.infer("m", inputs, request_id=str(number)) for number in range(IN_FLIGHT))
        return await asyncio.gather(*answers)

    assert triton.wait
    for number, result in enumerate(triton.wait(many())):
        equal(result.as_numpy("y"), Y)
        equal(result.get_response().id, str(number))


@call
def gives_up_by_itself(triton: Triton) -> None:
    with refused(InferenceServerException, "DEADLINE_EXCEEDED"):
        triton.numpy("slow", {"x": np.ones((1, 1), np.float32)}, "y", client_timeout=0.005)
    equal(triton.numpy("m", {"x": X}, "y"), Y)


@call
def has_its_timeout_kept_by_the_server(triton: Triton) -> None:
    async def hasty() -> list[Any]:
        inputs = [triton.tensor("x", np.ones((1, 1), np.float32))]
        answers = (triton.client.infer("slow", inputs, timeout=1000) for _ in range(8))
        return await asyncio.gather(*answers, return_exceptions=True)

    assert triton.wait
    errors = [each for each in triton.wait(hasty()) if isinstance(each, InferenceServerException)]
    equal({error.status() for error in errors}, {"StatusCode.DEADLINE_EXCEEDED"})
    assert errors, "none of 8 waited too long"


@call
def streams(triton: Triton) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(IN_FLIGHT):
            inputs = [triton.tensor("x", np.full(number + 1, number, np.float32))]
            yield {"model_name": "m", "inputs": inputs, "request_id": str(number)}
        yield {"model_name": "m", "inputs": [triton.tensor("z", X)]}

    async def stream() -> list[tuple[Any, Any]]:
        return [answer async for answer in triton.client.stream_infer(requests(), compression_algorithm="gzip")]

    assert triton.wait
    answers = triton.wait(stream())
    (error,) = (error for _, error in answers if error)
    assert "z" in error.message(), error
    results = {int(result.get_response().id): result for result, error in answers if not error}
    for number in range(IN_FLIGHT):
        equal(results[number].as_numpy("y"), np.full(number + 1, number, np.float32) / 2 + 2)


@call
def streams_a_sequence(triton: Triton) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(4):
            inputs = [triton.tensor("x", np.ones((1, 4), np.float32))]
            place = {"sequence_id": "of mine", "sequence_start": number == 0, "sequence_end": number == 3}
            yield {"model_name": "sum", "inputs": inputs, **place}

    async def stream() -> list[tuple[Any, Any]]:
        return [answer async for answer in triton.client.stream_infer(requests())]

    assert triton.wait
    answers = triton.wait(stream())
    equal([error.message() for _, error in answers if error], [])
    equal([result.as_numpy("y")[0, 0].item() for result, _ in answers], [1, 2, 3, 4])


@call
def cancels_a_stream(triton: Triton) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": "m", "inputs": [triton.tensor("x", X)]}
        await asyncio.Event().wait()

    async def stream() -> None:
        answers = triton.client.stream_infer(requests())
        result, error = await anext(answers)
        equal((error, result.as_numpy("y").tolist()), (None, Y.tolist()))
        answers.cancel()
        with refused(asyncio.CancelledError):
            await anext(answers)

    assert triton.wait
    triton.wait(stream())
    equal(triton.is_server_live(), True)


if __name__ == "__main__":
    run(client)
