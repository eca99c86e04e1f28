"""What is more than one server alone: a fast model with a busy slow one beside it, and a long time under load."""

from __future__ import annotations

import concurrent.futures
import statistics
import time

from benchmarks.check import request
from benchmarks.load import closed, openloop
from benchmarks.method import Method
from benchmarks.models import Model, prepare, records
from benchmarks.probe import memory
from benchmarks.results import Figures, Results
from benchmarks.run import started
from benchmarks.servers.base import Server
from benchmarks.wire import Request

NEIGHBOURS = 4
SOAK_SHARE = 0.8
SOAK_STEP_S = 15.0
QUARTERS = 4


def single(server: Server, model: Model, port: int) -> Request:
    return request(server, model, port, server.json, records(model, 1))


def neighbour(server: Server, fast: Model, slow: Model, method: Method) -> Figures:
    """The fast model's latency at a fixed rate: alone, and with the slow one kept busy by a closed loop, in turn.

    Latencies are medians of the rounds; errors are added up.
    """
    for model in (fast, slow):
        prepare(model)
    rounds: list[Figures] = []
    with started(server, fast, method.patience_s) as live, concurrent.futures.ThreadPoolExecutor(1) as pool:
        ask = single(server, fast, live.port)
        beside = single(server, slow, live.port)
        closed.measure(ask, 8, method.warmup_s)
        closed.measure(beside, NEIGHBOURS, method.warmup_s)
        for _ in range(method.rounds):
            alone = openloop.measure(ask, method.neighbour_rate, method.neighbour_s)
            busy = pool.submit(closed.measure, beside, NEIGHBOURS, method.neighbour_s + 2)
            time.sleep(1)
            together = openloop.measure(ask, method.neighbour_rate, method.neighbour_s)
            slow_run = busy.result()
            rounds.append(
                {
                    "alone_p50_us": alone.p50_us,
                    "alone_p99_us": alone.p99_us,
                    "beside_p50_us": together.p50_us,
                    "beside_p99_us": together.p99_us,
                    "slow_rps": slow_run.rps,
                    "errors": alone.errors + alone.unanswered + together.errors + together.unanswered + slow_run.errors,
                }
            )
    figures = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    return {**figures, "rate": method.neighbour_rate, "errors": sum(found["errors"] for found in rounds)}


def soak(server: Server, model: Model, results: Results, seconds: float) -> Figures:
    """Memory over a long time at 80% of what the open loop reached. The first quarter is warm-up and does not count."""
    entry = results.entry(server.name, model.name)
    most = entry.median("open.saturation_rps") if entry else None
    if not most:
        raise ValueError(f"no saturation was measured for {server.name}")
    used: list[float] = []
    errors = 0
    with started(server, model) as live:
        ask = single(server, model, live.port)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline or len(used) < QUARTERS:
            run = openloop.measure(ask, SOAK_SHARE * most, min(SOAK_STEP_S, max(seconds / QUARTERS, 1)))
            errors += run.errors + run.unanswered
            used.append(memory(live.child.tree()).pss)
    return {"seconds": seconds, "rate": SOAK_SHARE * most, "errors": errors, **growth(used)}


def growth(used: list[float]) -> Figures:
    """Of memory readings in order: the last quarter's median less the second quarter's; the noise within those."""
    quarter = max(len(used) // QUARTERS, 1)
    early, late = used[quarter : 2 * quarter], used[-quarter:]
    noise = max(max(early) - min(early), max(late) - min(late))
    grown = statistics.median(late) - statistics.median(early)
    return {"early_pss_mb": statistics.median(early), "growth_mb": grown, "noise_mb": noise}
