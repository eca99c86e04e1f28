import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.metrics import PHASES, Metrics

TIMES = (1_000, 0, 20_000, 3_000, 60_000)
"""Nanoseconds of a request's phases, for tests that look at something else."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

WORKER = """
import sys
from app.telemetry.metrics import Metrics

metrics = Metrics(lambda seconds, flush: None)
digits = metrics.model("digits", 1)
for _ in range(int(sys.argv[1])):
    digits.answered((2, 1, 0, 0, 20_000, 0, 40_000))
sys.stdout.buffer.write(metrics.render())
"""


class Later:
    """Stands in for `loop.call_later`."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, function: Callable[[], None]) -> None:
        self.calls.append((seconds, function))


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
def metrics(later: Later) -> Metrics:
    return Metrics(later)


def samples(text: bytes) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_requests_are_counted_by_model_version_and_outcome(metrics: Metrics) -> None:
    digits, other = metrics.model("digits", 1), metrics.model("other", 3)
    for _ in range(3):
        digits.answered((2, 1, *TIMES))
    digits.refused("INVALID_ARGUMENT")
    other.answered((5, 1, *TIMES))

    found = samples(metrics.render())

    assert value(found, "litepool_requests_total", model="digits", version="1", code="OK") == 3
    assert value(found, "litepool_requests_total", model="digits", version="1", code="INVALID_ARGUMENT") == 1
    assert value(found, "litepool_requests_total", model="other", version="3", code="OK") == 1
    assert value(found, "litepool_records_total", model="digits", version="1") == 6
    assert value(found, "litepool_records_total", model="other", version="3") == 5


def test_a_request_for_no_model_names_none(metrics: Metrics) -> None:
    metrics.unknown.refused("NOT_FOUND")

    found = samples(metrics.render())

    assert value(found, "litepool_requests_total", model="", version="", code="NOT_FOUND") == 1


def test_times_are_counted_by_phase_and_a_phase_not_entered_is_not(metrics: Metrics) -> None:
    metrics.model("digits", 1).answered((1, 1, 8_000, 0, 20_000, 30_000, 60_000))

    found = samples(metrics.render())

    counts = {
        phase: found.get(
            ("litepool_request_seconds_count", frozenset({"model": "digits", "version": "1", "phase": phase}.items()))
        )
        for phase in PHASES
    }
    assert counts == {"decode": 1, "queue": None, "invoke": 1, "encode": 1, "total": 1}
    total = value(found, "litepool_request_seconds_sum", model="digits", version="1", phase="total")
    assert total == pytest.approx(60e-6)


@pytest.mark.parametrize(
    ("took", "within", "beyond"),
    [(1, "1e-05", None), (10_000, "1e-05", None), (10_001, "2.5e-05", "1e-05"), (30_000_000_001, "+Inf", "30.0")],
)
def test_a_time_falls_into_the_first_bucket_that_bounds_it(
    metrics: Metrics, took: int, within: str, beyond: str | None
) -> None:
    metrics.model("m", 1).answered((1, 1, 0, 0, 0, 0, took))

    found = samples(metrics.render())

    def bucket(bound: str) -> float:
        return value(found, "litepool_request_seconds_bucket", model="m", version="1", phase="total", le=bound)

    assert bucket(within) == 1
    assert beyond is None or bucket(beyond) == 0
    assert bucket("+Inf") == 1


def test_buckets_are_cumulative_over_requests(metrics: Metrics) -> None:
    digits = metrics.model("m", 1)
    for took in (5_000, 20_000, 20_000, 700_000):
        digits.answered((1, 1, 0, 0, 0, 0, took))

    found = samples(metrics.render())

    bounds = {"1e-05": 1, "2.5e-05": 3, "0.0005": 3, "0.001": 4, "+Inf": 4}
    assert bounds == {
        bound: value(found, "litepool_request_seconds_bucket", model="m", version="1", phase="total", le=bound)
        for bound in bounds
    }


def test_nothing_is_counted_twice_however_often_it_is_rendered(metrics: Metrics) -> None:
    digits = metrics.model("m", 1)
    digits.answered((1, 1, 0, 0, 0, 0, 100))
    first = metrics.render()
    again = metrics.render()
    digits.answered((1, 1, 0, 0, 0, 0, 100))
    found = samples(metrics.render())

    assert again == first
    assert value(found, "litepool_requests_total", model="m", version="1", code="OK") == 2
    assert value(found, "litepool_request_seconds_count", model="m", version="1", phase="total") == 2


def test_counts_are_handed_over_once_in_a_while_and_not_with_each_request(metrics: Metrics, later: Later) -> None:
    digits, other = metrics.model("a", 1), metrics.model("b", 1)
    for _ in range(100):
        digits.answered((1, 1, *TIMES))
        other.answered((1, 1, *TIMES))
    assert len(later.calls) == 1

    seconds, flush = later.calls[0]
    flush()
    digits.answered((1, 1, *TIMES))

    assert 0 < seconds <= 1
    assert len(later.calls) == 2


