import pytest

from app.telemetry.batches import SIZES
from app.telemetry.metrics import Metrics

Seen = tuple[int, int, int, int, int, int, int]
"""Of a request its records, its `Job.batch`, and nanoseconds of decode, queue, invoke, encode and all."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda seconds, flush: None)


def batches(metrics: Metrics, *seen: Seen) -> dict[int, tuple[int, dict[str, int]]]:
    """What requests to one model come to: by the number of records how many invokes, and their times."""
    model = metrics.model("m", 1)
    for one in seen:
        model.answered(one)
    found = metrics.totals()["m", "1"].batches
    return {size: (batch.invokes, batch.sums_ns) for size, batch in found.items()}


def test_an_invoke_that_is_one_request_s_alone_has_its_records(metrics: Metrics) -> None:
    found = batches(metrics, (3, 0, 10, 1, 100, 20, 200), (3, 0, 11, 1, 100, 21, 200), (1, 0, 12, 0, 50, 22, 100))
    assert found == {
        3: (2, {"decode": 21, "invoke": 200, "encode": 41}),
        1: (1, {"decode": 12, "invoke": 50, "encode": 22}),
    }


def test_an_invoke_that_requests_share_counts_once_and_has_what_each_was_decoded_and_encoded_in(
    metrics: Metrics,
) -> None:
    found = batches(metrics, (1, 4, 10, 1, 100, 20, 200), (2, -4, 11, 1, 100, 21, 200), (1, -4, 12, 1, 100, 22, 200))
    assert found == {4: (1, {"decode": 33, "invoke": 100, "encode": 63})}
    assert metrics.totals()["m", "1"].invokes == 1


@pytest.mark.parametrize(
    ("rows", "size"), [(32, 32), (33, 64), (64, 64), (65, 128), (1 << 26, 1 << 26), (1 << 40, 1 << 26)]
)
def test_many_records_are_counted_at_the_next_power_of_two(metrics: Metrics, rows: int, size: int) -> None:
    assert list(batches(metrics, (rows, 0, 1, 1, 1, 1, 4))) == [size]


def test_there_are_few_sizes_whatever_is_sent(metrics: Metrics) -> None:
    found = batches(metrics, *((rows, 0, 1, 1, 1, 1, 4) for rows in range(1, 3000)))
    assert set(found) == set(SIZES[: len(found)])
    assert len(SIZES) < 60


def test_what_failed_and_what_was_handed_over_already_is_not_counted(metrics: Metrics) -> None:
    model = metrics.model("m", 1)
    model.refused("INVALID_ARGUMENT", (1, 0, 0, 0, 2))
    assert batches(metrics) == {}
    assert metrics.totals()["m", "1"].invokes == 0
    assert batches(metrics, (1, 0, 1, 1, 1, 1, 4))[1][0] == 1
    assert batches(metrics, (1, 0, 1, 1, 1, 1, 4))[1][0] == 2
