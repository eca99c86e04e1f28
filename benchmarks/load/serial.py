"""The one-by-one client: one connection, one request at a time, in this process, by a raw socket."""

from __future__ import annotations

import dataclasses
import gc
import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.connection import Connection
from benchmarks.stats import percentile
from benchmarks.wire import Request


@dataclasses.dataclass(frozen=True)
class Serial:
    """The latency of each request in the order sent, in microseconds; how many answers were no 2xx."""

    latencies_us: NDArray[np.float64]
    errors: int

    @property
    def p50_us(self) -> float:
        return percentile(self.latencies_us, 50)

    @property
    def p99_us(self) -> float:
        return percentile(self.latencies_us, 99)


def measure(request: Request, seconds: float, most: int = 4000, least: int = 3) -> Serial:
    """Until the time is up or `most` are done, but never fewer than `least`."""
    raw = request.raw()
    latencies: list[int] = []
    errors = 0
    with Connection(request.port) as connection:
        gc.disable()
        try:
            deadline = time.perf_counter_ns() + round(seconds * 1e9)
            now = 0
            while len(latencies) < most and (now < deadline or len(latencies) < least):
                started = time.perf_counter_ns()
                connection.ask(raw)
                now = time.perf_counter_ns()
                latencies.append(now - started)
                errors += not connection.good
        finally:
            gc.enable()
    return Serial(np.asarray(latencies, dtype=np.float64) / 1e3, errors)
