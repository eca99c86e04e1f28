"""`tritonclient.grpc`: gRPC by threads."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as api
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from calls import Addresses, call, equal, refused, run
from triton import Triton, X, Y

IN_FLIGHT = 64
PATIENCE = 60


@contextmanager
def client(addresses: Addresses) -> Iterator[Triton]:
    with api.InferenceServerClient(addresses.grpc) as connected:
        yield Triton(connected, addresses.grpc, api, as_json={"as_json": True})


class Answers:
    """What a callback is given: results and errors."""

    def __init__(self) -> None:
        self.queue: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def __call__(self, result: Any, error: Any) -> None:
        self.queue.put((result, error))

    def take(self, count: int) -> list[tuple[Any, Any]]:
        return [self.queue.get(timeout=PATIENCE) for _ in range(count)]


@call
def reads_messages_too(triton: Triton) -> None:
    equal(triton.get_server_metadata().name, "litepool")
    equal(list(triton.get_model_metadata("m").versions), ["1"])
    equal(triton.get_model_config("m").config.name, "m")
    assert "m" in {model.name for model in triton.get_model_repository_index().models}
    assert triton.get_inference_statistics("m").model_stats[0].name == "m"
    output = triton.infer("m", [triton.tensor("x", X)]).get_output("y")
    equal((output.datatype, list(output.shape)), ("FP32", [3]))


@call
def keeps_its_connection_alive(triton: Triton) -> None:
    options = api.KeepAliveOptions(
        keepalive_time_ms=1000, keepalive_timeout_ms=5000, keepalive_permit_without_calls=True
    )
    with api.InferenceServerClient(triton.address, keepalive_options=options) as other:
        equal(other.is_server_live(), True)


@call
def compresses(triton: Triton) -> None:
    x = np.zeros(100_000, np.float32)
    for algorithm in (None, "gzip", "deflate"):
        equal(triton.numpy("m", {"x": x}, "y", compression_algorithm=algorithm), x + 2)


@call
def infers_many_at_a_time_with_one_input(triton: Triton) -> None:
    answers = Answers()
    inputs = [triton.tensor("x", X)]
    for number in range(IN_FLIGHT):
        triton.async_infer("m", inputs, answers, request_id=str(number), compression_algorithm="gzip")
    results = answers.take(IN_FLIGHT)
    equal([error.message() for _, error in results if error], [])
    equal(sorted(int(result.get_response().id) for result, _ in results), list(range(IN_FLIGHT)))
    for result, _ in results:
        equal(result.as_numpy("y"), Y)


@call
def is_told_of_a_wrong_request_among_many(triton: Triton) -> None:
    answers = Answers()
    triton.async_infer("m", [triton.tensor("z", X)], answers)
    ((result, error),) = answers.take(1)
    equal((result, error.status()), (None, "StatusCode.INVALID_ARGUMENT"))
    assert "z" in error.message(), error


@call
def gives_up_by_itself(triton: Triton) -> None:
    inputs = [triton.tensor("x", np.ones((1, 1), np.float32))]
    with refused(InferenceServerException, "DEADLINE_EXCEEDED"):
        triton.infer("slow", inputs, client_timeout=0.005)
    answers = Answers()
    triton.async_infer("slow", inputs, answers, client_timeout=0.005)
    ((_, error),) = answers.take(1)
    equal(error.status(), "StatusCode.DEADLINE_EXCEEDED")
    equal(triton.is_server_live(client_timeout=PATIENCE), True)


@call
def cancels(triton: Triton) -> None:
    answers = Answers()
    context = triton.async_infer("slow", [triton.tensor("x", np.ones((1, 1), np.float32))], answers)
    context.cancel()
    ((_, error),) = answers.take(1)
    equal(error.status(), "StatusCode.CANCELLED")
    equal(triton.numpy("m", {"x": X}, "y"), Y)


@call
def has_its_timeout_kept_by_the_server(triton: Triton) -> None:
    answers = Answers()
    inputs = [triton.tensor("x", np.ones((1, 1), np.float32))]
    for _ in range(8):
        triton.async_infer("slow", inputs, answers, timeout=1000)
    errors = [error for _, error in answers.take(8) if error]
    equal({error.status() for error in errors}, {"StatusCode.DEADLINE_EXCEEDED"})
    assert errors, "none of 8 waited too long"


@call
def sees_the_status_of_an_error(triton: Triton) -> None:
    with refused(InferenceServerException, "[StatusCode.NOT_FOUND]", "nowhere"):
        triton.numpy("nowhere", {"x": X}, "y")
    with refused(InferenceServerException, "[StatusCode.INVALID_ARGUMENT]", "FP64"):
        triton.numpy("m", {"x": X.astype(np.float64)}, "y")


# Streams


@call
def streams(triton: Triton) -> None:
    answers = Answers()
    triton.start_stream(answers, compression_algorithm="gzip")
    for number in range(IN_FLIGHT):
        x = np.full(number + 1, number, np.float32)
        triton.async_stream_infer("m", [triton.tensor("x", x)], request_id=str(number))
    results = answers.take(IN_FLIGHT)
    triton.stop_stream()
    equal([error.message() for _, error in results if error], [])
    # Triton answers a stream's requests as they are done, and names each.
    by_id = {int(result.get_response().id): result for result, _ in results}
    for number in range(IN_FLIGHT):
        equal(by_id[number].as_numpy("y"), np.full(number + 1, number, np.float32) / 2 + 2)


@call
def streams_on_after_a_wrong_request(triton: Triton) -> None:
    answers = Answers()
    triton.start_stream(answers)
    triton.async_stream_infer("m", [triton.tensor("z", X)])
    ((result, error),) = answers.take(1)
    equal(result, None)
    assert "z" in error.message(), error
    triton.async_stream_infer("m", [triton.tensor("x", X)], enable_empty_final_response=True)
    ((result, error),) = answers.take(1)
    equal((error, result.as_numpy("y").tolist()), (None, Y.tolist()))
    equal(result.get_response().parameters["triton_final_response"].bool_param, True)
    triton.stop_stream()


@call
def streams_a_sequence(triton: Triton) -> None:
    answers = Answers()
    inputs = [triton.tensor("x", np.ones((1, 4), np.float32))]
    triton.start_stream(answers)
    for number in range(4):
        place = {"sequence_id": 77, "sequence_start": number == 0, "sequence_end": number == 3}
        triton.async_stream_infer("sum", inputs, request_id=str(number), **place)
    results = answers.take(4)
    triton.stop_stream()
    equal([error.message() for _, error in results if error], [])
    equal(
        [(result.get_response().id, result.as_numpy("y")[0, 0].item()) for result, _ in results],
        [("0", 1.0), ("1", 2.0), ("2", 3.0), ("3", 4.0)],
    )


@call
def gives_up_a_stream(triton: Triton) -> None:
    answers = Answers()
    inputs = [triton.tensor("x", np.ones((1, 1), np.float32))]
    triton.start_stream(answers, stream_timeout=0.01)
    with suppress(InferenceServerException):  # where the stream is past its time already, as on a busy machine
        triton.async_stream_infer("slow", inputs)
    ((_, error),) = answers.take(1)
    equal(error.status(), "StatusCode.DEADLINE_EXCEEDED")
    triton.stop_stream()
    triton.start_stream(answers)
    triton.async_stream_infer("slow", inputs)
    triton.stop_stream(cancel_requests=True)
    ((_, error),) = answers.take(1)
    equal(error.status(), "StatusCode.CANCELLED")
    equal(triton.is_server_live(), True)


# What the client's messages can say and its methods do not


def stub(triton: Triton) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(triton.client._channel)


CONTENTS = {
    "bool": "bool_contents", "string": "bytes_contents", "float32": "fp32_contents", "float64": "fp64_contents",
    **{f"int{bits}": "int_contents" for bits in (8, 16, 32)}, "int64": "int64_contents",
    **{f"uint{bits}": "uint_contents" for bits in (8, 16, 32)}, "uint64": "uint64_contents",
}  # fmt: skip


def typed(name: str, datatype: str, shape: list[int], field: str, values: list[Any]) -> Any:
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    getattr(tensor.contents, field).extend(values)
    return tensor


@call
def infers_with_typed_contents(triton: Triton) -> None:
    request = service_pb2.ModelInferRequest(
        model_name="m", inputs=[typed("x", "FP32", [3], "fp32_contents", X.tolist())]
    )
    answer = stub(triton).ModelInfer(request)
    (output,) = answer.outputs
    equal((output.name, output.datatype, list(output.shape)), ("y", "FP32", [3]))
    raw = list(answer.raw_output_contents)
    found = np.frombuffer(raw[0], np.float32) if raw else np.array(output.contents.fp32_contents, np.float32)
    equal(found, Y)


@call
def is_told_which_contents_do_not_fit(triton: Triton) -> None:
    right = typed("x", "FP32", [3], "fp32_contents", X.tolist())
    fewer = typed("x", "FP32", [3], "fp32_contents", [1.0, 2.0])
    other = typed("x", "FP32", [3], "int_contents", [1, 2, 3])
    for inputs, raw in (([fewer], []), ([other], []), ([right], [X.tobytes()]), ([right], [b"", b""])):
        request = service_pb2.ModelInferRequest(model_name="m", inputs=inputs, raw_input_contents=raw)
        with refused(grpc.RpcError, "INVALID_ARGUMENT", "x"):
            stub(triton).ModelInfer(request)
    for raw in ([X.tobytes()[:-1]], [X.tobytes() + b"\0"], [b""], [X.tobytes(), b""]):
        tensor = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[3])
        request = service_pb2.ModelInferRequest(model_name="m", inputs=[tensor], raw_input_contents=raw)
        with refused(grpc.RpcError, "INVALID_ARGUMENT"):
            stub(triton).ModelInfer(request)


if __name__ == "__main__":
    run(client)
