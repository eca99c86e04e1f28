"""KServe's `InferenceGRPCClient`, which sends typed contents unless told to send raw ones."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

from calls import Addresses, call, equal, refused, run_async

X = np.array([1, 2, 5], np.float32)
Y = [2.5, 3.0, 4.5]


@asynccontextmanager
async def client(addresses: Addresses) -> AsyncIterator[InferenceGRPCClient]:
    async with InferenceGRPCClient(addresses.grpc) as connected:
        yield connected


def request(model: str, *, binary: bool, **arrays: np.ndarray[Any, Any]) -> InferRequest:
    inputs = []
    for name, array in arrays.items():
        datatype = {"float32": "FP32", "float16": "FP16", "object": "BYTES", "bool": "BOOL"}[array.dtype.name]
        inputs.append(InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=inputs)


@call
async def finds_the_server_live_and_ready(kserve: InferenceGRPCClient) -> None:
    equal(await kserve.is_server_live(), True)
    equal(await kserve.is_server_ready(), True)


@call
async def finds_models_ready(kserve: InferenceGRPCClient) -> None:
    equal(await kserve.is_model_ready("m"), True)
    equal(await kserve.is_model_ready("nowhere"), False)


@call
async def infers_with_typed_and_raw_contents(kserve: InferenceGRPCClient) -> None:
    for binary in (False, True):
        response = await kserve.infer(request("m", binary=binary, x=X))
        (output,) = response.outputs
        equal((response.model_name, output.name, list(output.shape), output.datatype), ("m", "y", [3], "FP32"))
        equal(output.as_numpy().tolist(), Y)


@call
async def infers_several_tensors(kserve: InferenceGRPCClient) -> None:
    ones = np.ones((2, 3), np.float32)
    for binary in (False, True):
        response = await kserve.infer(request("two", binary=binary, left=ones, right=ones))
        equal(response.get_output_by_name("total").as_numpy().tolist(), [[6], [6]])
        equal(response.get_output_by_name("difference").as_numpy().tolist(), [[0, 0, 0], [0, 0, 0]])


@call
async def infers_strings_and_booleans(kserve: InferenceGRPCClient) -> None:
    # As typed contents the client sends UTF-8 alone.
    for binary, text in ((False, "grüß".encode()), (True, b"\xff")):
        response = await kserve.infer(request("words", binary=binary, x=np.array([[b"owl", text]], np.object_)))
        equal(response.get_output_by_name("y").as_numpy().tolist(), [[b"owl", text]])
        response = await kserve.infer(request("places", binary=binary, x=np.array([False, True, False, True])))
        equal(response.get_output_by_name("y").as_numpy().tolist(), [[1], [3]])


@call
async def has_its_id_again(kserve: InferenceGRPCClient) -> None:
    asked = request("m", binary=True, x=X)
    asked.id = "of mine"
    equal((await kserve.infer(asked, headers=[("x-of-mine", "1")])).id, "of mine")


@call
async def is_told_what_is_wrong(kserve: InferenceGRPCClient) -> None:
    logging.disable()
    with refused(grpc.RpcError, "INVALID_ARGUMENT", "z"):
        await kserve.infer(request("m", binary=True, z=X))
    with refused(grpc.RpcError, "NOT_FOUND", "nowhere"):
        await kserve.infer(request("nowhere", binary=True, x=X))


@call
async def gives_up_by_itself(kserve: InferenceGRPCClient) -> None:
    logging.disable()
    with refused(grpc.RpcError, "DEADLINE_EXCEEDED"):
        await kserve.infer(request("slow", binary=True, x=np.ones((1, 1), np.float32)), timeout=0.005)


if __name__ == "__main__":
    run_async(client)