def seconds(found: Samples, what: str, phase: str) -> float:
    return value(found, f"litepool_request_seconds_{what}", model="m", version="1", phase=phase)


@pytest.mark.parametrize("requests", [1, 255, 256, 257, 1000])
def test_however_many_requests_come_between_two_flushes_all_are_counted(
    metrics: Metrics, later: Later, requests: int
) -> None:
    counters = metrics.model("m", 1)
    for number in range(requests):
        counters.answered((3, 1, 1_000, 0, 20_000, number + 1, 60_000))
        counters.refused("DEADLINE_EXCEEDED", (1_000, 500_000, 0, 0, 700_000))
    assert len(later.calls) == 1

    later.calls[0][1]()
    found = samples(metrics.render())

    for code in ("OK", "DEADLINE_EXCEEDED"):
        assert value(found, "litepool_requests_total", model="m", version="1", code=code) == requests
    assert value(found, "litepool_records_total", model="m", version="1") == 3 * requests
    counts = {phase: seconds(found, "count", phase) for phase in PHASES}
    both = 2 * requests
    assert counts == {"decode": both, "queue": requests, "invoke": requests, "encode": requests, "total": both}
    assert seconds(found, "sum", "encode") == pytest.approx(requests * (requests + 1) / 2 * 1e-9)
    assert seconds(found, "sum", "total") == pytest.approx(requests * 760e-6)


def test_times_do_not_pile_up_until_they_are_handed_over(metrics: Metrics) -> None:
    answered, refused = metrics.model("a", 1), metrics.model("b", 1)
    for _ in range(600):
        answered.answered((1, 1, *TIMES))
        refused.refused("DEADLINE_EXCEEDED", TIMES)
        assert len(answered._good) < 256
        assert len(refused._refused) < 256


def test_what_is_refused_at_once_has_no_times_and_what_came_further_has_those_of_its_phases(metrics: Metrics) -> None:
    counters = metrics.model("m", 1)
    counters.refused("UNSUPPORTED_FORMAT")
    counters.refused("INVALID_ARGUMENT", (8_000, 0, 0, 0, 9_000))
    counters.refused("INVALID_ARGUMENT", (8_000, 0, 0, 0, 9_000))

    found = samples(metrics.render())

    assert value(found, "litepool_requests_total", model="m", version="1", code="UNSUPPORTED_FORMAT") == 1
    assert value(found, "litepool_requests_total", model="m", version="1", code="INVALID_ARGUMENT") == 2
    assert value(found, "litepool_records_total", model="m", version="1") == 0
    assert {
        phase for name, labels in found if name.endswith("seconds_count") for key, phase in labels if key == "phase"
    } == {
        "decode",
        "total",
    }
    assert seconds(found, "count", "decode") == seconds(found, "count", "total") == 2


@pytest.mark.parametrize("first", ["answered", "refused"])
def test_whichever_outcome_comes_first_has_the_counts_handed_over(metrics: Metrics, later: Later, first: str) -> None:
    counters = metrics.model("m", 1)
    for _ in range(2):
        if first == "answered":
            counters.answered((1, 1, *TIMES))
        else:
            counters.refused("NOT_FOUND")
        later.calls.pop()[1]()
        assert later.calls == []
    found = samples(metrics.render())
    code = "OK" if first == "answered" else "NOT_FOUND"
    assert value(found, "litepool_requests_total", model="m", version="1", code=code) == 2


def test_a_worker_that_served_nothing_answers_with_the_names_of_what_it_counts(metrics: Metrics) -> None:
    text = metrics.render().decode()

    for name in ("litepool_requests", "litepool_records", "litepool_request_seconds"):
        assert f"# HELP {name}" in text


def test_times_of_creation_are_left_out(metrics: Metrics) -> None:
    metrics.model("m", 1).answered((1, 1, 1, 1, 1, 1, 1))

    assert b"_created" not in metrics.render()


def test_a_scrape_of_any_worker_answers_for_all(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    scrapes = [
        subprocess.run(
            [sys.executable, "-c", WORKER, str(requests)], env=environment, capture_output=True, check=True
        ).stdout
        for requests in (3, 4, 0)
    ]

    for scrape, requests in zip(scrapes, (3, 7, 7), strict=True):
        found = samples(scrape)
        assert value(found, "litepool_requests_total", model="digits", version="1", code="OK") == requests
        assert value(found, "litepool_records_total", model="digits", version="1") == 2 * requests
        labels = {"model": "digits", "version": "1", "phase": "total"}
        assert value(found, "litepool_request_seconds_count", **labels) == requests
        assert value(found, "litepool_request_seconds_bucket", le="2.5e-05", **labels) == 0
        assert value(found, "litepool_request_seconds_bucket", le="5e-05", **labels) == requests
        assert value(found, "litepool_request_seconds_sum", **labels) == pytest.approx(requests * 40e-6)
