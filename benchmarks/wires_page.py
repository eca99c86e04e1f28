"""The wire formats on the page: what they must show, and the chapter. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from benchmarks import tables
from benchmarks.format import micros, significant
from benchmarks.ratios import Aim, Finding
from benchmarks.results import Results

MODEL = "mlp"
PREDICT_JSON, BINARY = "litepool.predict-json", "litepool.v2-binary"
GRPC_PREDICT, GRPC_INFER = "litepool.grpc-predict", "litepool.grpc-infer"
TRITON_JSON, TRITON_GRPC = "triton-native.v2-json", "triton-native.grpc-infer"
FLOOR = "floor.binary"

SINGLE: tuple[tables.Column, ...] = (
    ("1 connection: p50", "c1.p50_us", micros),
    ("p99", "c1.p99_us", micros),
    ("requests/s", "c1.rps", significant),
    ("8: p50", "c8.p50_us", micros),
    ("p99", "c8.p99_us", micros),
    ("requests/s", "c8.rps", significant),
    ("32: p50", "c32.p50_us", micros),
    ("p99", "c32.p99_us", micros),
    ("requests/s", "c32.rps", significant),
    ("CPU per request", "c8.cpu_us", micros),
)
INTRODUCTION = """## Wire formats

Measured {date} by `python -m benchmarks --wires`: {rounds} rounds, {seconds:g} s a measurement, two workers. In each
round the floor, one `litepool serve` and Triton are started in turn, and each is asked in all its ways: over 1
connection in each way, then over {connections}, so that what is compared was measured within a minute. Triton is the
Python backend of the other servers' table, with gRPC beside the JSON by HTTP that it is measured with there.

HTTP is asked by `wrk`, gRPC by `h2load` with one call under way on each connection, both with one thread; h2load takes
more of the processors that it shares with the server than wrk does. Its latencies are corrected for coordinated
omission as wrk's are. It knows no gRPC status: an answer counts when it has a message as long as the right one, which
an error never has. Each way's answers were compared with the interpreter's before the rounds, and before and after each
measurement. gRPC's `Predict` is asked with `tensor_content`, `ModelInfer` with raw contents, v2 binary has binary
tensors both ways. The floor reads the same bodies and answers as many bytes as the model does, by an empty ASGI app
under uvicorn and by an empty handler of grpc.aio: the least that a server in Python costs when it is made of these.
h2load is that of {h2load}."""


def per_round(figure: str, top: str, bottom: str) -> Callable[[Results | None, Results | None], Finding]:
    """The median of the rounds' ratios: both sides of each were measured close in time."""

    def find(wires: Results | None, _: Results | None) -> Finding:
        pairs = zip(values(wires, top, figure), values(wires, bottom, figure), strict=False)
        return middle([upper / lower for upper, lower in pairs if lower])

    return find


def over_its_parts(wires: Results | None, _: Results | None) -> Finding:
    """A batch of 256: over the floor's time for the same bytes and the interpreter's for the same records."""
    invoke = wires.invoke_us.get(MODEL, {}).get("float32.256", []) if wires else []
    ours, floor = values(wires, BINARY, "batch256.p50_us"), values(wires, FLOOR, "batch256.p50_us")
    return middle([whole / (least + alone) for whole, least, alone in zip(ours, floor, invoke, strict=False)])


def values(wires: Results | None, server: str, figure: str) -> list[float]:
    entry = wires.entry(server, MODEL) if wires else None
    return entry.values(figure) if entry else []


def middle(found: Sequence[float]) -> Finding:
    return statistics.median(found) if found else None


AIMS = (
    Aim(
        "v2 binary over `/predict` JSON, requests/s at 1 connection", 1, True, per_round("c1.rps", BINARY, PREDICT_JSON)
    ),
    Aim("the same at 8", 1, True, per_round("c8.rps", BINARY, PREDICT_JSON)),
    Aim("the same at 32", 1, True, per_round("c32.rps", BINARY, PREDICT_JSON)),
    Aim("batch of 256 in v2 binary, p50 over the floor's and the invoke", 1.3, False, over_its_parts),
    Aim(
        "gRPC `Predict` over Triton's JSON by HTTP, requests/s at 8 connections",
        2,
        True,
        per_round("c8.rps", GRPC_PREDICT, TRITON_JSON),
    ),
    Aim("gRPC `ModelInfer` over the same", 2, True, per_round("c8.rps", GRPC_INFER, TRITON_JSON)),
    Aim("gRPC `Predict` over Triton's gRPC", 2, True, per_round("c8.rps", GRPC_PREDICT, TRITON_GRPC)),
    Aim("gRPC `ModelInfer` over Triton's gRPC", 2, True, per_round("c8.rps", GRPC_INFER, TRITON_GRPC)),
)


def chapter(wires: Results) -> Iterator[str]:
    """The page's part."""
    entries = wires.of(MODEL)
    yield introduction(wires)
    yield tables.aims(AIMS, wires, None)
    yield "Single records:\n\n" + tables.servers([entry for entry in entries if entry.values("c1.rps")], SINGLE)
    batches = [entry for entry in entries if entry.values(f"batch{wires.batches[MODEL][0]}.p50_us")]
    yield "Batches of the client, one at a time:\n\n" + tables.servers(batches, batch_columns(wires.batches[MODEL]))
    yield "The interpreter alone, one thread:\n\n" + tables.invokes(wires, MODEL)
    yield "What was checked:\n\n" + tables.checks(entries)
    for entry in wires.entries:
        if entry.error:
            yield f"{entry.title} failed; {len(entry.rounds)} rounds of it were measured before."


def introduction(wires: Results) -> str:
    return INTRODUCTION.format(
        date=wires.date,
        rounds=wires.method["rounds"],
        seconds=wires.method["seconds"],
        h2load=wires.machine["h2load"],
        connections=" and ".join(str(count) for count in wires.method["connections"][1:]),
    )


def batch_columns(sizes: Sequence[int]) -> list[tables.Column]:
    columns: list[tables.Column] = []
    for size in sizes:
        columns += [
            (f"{size} records: p50", f"batch{size}.p50_us", micros),
            ("p99", f"batch{size}.p99_us", micros),
            ("CPU per request", f"batch{size}.cpu_us", micros),
        ]
    return columns
