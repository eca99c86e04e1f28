"""The closed loop of gRPC calls, by h2load: each connection has one call under way, and sends the next when it ends.

h2load knows no gRPC: it takes an HTTP status of 200 for success, and gRPC answers its errors with 200. But an answer
that is an error has no message, so the bytes that came tell how many answers had one of the right length.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.load.closed import Closed
from benchmarks.messages import framed
from benchmarks.stats import corrected, percentile
from benchmarks.wire import Request

RATE = re.compile(r"^finished in [^,]+, ([\d.]+) req/s", re.MULTILINE)
COUNTS = re.compile(r"^requests: .* (\d+) succeeded, (\d+) failed", re.MULTILINE)
DATA = re.compile(r"^traffic: .*\((\d+)\) data$", re.MULTILINE)
OK = "200"


class H2loadError(Exception):
    """h2load did not run, or printed no figures."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What h2load prints: successes are answers with a good HTTP status, `data` is the bytes of all answers' bodies."""

    rate: float
    succeeded: int
    failed: int
    data: int


def command(request: Request, body: Path, log: Path, connections: int, seconds: float) -> list[str]:
    """Whole seconds, as wrk takes them."""
    base = ["h2load", "--clients", str(connections), "--max-concurrent-streams", "1", "--threads", "1"]
    base += ["--duration", f"{max(round(seconds), 1)}s", "--data", str(body), "--log-file", str(log)]
    headers = {"content-type": request.content_type, "te": "trailers"}
    base += [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
    return [*base, f"http://127.0.0.1:{request.port}{request.path}"]


def parse(output: str) -> Report:
    rate, counts, data = RATE.search(output), COUNTS.search(output), DATA.search(output)
    if not (rate and counts and data):
        raise H2loadError(f"h2load printed no figures:\n{output}")
    return Report(float(rate[1]), int(counts[1]), int(counts[2]), int(data[1]))


def latencies(log: str) -> NDArray[np.float64]:
    """In microseconds, of the answers with a good HTTP status: the third column where the second is 200."""
    rows = (line.split("\t") for line in log.splitlines())
    return np.array([float(row[2]) for row in rows if row[1] == OK])


def figures(report: Report, taken: NDArray[np.float64], answer: bytes, connections: int) -> Closed:
    """`answer` is the message that each call should have got, or one of the same length.

    Percentiles are corrected as wrk corrects them, so that they may be held against those of wrk.
    """
    good = min(report.succeeded, report.data // len(framed(answer)))
    errors = report.failed + report.succeeded - good
    rate = report.rate * good / report.succeeded if report.succeeded else 0.0
    latency = corrected(taken, connections / report.rate * 1e6 if report.rate else 0.0)
    return Closed(
        requests=report.succeeded,
        rps=rate,
        p50_us=percentile(latency, 50),
        p99_us=percentile(latency, 99),
        p999_us=percentile(latency, 99.9),
        max_us=float(latency.max(initial=0)),
        errors=errors,
    )


def measure(request: Request, answer: bytes, connections: int, seconds: float) -> Closed:
    with tempfile.TemporaryDirectory(prefix="h2load-") as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(framed(request.body))
        words = command(request, body, log, connections, seconds)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise H2loadError(f"h2load ended with {done.returncode}: {done.stdout}{done.stderr}")
        return figures(parse(done.stdout), latencies(log.read_text()), answer, connections)
