"""Which large bodies are read at once, and which wait for a thread of the pool to read them."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from app.bound import Wants
from app.errors import DeadlineExceeded
from app.protocols.call import Wire
from app.repository.manager import Target
from app.runtime.pool import Pool
from tests import protobuf, tflite
from tests.test_dataplane import House, hold


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    pool = Pool(1)
    yield House(tmp_path, pool)
    pool.close()


def infer_over_http(dtype: str, size: int, rows: int = 2000) -> tuple[Wants, bytes]:
    """A request of Open Inference with `[rows, 4]` as bytes, of `size` for each number."""
    one = {"name": "x", "shape": [rows, 4], "datatype": dtype, "parameters": {"binary_data_size": rows * 4 * size}}
    head = orjson.dumps({"inputs": [one], "parameters": {"timeout": 1}})
    return Wants(wire=Wire.INFER, head_length=str(len(head))), head + bytes(rows * 4 * size)


def infer_over_grpc(
    dtype: str, raw: bytes, contents: bytes = b"", rows: int = 2000, more: int = 0
) -> tuple[Wants, bytes]:
    """The same by gRPC, and `more` fields that nobody knows."""
    shape = protobuf.varint(rows) + protobuf.varint(4)
    one = protobuf.message((1, "x"), (2, dtype), (3, shape), *([(5, contents)] if contents else []))
    timeout = protobuf.message((1, "timeout"), (2, protobuf.field(2, 1)))
    parts = [(4, timeout), (5, one), *([(99, b"")] * more), *([(7, raw)] if raw else [])]
    return Wants(wire=Wire.GRPC_INFER), protobuf.message((1, "m"), *parts)


LARGE = bytes(32_000)
"""Of [2000, 4] float32."""


@pytest.mark.parametrize(
    ("model", "request_of", "at_once"),
    [
        (tflite.affine(), infer_over_http("FP32", 4), True),
        (tflite.identity("bool"), infer_over_http("BOOL", 1, rows=8000), False),
        (tflite.quantized(), infer_over_http("INT8", 1, rows=8000), True),
        (tflite.affine(), infer_over_grpc("FP32", LARGE), True),
        (tflite.affine(), infer_over_grpc("FP32", LARGE[:-1]), True),
        (tflite.affine(), infer_over_grpc("FP32", b"", protobuf.field(6, LARGE)), False),
        (tflite.affine(), infer_over_grpc("FP32", LARGE, more=10_000), False),
        (tflite.identity("string"), infer_over_grpc("BYTES", LARGE), False),
        (tflite.identity("bool"), infer_over_grpc("BOOL", LARGE, rows=8000), False),
    ],
)
def test_large_tensors_that_are_looked_at_where_they_lie_do_not_wait_for_the_pool_to_be_read(
    house: House, model: bytes, request_of: tuple[Wants, bytes], at_once: bool
) -> None:
    servable = house.serve(model, inline_us=0.0)
    opened = hold(servable)
    wants, body = request_of

    job = house.plane.predict(Target(), wants, body, house.caller)

    # What is read is refused, or its timeout is known.
    assert (job is None or job.rows > 0) is at_once
    if job is not None and at_once:
        for _, look in house.loop.timers:
            look()
        assert isinstance(house.replies[0], DeadlineExceeded)
    opened.set()
    house.loop.run_until(lambda: bool(house.replies))


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_large_tensors_of_real_numbers_are_quantized_off_the_loop(house: House, over: str) -> None:
    servable = house.put(house.load(tflite.quantized(), numbers="real", inline_us=0.0)).servable
    opened = hold(servable)
    wants, body = infer_over_http("FP32", 4) if over == "http" else infer_over_grpc("FP32", LARGE)

    job = house.plane.predict(Target(), wants, body, house.caller)

    assert job is not None
    assert job.rows == 0
    opened.set()
    house.loop.run_until(lambda: bool(house.replies))


@pytest.mark.parametrize(("dtype", "value", "at_once"), [("string", "", False), ("float32", 0, True)])
def test_many_strings_are_read_off_the_loop_where_as_many_numbers_are_not(
    house: House, dtype: str, value: object, at_once: bool
) -> None:
    opened = hold(house.serve(tflite.identity(dtype)))
    body = orjson.dumps({"inputs": [[value] * 4] * 3000})
    assert 16_000 < len(body) < 256_000

    job = house.plane.predict(Target(), Wants("application/json"), body, house.caller)

    assert job is not None
    assert (job.rows > 0) is at_once
    opened.set()
    house.loop.run_until(lambda: bool(house.replies))
    assert orjson.loads(house.replies[0].body) == {"outputs": [[value] * 4] * 3000}  # type: ignore[union-attr]
