"""Served answers are the model's own: TensorFlow's, for every record, however it is sent, on either lane."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.process import MODELS, PATIENCE, Litepool
from tests.e2e.reference import FILES, RECORDS, Reference

pytestmark = pytest.mark.slow

CLIENTS = 32
SIZES = (1, 2, 3, 7, 31, 32, 33, 64, 100, 255, 256, 257)

# No invoke is as dear as a second, and none is free.
LANES = {"inline": "1000000", "pool": "0"}


@pytest.fixture(scope="module", params=LANES)
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(lane: str, cache: Path) -> Iterator[Litepool]:
    settings: dict[str, str | Path] = {"inline_us": LANES[lane], "cache_dir": cache, "threads": "2"}
    with Litepool(MODELS, "--workers", "1", settings=settings) as litepool:
        yield litepool.wait_ready()


@pytest.mark.parametrize("model", FILES)
def test_the_lane_is_the_one_that_these_tests_mean(server: Litepool, lane: str, model: str) -> None:
    with server.client() as client:
        assert client.get(f"/models/{model}").json()["lane"]["default"] == lane


@pytest.mark.parametrize("model", FILES)
def test_a_thousand_single_records_get_the_answers_of_tensorflow(
    server: Litepool, reference: dict[str, Reference], model: str
) -> None:
    wanted = reference[model]
    with server.client() as client:
        replies = [client.post(f"/predict/{model}", {"instance": wanted.record(row)}) for row in range(RECORDS)]

    assert {reply.status for reply in replies} == {200}
    assert wanted.misses(np.arange(RECORDS), [reply.json()["prediction"] for reply in replies]) == []


def batches() -> list[np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """Rows of batches of all sizes, one after the other and round again at the end."""
    starts = [0, *accumulate(SIZES)]
    return [np.arange(start, start + size) % RECORDS for start, size in zip(starts, SIZES, strict=False)]


def test_the_batches_hold_every_record() -> None:
    assert set(np.concatenate(batches())) == set(range(RECORDS))


@pytest.mark.parametrize("model", FILES)
def test_batches_of_1_to_257_records_get_the_answers_of_tensorflow(
    server: Litepool, reference: dict[str, Reference], model: str
) -> None:
    wanted = reference[model]
    with server.client() as client:
        for rows in batches():
            reply = client.post(f"/predict/{model}", {"instances": wanted.instances(rows)})

            assert reply.status == 200
            assert wanted.misses(rows, reply.json()["predictions"]) == [], f"batch of {len(rows)}"


@pytest.mark.parametrize("model", FILES)
def test_32_clients_at_once_get_the_answers_of_tensorflow(
    server: Litepool, reference: dict[str, Reference], model: str
) -> None:
    wanted = reference[model]
    together = threading.Barrier(CLIENTS, timeout=PATIENCE)

    def run(number: int) -> list[str]:
        with server.client() as client:
            client.connect()
            together.wait()
            faults = []
            for row in range(number, RECORDS, CLIENTS):
                reply = client.post(f"/predict/{model}", {"instance": wanted.record(row)})
                answer = reply.json().get("prediction")
                faults += wanted.misses(np.array([row]), [answer]) if reply.status == 200 else [str(reply)]
            return faults

    assert in_parallel(run) == []


def test_32_clients_with_singles_and_batches_of_every_model_each_get_exactly_their_own_answers(
    server: Litepool, reference: dict[str, Reference]
) -> None:
    together = threading.Barrier(CLIENTS, timeout=PATIENCE)
    # A batch of 200 for mlp is half a megabyte, which is decoded off the loop; with 3 it is decoded on it.
    sizes = (1, 3, 40, 200)

    def run(number: int) -> list[str]:
        draw = np.random.default_rng(number)
        with server.client() as client:
            client.connect()
            together.wait()
            faults = []
            for turn in range(6):
                model = list(FILES)[(number + turn) % len(FILES)]
                rows = draw.choice(RECORDS, sizes[(number + turn) % len(sizes)], replace=False)
                wanted = reference[model]
                reply = client.post(f"/predict/{model}", {"instances": wanted.instances(rows)})
                answers = reply.json().get("predictions")
                faults += wanted.misses(rows, answers) if reply.status == 200 else [str(reply)]
            return faults

    assert in_parallel(run) == []


@pytest.mark.parametrize("model", FILES)
def test_the_answer_to_another_record_would_be_noticed(reference: dict[str, Reference], model: str) -> None:
    wanted = reference[model]
    outputs = wanted.outputs
    answers = [
        {name: values[row] for name, values in outputs.items()}
        if len(outputs) > 1
        else next(iter(outputs.values()))[row]
        for row in range(RECORDS)
    ]

    unnoticed = [row for row in range(RECORDS) if not wanted.misses(np.array([row]), [answers[row - 1]])]

    # Two noisy images may be the same digit beyond doubt.
    assert len(unnoticed) <= (RECORDS / 100 if model == "digits" else 0)


def in_parallel(run: Callable[[int], list[str]]) -> list[str]:
    """The faults that all clients found."""
    with ThreadPoolExecutor(CLIENTS) as threads:
        return [fault for faults in threads.map(run, range(CLIENTS)) for fault in faults]
