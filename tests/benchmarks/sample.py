"""Small results, made up, with figures that are easy to divide."""

import dataclasses

from benchmarks.results import Entry, Figures, Results


def figures(p50: float, rps: float) -> Figures:
    serial = {f"{name}.{part}": p50 * size for name, size in BATCHES.items() for part in ("p50_us", "p99_us")}
    closed = {f"c{count}.{part}": rps for count in (1, 8, 32) for part in ("rps", "p50_us", "p99_us", "cpu_us")}
    memory = {"memory.idle.pss_mb": 100.0, "memory.used.pss_mb": 110.0, "start.seconds": 0.5, "start.busy_percent": 1.0}
    loop = {"open.saturation_rps": rps, "open70.p50_us": p50, "open70.p99_us": 3 * p50, "open70.client_cpu": 0.1}
    return {**serial, **closed, **memory, **loop}


BATCHES = {"one": 1, "awake": 0.5, "batch32.json": 4, "batch256.json": 20, "batch32.npy": 2, "batch256.npy": 10}


def entry(server: str, group: str, p50: float, rps: float, model: str = "mlp") -> Entry:
    points = [
        {"rate": rate, "offered": rate, "achieved": min(rate, rps), "p50_us": p50, "p99_us": 2 * p50, "errors": 0}
        for rate in (rps / 4, rps / 2, rps * 2)
    ]
    return Entry(
        server=server,
        title=server.title(),
        group=group,
        about="",
        model=model,
        versions={},
        rounds=[figures(p50 * noise, rps) for noise in (1.0, 0.9, 1.2)],
        open_loop=[points, points],
        checked_answers=48,
    )


def results(*entries: Entry, extras: dict[str, Figures] | None = None) -> Results:
    method = {"rounds": 3, "seconds": 3.0, "batch_s": 1.5, "serial_most": 4000, "open_s": 2.0, "open_links": 128}
    return Results(
        date="2030-01-02 03:04 UTC",
        machine={"cpu": "A fine one", "cores": 2},
        versions={"numpy": "9.9.9"},
        method={**method, "connections": [1, 8, 32]},
        models={"mlp": "a small one"},
        batches={"mlp": [32, 256]},
        invoke_us={"mlp": {"float32.256": [900.0, 1000.0, 1100.0]}},
        entries=list(entries),
        extras=extras or {},
    )


def bench() -> Results:
    return results(
        entry("floor", "floor", 100, 50000),
        entry("litepool-int8", "ours", 100, 60000),
        entry("litepool", "ours", 120, 45000),
        entry("naive", "baseline", 600, 5000),
        extras={
            "neighbour": {
                "rate": 1000,
                "alone_p50_us": 100,
                "alone_p99_us": 200,
                "beside_p50_us": 300,
                "beside_p99_us": 500,
                "slow_rps": 80,
                "errors": 0,
            },
            "soak": {
                "seconds": 600,
                "rate": 40000,
                "errors": 0,
                "early_pss_mb": 190.0,
                "growth_mb": 1.0,
                "noise_mb": 2.0,
            },
        },
    )


def wires() -> Results:
    """Litepool's ways twice as fast as the floor's and Triton's, and v2 binary faster by one in ten than JSON."""
    rates = {"predict-json": 20000, "v2-binary": 22000, "grpc-predict": 16000, "grpc-infer": 18000}
    found = results(
        wire("floor.binary", "floor", 400, 30000),
        *(wire(f"litepool.{name}", "ours", 1500, rps) for name, rps in rates.items()),
        wire("triton-native.v2-json", "peer", 5000, 8000),
        wire("triton-native.grpc-infer", "peer", 5000, 6000),
    )
    return dataclasses.replace(found, machine={**found.machine, "h2load": "nghttp2/9.9.9"})


def wire(server: str, group: str, batch_us: float, rps: float) -> Entry:
    """`batch_us` is the p50 of a batch of 256, without the noise that is in `rps`: that of a whole round."""
    closed = {f"c{count}.{part}": rps for count in (1, 8, 32) for part in ("rps", "p50_us", "p99_us", "cpu_us")}
    batches = {f"batch{size}.{part}": batch_us for size in (32, 256) for part in ("p50_us", "p99_us", "cpu_us")}
    found = dataclasses.replace(entry(server, group, 1, rps), rounds=[{**closed, **batches} for _ in range(3)])
    found.rounds[1] = {name: 0.5 * value if name.endswith("rps") else value for name, value in found.rounds[1].items()}
    return found


def peers() -> Results:
    return results(
        entry("floor", "floor", 100, 52000),
        entry("litepool", "ours", 120, 44000),
        entry("snail", "peer", 900, 2000),
        entry("hare", "peer", 300, 8000),
    )
