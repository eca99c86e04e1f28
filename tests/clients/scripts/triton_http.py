"""`tritonclient.http`: HTTP by gevent."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import tritonclient.http as api
from tritonclient.utils import InferenceServerException

from calls import Addresses, call, equal, refused, run
from triton import TYPES, Triton, X, Y

HEAD_LENGTH = "Inference-Header-Content-Length"
IN_FLIGHT = 32


@contextmanager
def client(addresses: Addresses) -> Iterator[Triton]:
    with api.InferenceServerClient(addresses.http, concurrency=8) as connected:
        yield Triton(connected, addresses.http, api)


@call
def infers_in_json(triton: Triton) -> None:
    for binary in ((False, False), (False, True), (True, False)):
        inputs = [triton.tensor("x", X, binary_data=binary[0])]
        result = triton.infer("m", inputs, outputs=[triton.output("y", binary_data=binary[1])])
        equal(result.as_numpy("y"), Y)
        equal("data" in result.get_output("y"), not binary[1])
    result = triton.infer("m", [triton.tensor("x", X, binary_data=False)])
    equal(result.as_numpy("y"), Y)
    equal(result.get_output("y")["parameters"], {"binary_data_size": 12})


@call
def mixes_json_and_binary_tensors(triton: Triton) -> None:
    left, right = np.array([[1, 2, 3]], np.float32), np.array([[1, 1, 1]], np.float32)
    inputs = [triton.tensor("left", left, binary_data=False), triton.tensor("right", right)]
    outputs = [triton.output("total"), triton.output("difference", binary_data=False)]
    for given in (inputs, inputs[::-1]):
        for asked in (outputs, outputs[::-1]):
            result = triton.infer("two", given, outputs=asked)
            equal([output["name"] for output in result.get_response()["outputs"]], [each.name() for each in asked])
            equal(result.as_numpy("total"), [[9]])
            equal(result.as_numpy("difference"), [[0, 1, 2]])


@call
def infers_every_type_in_json_that_json_can_hold(triton: Triton) -> None:
    # The client writes infinity as a token, which Triton reads.
    inputs = [triton.tensor(name, array, binary_data=name == "float16") for name, array in TYPES.items()]
    outputs = [triton.output(f"same_{name}", binary_data=name == "float16") for name in TYPES]
    result = triton.infer("types", inputs, outputs=outputs)
    for name, array in TYPES.items():
        expected = array if name != "string" else np.array([["owl", ""]], np.object_)
        equal(result.as_numpy(f"same_{name}"), expected)


@call
def is_told_that_json_holds_no_float16(triton: Triton) -> None:
    for given, asked in ((False, True), (True, False)):
        inputs = [triton.tensor(name, array, binary_data=name != "float16" or given) for name, array in TYPES.items()]
        with refused(InferenceServerException, "float16", "FP16", "binary"):
            triton.infer("types", inputs, outputs=[triton.output("same_float16", binary_data=asked)])


@call
def infers_the_best_classes_in_json(triton: Triton) -> None:
    inputs = [triton.tensor("x", np.array([[1, 4, 2, 3]], np.float32))]
    result = triton.infer("classes", inputs, outputs=[triton.output("y", binary_data=False, class_count=1)])
    equal((result.get_output("y")["datatype"], result.get_output("y")["shape"]), ("BYTES", [1, 1]))
    ((text,),) = result.as_numpy("y")
    equal(text.split(":")[1:], ["1", "dog"])


@call
def compresses_both_ways(triton: Triton) -> None:
    x = np.zeros(100_000, np.float32)
    for request in (None, "gzip", "deflate"):
        for response in (None, "gzip", "deflate"):
            options = {"request_compression_algorithm": request, "response_compression_algorithm": response}
            equal(triton.numpy("m", {"x": x}, "y", **options), x + 2)
            inputs = [triton.tensor("x", X, binary_data=False)]
            outputs = [triton.output("y", binary_data=False)]
            equal(triton.infer("m", inputs, outputs=outputs, **options).as_numpy("y"), Y)


@call
def infers_many_at_a_time_with_one_input(triton: Triton) -> None:
    inputs = [triton.tensor("x", X)]
    requests = [triton.async_infer("m", inputs, request_id=str(number)) for number in range(IN_FLIGHT)]
    for number, request in enumerate(requests):
        result = request.get_result()
        equal(result.as_numpy("y"), Y)
        equal(result.get_response()["id"], str(number))


@call
def infers_many_different_ones_at_a_time(triton: Triton) -> None:
    arrays = [np.arange(number + 1, dtype=np.float32) for number in range(IN_FLIGHT)]
    options = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
    requests = [triton.async_infer("m", [triton.tensor("x", array)], **options) for array in arrays]
    for array, request in zip(arrays, requests, strict=True):
        equal(request.get_result(timeout=30).as_numpy("y"), array / 2 + 2)


@call
def is_told_of_a_wrong_request_among_many(triton: Triton) -> None:
    wrong = triton.async_infer("m", [triton.tensor("z", X)])
    right = triton.async_infer("m", [triton.tensor("x", X)])
    with refused(InferenceServerException, "[400]", "z"):
        wrong.get_result()
    equal(right.get_result().as_numpy("y"), Y)


@call
def gives_up_by_itself(triton: Triton) -> None:
    # Enough of them that some wait for others, whatever the machine.
    inputs = [triton.tensor("x", np.ones((1, 1), np.float32))]
    requests = [triton.async_infer("slow", inputs) for _ in range(8)]
    with refused(InferenceServerException, "failed to obtain"):
        requests[-1].get_result(timeout=0.001)
    for request in requests:
        equal(request.get_result().as_numpy("y").shape, (1, 1))


@call
def has_its_timeout_kept_by_the_server(triton: Triton) -> None:
    inputs = [triton.tensor("x", np.ones((1, 1), np.float32))]
    requests = [triton.async_infer("slow", inputs, timeout=1000) for _ in range(8)]
    expired = 0
    for request in requests:
        try:
            request.get_result()
        except InferenceServerException as error:
            equal(error.status(), "503")
            expired += 1
    assert expired, "none of 8 waited too long"


@call
def gives_up_a_slow_network(triton: Triton) -> None:
    with api.InferenceServerClient(triton.address, network_timeout=0.001) as hasty:
        inputs = [triton.tensor("x", np.ones((4, 1), np.float32))]
        with refused(Exception, "timed out"):
            hasty.infer("slow", inputs)
    equal(triton.is_server_live(), True)


@call
def sends_bodies_that_it_only_makes(triton: Triton) -> None:
    outputs = [triton.output("y")]
    body, length = triton.generate_request_body([triton.tensor("x", X)], outputs=outputs, request_id="7")
    connection = http.client.HTTPConnection(triton.address)
    connection.request("POST", "/v2/models/m/infer", body, {HEAD_LENGTH: str(length)})
    answer = connection.getresponse()
    equal((answer.status, answer.getheader("Content-Type")), (200, "application/octet-stream"))
    head = answer.getheader(HEAD_LENGTH)
    assert head is not None
    result = triton.parse_response_body(answer.read(), header_length=int(head))
    equal((result.as_numpy("y").tolist(), result.get_response()["id"]), (Y.tolist(), "7"))

    outputs = [triton.output("y", binary_data=False)]
    body, length = triton.generate_request_body([triton.tensor("x", X, binary_data=False)], outputs=outputs)
    equal(length, None)
    connection.request("POST", "/v2/models/m/infer", body)
    answer = connection.getresponse()
    equal((answer.status, answer.getheader("Content-Type")), (200, "application/json"))
    equal(answer.getheader(HEAD_LENGTH), None)
    equal(triton.parse_response_body(answer.read()).as_numpy("y"), Y)
    connection.close()


@call
def may_send_a_query(triton: Triton) -> None:
    query = {"of": "mine", "many": [1, 2]}
    equal(triton.is_model_ready("m", query_params=query), True)
    equal(triton.numpy("m", {"x": X}, "y", query_params=query), Y)


@call
def sees_the_status_of_an_error(triton: Triton) -> None:
    with refused(InferenceServerException, "[404]", "nowhere"):
        triton.numpy("nowhere", {"x": X}, "y")
    with refused(InferenceServerException, "[400]", "FP64"):
        triton.numpy("m", {"x": X.astype(np.float64)}, "y")


if __name__ == "__main__":
    run(client)
