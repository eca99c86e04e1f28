"""KServe's `InferenceRESTClient`, in both protocols, by httpx."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.errors import UnsupportedProtocol
from kserve.protocol.infer_type import RequestedOutput

from calls import Addresses, call, equal, refused, run_async

X = np.array([1, 2, 5], np.float32)
Y = [2.5, 3.0, 4.5]


class KServe:
    """A client of each protocol, and the URL that each of their calls wants."""

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"
        self.v1 = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
        self.v2 = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))


@asynccontextmanager
async def client(addresses: Addresses) -> AsyncIterator[KServe]:
    kserve = KServe(addresses.http)
    async with kserve.v1, kserve.v2:
        yield kserve


def request(model: str, *, binary: bool, **arrays: np.ndarray[Any, Any]) -> InferRequest:
    inputs = []
    for name, array in arrays.items():
        datatype = {"f": "FP32", "O": "BYTES"}[array.dtype.kind]
        inputs.append(InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=inputs)


@call
async def v2_finds_the_server_live_and_ready(kserve: KServe) -> None:
    equal(await kserve.v2.is_server_live(kserve.url), True)
    equal(await kserve.v2.is_server_ready(kserve.url), True)


@call
async def v1_finds_the_server_live(kserve: KServe) -> None:
    # Without the header it is shown the page.
    equal(await kserve.v1.is_server_live(kserve.url, headers={"Accept": "application/json"}), True)


@call
async def v2_finds_models_ready(kserve: KServe) -> None:
    equal(await kserve.v2.is_model_ready(kserve.url, "m"), True)
    equal(await kserve.v2.is_model_ready(kserve.url, "nowhere"), False)


@call
async def v2_infers_in_json(kserve: KServe) -> None:
    response = await kserve.v2.infer(kserve.url, request("m", binary=False, x=X), model_name="m")
    equal((response.model_name, response.outputs[0].shape, response.outputs[0].data), ("m", [3], Y))
    equal(response.outputs[0].as_numpy().tolist(), Y)


@call
async def v2_infers_from_a_dictionary(kserve: KServe) -> None:
    tensor = {"name": "x", "shape": [3], "datatype": "FP32", "data": X.tolist()}
    response = await kserve.v2.infer(kserve.url, {"inputs": [tensor]}, model_name="m")
    equal(response.outputs[0].data, Y)
    nested = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [[1, 2, 3, 4], [5, 6, 7, 8]]}
    response = await kserve.v2.infer(kserve.url, {"inputs": [nested]}, model_name="classes")
    equal(response.outputs[0].as_numpy().tolist(), [[3, 5, 7, 9], [11, 13, 15, 17]])


@call
async def v2_infers_in_binary(kserve: KServe) -> None:
    asked = request("m", binary=True, x=X)
    asked.parameters = {"binary_data_output": True}
    headers: dict[str, str] = {}
    response = await kserve.v2.infer(kserve.url, asked, model_name="m", response_headers=headers)
    equal(response.outputs[0].as_numpy().tolist(), Y)
    equal(headers["content-type"], "application/octet-stream")


@call
async def v2_infers_the_outputs_asked_for(kserve: KServe) -> None:
    ones = np.ones((1, 3), np.float32)
    asked = request("two", binary=True, left=ones, right=ones)
    asked.request_outputs = [RequestedOutput("total", {"binary_data": True})]
    response = await kserve.v2.infer(kserve.url, asked, model_name="two")
    equal([(output.name, output.as_numpy().tolist()) for output in response.outputs], [("total", [[6]])])


@call
async def v2_infers_strings(kserve: KServe) -> None:
    strings = np.array([[b"owl", b"yak"]], np.object_)
    for binary in (False, True):
        response = await kserve.v2.infer(kserve.url, request("words", binary=binary, x=strings), model_name="words")
        found = response.get_output_by_name("y").as_numpy()
        equal([[text.decode() if isinstance(text, bytes) else text for text in row] for row in found], [["owl", "yak"]])


@call
async def v2_has_its_id_again(kserve: KServe) -> None:
    asked = request("m", binary=False, x=X)
    asked.id = "of mine"
    equal((await kserve.v2.infer(kserve.url, asked, model_name="m")).id, "of mine")


@call
async def v2_is_told_what_is_wrong(kserve: KServe) -> None:
    with refused(httpx.HTTPStatusError, "400", "z"):
        await kserve.v2.infer(kserve.url, request("m", binary=True, z=X), model_name="m")
    with refused(httpx.HTTPStatusError, "404", "nowhere"):
        await kserve.v2.infer(kserve.url, request("nowhere", binary=True, x=X), model_name="nowhere")


@call
async def v2_gives_up_by_itself(kserve: KServe) -> None:
    one = np.ones((4, 1), np.float32)
    with refused(httpx.ReadTimeout):
        await kserve.v2.infer(
            kserve.url, request("slow", binary=True, x=one), model_name="slow", timeout=httpx.Timeout(60, read=0.005)
        )


@call
async def v1_predicts(kserve: KServe) -> None:
    response = await kserve.v1.infer(kserve.url, {"instances": X.tolist()}, model_name="m")
    equal(response, {"predictions": Y})


@call
async def v1_is_told_what_is_wrong(kserve: KServe) -> None:
    with refused(httpx.HTTPStatusError, "400", "expected type: float"):
        await kserve.v1.infer(kserve.url, {"instances": ["a"]}, model_name="m")
    with refused(httpx.HTTPStatusError, "404", "nowhere"):
        await kserve.v1.infer(kserve.url, {"instances": [1.0]}, model_name="nowhere")


@call
async def v1_is_told_that_nothing_explains(kserve: KServe) -> None:
    with refused(httpx.HTTPStatusError, "400", ":explain"):
        await kserve.v1.explain(kserve.url, "m", {"instances": [1.0]})
    with refused(UnsupportedProtocol):
        await kserve.v2.explain(kserve.url, "m", {"instances": [1.0]})


@call
async def v1_finds_models_ready(kserve: KServe) -> None:
    equal(await kserve.v1.is_model_ready(kserve.url, "m"), True)
    with refused(httpx.HTTPStatusError, "404", "nowhere"):
        await kserve.v1.is_model_ready(kserve.url, "nowhere")


if __name__ == "__main__":
    run_async(client)
