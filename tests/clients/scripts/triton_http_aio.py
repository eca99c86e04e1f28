"""`tritonclient.http.aio`: HTTP by aiohttp, which always says that it takes gzip and deflate."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.http.aio as api
from tritonclient.utils import InferenceServerException

from calls import Addresses, call, equal, refused, run
from triton import Triton, X, Y

IN_FLIGHT = 64


@contextmanager
def client(addresses: Addresses) -> Iterator[Triton]:
    with asyncio.Runner() as runner:

        async def connect() -> Any:
            return api.InferenceServerClient(addresses.http, conn_limit=16)

        async def result(awaitable: Awaitable[Any]) -> Any:
            return await awaitable

        connected = runner.run(connect())
        try:
            yield Triton(connected, addresses.http, api, lambda awaitable: runner.run(result(awaitable)))
        finally:
            runner.run(connected.close())


@call
def infers_in_json(triton: Triton) -> None:
    result = triton.infer(
        "m", [triton.tensor("x", X, binary_data=False)], outputs=[triton.output("y", binary_data=False)]
    )
    equal(result.as_numpy("y"), Y)
    equal(result.get_output("y")["data"], Y.tolist())


@call
def compresses_both_ways(triton: Triton) -> None:
    x = np.zeros(100_000, np.float32)
    for request in (None, "gzip", "deflate"):
        for response in (None, "gzip", "deflate"):
            options = {"request_compression_algorithm": request, "response_compression_algorithm": response}
            equal(triton.numpy("m", {"x": x}, "y", **options), x + 2)


@call
def infers_many_at_a_time_with_one_input(triton: Triton) -> None:
    async def many() -> list[Any]:
        inputs = [triton.tensor("x", X)]
        answers = (triton.client.infer("m", inputs, request_id=str(number)) for number in range(IN_FLIGHT))
        return await asyncio.gather(*answers)

    assert triton.wait
    for number, result in enumerate(triton.wait(many())):
        equal(result.as_numpy("y"), Y)
        equal(result.get_response()["id"], str(number))


@call
def gives_up_by_itself(triton: Triton) -> None:
    async def hasty() -> None:
        inputs = [triton.tensor("x", np.ones((4, 1), np.float32))]
        await asyncio.wait_for(triton.client.infer("slow", inputs), 0.005)

    assert triton.wait
    with refused(TimeoutError):
        triton.wait(hasty())
    equal(triton.numpy("m", {"x": X}, "y"), Y)


@call
def has_its_timeout_kept_by_the_server(triton: Triton) -> None:
    async def hasty() -> list[Any]:
        inputs = [triton.tensor("x", np.ones((1, 1), np.float32))]
        answers = (triton.client.infer("slow", inputs, timeout=1000) for _ in range(8))
        return await asyncio.gather(*answers, return_exceptions=True)

    assert triton.wait
    errors = [each for each in triton.wait(hasty()) if isinstance(each, InferenceServerException)]
    equal({error.status() for error in errors}, {"503"})
    assert errors, "none of 8 waited too long"


@call
def sends_bodies_that_it_only_makes(triton: Triton) -> None:
    body, length = triton.generate_request_body([triton.tensor("x", X)])

    async def send() -> Any:
        headers = {"Inference-Header-Content-Length": str(length)}
        return await triton.client._post("v2/models/m/infer", body, headers, None)

    assert triton.wait
    answer = triton.wait(send())
    equal(answer.status, 200)
    head = int(answer.headers["Inference-Header-Content-Length"])
    encoding = answer.headers.get("Content-Encoding")
    result = triton.parse_response_body(triton.wait(answer.read()), header_length=head, content_encoding=encoding)
    equal(result.as_numpy("y"), Y)


if __name__ == "__main__":
    run(client)
