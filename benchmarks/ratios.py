"""What the results must show: the aims, each computed from the figures, or left open when they are missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from benchmarks.results import Entry, Results
from benchmarks.stats import Summary

MLP = "mlp"
Finding = float | None


@dataclasses.dataclass(frozen=True)
class Aim:
    """One row: `find` gives the figure from the two result files, None when it was not measured."""

    label: str
    limit: float
    at_least: bool
    find: Callable[[Results | None, Results | None], Finding]
    unit: str = ""

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def bound(self) -> str:
        return f"{self.limit:g}{self.unit} or {'more' if self.at_least else 'less'}"


def median(results: Results | None, server: str, figure: str, model: str = MLP) -> Finding:
    entry = results.entry(server, model) if results else None
    return entry.median(figure) if entry else None


def over(top: Finding, bottom: Finding) -> Finding:
    return top / bottom if top is not None and bottom else None


def ratio(figure: str, top: str, bottom: str) -> Callable[[Results | None, Results | None], Finding]:
    return lambda bench, _: over(median(bench, top, figure), median(bench, bottom, figure))


def above_floor(figure: str) -> Callable[[Results | None, Results | None], Finding]:
    def find(bench: Results | None, _: Results | None) -> Finding:
        ours, floor = median(bench, "litepool", figure), median(bench, "floor", figure)
        return ours - floor if ours is not None and floor is not None else None

    return find


def npy_over_its_parts(bench: Results | None, _: Results | None) -> Finding:
    """Of the largest batch: over the floor's time for the same body and the interpreter's for the same records."""
    floor = median(bench, "floor", "batch256.npy.p50_us")
    invoke = bench.invoke_us.get(MLP, {}).get("float32.256") if bench else None
    if floor is None or not invoke:
        return None
    return over(median(bench, "litepool", "batch256.npy.p50_us"), floor + Summary.of(invoke).median)


def best_peer(peers: Results | None) -> Entry | None:
    """The one with the most requests per second over 8 connections."""
    entries = [entry for entry in peers.of(MLP) if entry.group == "peer"] if peers else []
    return max(entries, key=lambda entry: entry.median("c8.rps") or 0, default=None)


def over_best_peer(_: Results | None, peers: Results | None) -> Finding:
    best = best_peer(peers)
    return over(median(peers, "litepool", "c8.rps"), best.median("c8.rps")) if best else None


def extra(name: str, top: str, bottom: str) -> Callable[[Results | None, Results | None], Finding]:
    def find(bench: Results | None, _: Results | None) -> Finding:
        figures = bench.extras.get(name, {}) if bench else {}
        return over(figures.get(top), figures.get(bottom))

    return find


def tail_at_70(bench: Results | None, _: Results | None) -> Finding:
    return over(median(bench, "litepool", "open70.p99_us"), median(bench, "litepool", "open70.p50_us"))


def growth_beyond_noise(bench: Results | None, _: Results | None) -> Finding:
    figures = bench.extras.get("soak") if bench else None
    return max(figures["growth_mb"] - figures["noise_mb"], 0.0) if figures else None


AIMS = (
    Aim("requests/s at 32 connections, float32, over the floor's", 0.85, True, ratio("c32.rps", "litepool", "floor")),
    Aim("the same with int8 weights", 1.1, True, ratio("c32.rps", "litepool-int8", "floor")),
    Aim("one-by-one p50, float32, less the floor's", 30, False, above_floor("one.p50_us"), " us"),
    Aim("the same, with the processors kept awake", 30, False, above_floor("awake.p50_us"), " us"),
    Aim("requests/s at 8 connections over FastAPI + TFLite", 8, True, ratio("c8.rps", "litepool", "naive")),
    Aim("requests/s at 32 connections over FastAPI + TFLite", 8, True, ratio("c32.rps", "litepool", "naive")),
    Aim(
        "batch of 256 in JSON, p50: FastAPI + TFLite over ours",
        4,
        True,
        ratio("batch256.json.p50_us", "naive", "litepool"),
    ),
    Aim("batch of 256 in .npy, p50 over the floor's and the invoke", 1.25, False, npy_over_its_parts),
    Aim("requests/s at 8 connections over the best peer", 4, True, over_best_peer),
    Aim(
        "p99 with the slow model busy beside it over p99 alone",
        3,
        False,
        extra("neighbour", "beside_p99_us", "alone_p99_us"),
    ),
    Aim("open loop at 70% of saturation, p99 over p50", 4, False, tail_at_70),
    Aim("growth of memory under 80% load beyond its noise", 0, False, growth_beyond_noise, " MB"),
)
