"""All that is measured of one started server in one round, as flat figures with names such as `c8.rps`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.awake import can_be_kept, kept_awake
from benchmarks.check import request
from benchmarks.load import closed, openloop, serial
from benchmarks.method import Method
from benchmarks.models import Model, records
from benchmarks.probe import cpu_between, cpu_seconds, memory
from benchmarks.process import Child
from benchmarks.servers.base import Server
from benchmarks.stats import curve
from benchmarks.wire import Request, Wire

Figures = dict[str, float]
SATURATED = 0.95


@dataclasses.dataclass
class Round:
    """One server's round: figures by name, the open loop's points, and every latency of the serial client."""

    figures: Figures = dataclasses.field(default_factory=dict)
    curves: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    open_loop: list[openloop.Open] = dataclasses.field(default_factory=list)
    samples: dict[str, NDArray[np.float64]] = dataclasses.field(default_factory=dict)
    errors: int = 0


class Measurement:
    """Measures a running server. One round's; it fills `result` as it goes."""

    def __init__(self, server: Server, model: Model, port: int, child: Child, method: Method) -> None:
        self._server = server
        self._model = model
        self._port = port
        self._child = child
        self._method = method
        self._records = records(model, model.batches[1])
        self.result = Round()

    def run(self) -> Round:
        single = self._request(self._server.json, 1)
        self._memory("idle")
        serial.measure(single, self._method.warmup_s)
        closed.measure(single, 8, self._method.warmup_s)
        self._serial("one", single, self._method.seconds)
        if can_be_kept():
            with kept_awake():
                self._serial("awake", single, self._method.batch_s)
        for connections in self._method.connections:
            self._closed(single, connections)
        for size in self._model.batches:
            self._serial(f"batch{size}.json", self._request(self._server.json, size), self._method.batch_s)
            if self._server.npy:
                self._serial(f"batch{size}.npy", self._request(self._server.npy, size), self._method.batch_s)
        self._open_loop(single)
        self._memory("used")
        return self.result

    def _request(self, wire: Wire, size: int) -> Request:
        return request(self._server, self._model, self._port, wire, self._records[:size])

    def _put(self, group: str, **figures: float) -> None:
        self.result.figures.update({f"{group}.{name}": round(value, 3) for name, value in figures.items()})

    def _memory(self, when: str) -> None:
        used = memory(self._child.tree())
        self._put(f"memory.{when}", rss_mb=used.rss, pss_mb=used.pss)

    def _serial(self, name: str, ask: Request, seconds: float) -> None:
        run = serial.measure(ask, seconds, self._method.serial_most)
        self._put(name, p50_us=run.p50_us, p99_us=run.p99_us)
        self.result.curves[name] = curve(run.latencies_us)
        self.result.samples[name] = run.latencies_us
        self.result.errors += run.errors

    def _closed(self, ask: Request, connections: int) -> None:
        before = cpu_seconds(self._child.tree())
        run = closed.measure(ask, connections, self._method.seconds)
        used = cpu_between(before, cpu_seconds(self._child.tree()))
        self._put(f"c{connections}", rps=run.rps)
        if run.requests:
            cpu_us = used / run.requests * 1e6
            self._put(f"c{connections}", p50_us=run.p50_us, p99_us=run.p99_us, cpu_us=cpu_us)
        self.result.errors += run.errors

    def _open_loop(self, ask: Request) -> None:
        """Climbs the model's rates until one is twice more than the server can do; then runs at 70% of the most."""
        points = self.result.open_loop
        for rate in rates(self._model.rates, self.result.figures["c8.rps"], self._method.rate_step):
            points.append(self._open(ask, rate))
            if falls_behind(points[-1]):
                points.append(self._open(ask, rate))
                if falls_behind(points[-1]):
                    break
        most = max(point.achieved for point in points)
        at = self._open(ask, 0.7 * most)
        self._put("open", saturation_rps=most)
        self._put("open70", rate=at.rate, p50_us=at.p50_us, p99_us=at.p99_us, client_cpu=at.client_cpu)
        self.result.errors += at.errors

    def _open(self, ask: Request, rate: float) -> openloop.Open:
        """At a low rate longer, so that there is something to take a percentile of."""
        seconds = min(max(self._method.open_s, self._method.open_requests / rate), self._method.most_open_s)
        return openloop.measure(ask, rate, seconds, self._method.open_links)


def falls_behind(point: openloop.Open) -> bool:
    return point.achieved < SATURATED * point.offered


def rates(ladder: Sequence[int], closed_rps: float, step: int = 1) -> list[int]:
    """From a fiftieth of what the closed loop did: below that the curve is flat."""
    return [rate for rate in ladder if rate >= closed_rps / 50][::step] or list(ladder[-1:])
