"""Reading what h2load prints, and counting what it cannot count."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.load.h2 import H2loadError, Report, command, figures, latencies, parse
from benchmarks.wire import Request

OUTPUT = """starting benchmark...
finished in 2.00s, 5000.50 req/s, 12.02MB/s
requests: 10010 total, 10012 started, 10010 done, 10001 succeeded, 9 failed, 2 errored, 0 timeout
status codes: 10001 2xx, 0 3xx, 7 4xx, 0 5xx
traffic: 12.02MB (12603920) total, 2.20MB (2307942) headers (space savings 0.00%), 1.30MB (1330266) data
                     min         max         mean         sd        +/- sd
time for request:       37us      2.49ms        77us        66us    97.54%
"""
ANSWER = bytes(128)
FRAME = len(ANSWER) + 5
REPORT = Report(rate=5000.5, succeeded=10001, failed=9, data=10002 * FRAME)
TAKEN = np.full(10001, 1500.0)


def test_figures_are_read_out_of_the_text() -> None:
    assert parse(OUTPUT) == REPORT


@pytest.mark.parametrize("output", ["", "the connection was refused\n", OUTPUT.replace("traffic:", "")])
def test_an_output_without_figures_is_refused(output: str) -> None:
    with pytest.raises(H2loadError):
        parse(output)


def test_answers_without_a_message_are_errors_although_their_http_status_is_good() -> None:
    half = dataclasses.replace(REPORT, succeeded=10_000, failed=0, data=5_000 * FRAME)
    run = figures(half, TAKEN, ANSWER, 8)
    assert run.errors == 5_000
    assert run.rps == pytest.approx(REPORT.rate / 2)
    assert figures(dataclasses.replace(half, data=0), TAKEN, ANSWER, 8).rps == 0


def test_a_message_of_an_answer_that_came_too_late_does_not_make_one_more() -> None:
    run = figures(REPORT, TAKEN, ANSWER, 8)
    assert (run.requests, run.errors) == (10001, 9)
    assert run.rps == pytest.approx(5000.5)


def test_percentiles_are_those_of_the_log_with_what_a_stall_kept_from_being_sent() -> None:
    # 8 connections at 5000.5/s: one request of each every 1.6 ms.
    assert figures(REPORT, TAKEN, ANSWER, 8).p99_us == 1500
    stalled = np.append(np.full(99, 1500.0), 80_000.0)
    run = figures(REPORT, stalled, ANSWER, 8)
    assert (run.p50_us, run.max_us) == (1500, 80_000)
    assert run.p99_us > 70_000


def test_no_answers_at_all_have_no_rate_and_no_latency() -> None:
    run = figures(Report(0.0, 0, 8, 0), latencies(""), ANSWER, 8)
    assert (run.rps, run.errors, run.requests) == (0, 8, 0)


def test_latencies_are_those_of_good_answers() -> None:
    log = "1795391274839825\t200\t1164\n1795391274839809\t-1\t9\n1795391274839999\t200\t1341\n"
    assert latencies(log).tolist() == [1164, 1341]


def test_the_command_has_one_call_under_way_on_each_connection() -> None:
    words = command(Request(18001, "/a.B/C", "application/grpc", b""), Path("body"), Path("log"), 32, 3)
    pairs = {*itertools.pairwise(words)}
    assert {("--clients", "32"), ("--max-concurrent-streams", "1"), ("--duration", "3s"), ("--data", "body")} <= pairs
    assert {("--header", "te: trailers"), ("--header", "content-type: application/grpc")} <= pairs
    assert words[-1] == "http://127.0.0.1:18001/a.B/C"


def test_h2load_is_never_asked_for_less_than_a_second() -> None:
    words = command(Request(1, "/", "application/grpc", b""), Path("body"), Path("log"), 1, 0.3)
    assert words[words.index("--duration") + 1] == "1s"
