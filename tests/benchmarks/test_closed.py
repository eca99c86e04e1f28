"""Reading what wrk prints, and asking it for the right thing."""

import re
from pathlib import Path

import pytest

from benchmarks.load.closed import SCRIPT, WrkError, command, parse
from benchmarks.wire import Request

OUTPUT = """Running 3s test @ http://127.0.0.1:18000/predict
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   180.44us  101.02us   2.45ms   88.41%
  109491 requests in 3.00s, 56.59MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
figures {"requests": 109491, "duration_us": 3000000, "p50_us": 177, "p90_us": 301, "p99_us": 451, "p999_us": 900, \
"max_us": 2451, "connect": 0, "read": 2, "write": 0, "status": 4, "timeout": 1}
"""


def test_the_rate_is_that_of_good_answers_over_the_measured_duration() -> None:
    refused = int(re.findall(r'"status": (\d+)', OUTPUT)[0])
    assert refused
    assert parse(OUTPUT).rps == pytest.approx((109491 - refused) / 3)


def test_percentiles_are_wrks_own() -> None:
    run = parse(OUTPUT)
    assert (run.p50_us, run.p99_us, run.p999_us, run.max_us) == (177, 451, 900, 2451)


def test_errors_of_all_kinds_are_added_up() -> None:
    assert parse(OUTPUT).errors == 2 + 4 + 1


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1 Connection refused\n", OUTPUT + OUTPUT])
def test_an_output_without_exactly_one_line_of_figures_is_refused(output: str) -> None:
    with pytest.raises(WrkError):
        parse(output)


def test_a_run_of_no_length_is_refused() -> None:
    with pytest.raises(WrkError):
        parse(OUTPUT.replace('"duration_us": 3000000', '"duration_us": 0'))


def test_the_command_hands_the_body_and_every_header_to_the_script() -> None:
    words = command(Request(18000, "/predict", "application/json", b"{}"), Path("body"), 32, 3)
    assert words[words.index("--connections") + 1] == "32"
    assert words[words.index("--script") + 1] == str(SCRIPT)
    assert words[words.index("--") - 1] == "http://127.0.0.1:18000/predict"
    arguments = words[words.index("--") + 1 :]
    assert arguments == ["body", "Content-Type", "application/json", "Accept", "application/json"]


def test_wrk_is_never_asked_for_less_than_a_second() -> None:
    words = command(Request(18000, "/predict", "application/json", b"{}"), Path("body"), 1, 0.3)
    assert words[words.index("--duration") + 1] == "1s"
