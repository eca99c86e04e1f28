"""Writes docs/benchmarks.md and its pictures from the results: `python -m benchmarks.render [RESULTS_DIR DOCS_DIR]`.

No number is typed by hand: what the text says of the method is taken from the results too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import life, plots, tables, wires_page
from benchmarks.format import seconds
from benchmarks.life import Life
from benchmarks.paths import DOCS, RESULTS
from benchmarks.ratios import AIMS, best_peer
from benchmarks.results import Entry, Results, load

HEAD = """# Benchmarks

Written by `python -m benchmarks.render` from the files in `benchmarks/results/`: do not edit it. Measure your own
machine with `make bench`, other servers with `make bench-peers`, and the wire formats with `make bench-wires`."""
METHOD = """## Method

{rounds} alternating rounds: in each, every server is started, asked and stopped in turn, so that a slow hour of the
machine falls on all of them. The tables show medians over the rounds, with the least and the most in small print.
Before anything is measured, each server's answers are compared with the TFLite interpreter's: single records, batches,
and different records from several connections at once. A server with a wrong answer is not measured, and the run fails.

- *One by one*: one raw socket, one request at a time, up to {serial_most} requests or {seconds:g} s.
- *Processors kept awake*: the same with a process at idle priority on each processor, so that none is halted between
  requests. In a virtual machine a halted processor costs the next request tens of microseconds, whoever serves it.
- *Requests/s*: `wrk`, one thread, {connections} connections, {seconds:g} s each. wrk corrects its percentiles for
  coordinated omission, so its p99 is not to be held against the one-by-one client's.
- *Batches*: as one by one, {batch_s:g} s each.
- *Open loop*: requests fall due at random moments of a given rate, for {open_s:g} s and more, over up to {open_links}
  connections; latency counts from the moment due. Rates rise until fewer than 95% are answered in time.
- *CPU per request*: user and system time of all the server's processes during the run over 8 connections.
- *Memory*: PSS of all the server's processes. *Start-up*: from the command to the first good answer; models that
  Litepool has converted before come from its cache.

Server and load share the machine's cores, so that the most that the open loop reaches is less than a server could
do with cores of its own. Every server has two workers (or what it calls so) and is bound to 127.0.0.1; the body of a
request is the same bytes for all load tools. Litepool deals connections to its workers evenly; servers whose workers
accept from one socket, the floor among them, get them by chance."""


def read(path: Path) -> Results | None:
    return load(path) if path.exists() else None


def document(
    bench: Results | None, peers: Results | None, lived: Life | None = None, wires: Results | None = None
) -> Iterator[str]:
    """The page's parts in order."""
    yield HEAD
    yield "## What it shows\n\n" + tables.aims(AIMS, bench, peers)
    best = best_peer(peers)
    if best:
        yield f"The best peer is {best.title}. Each of the two runs has its own floor and its own Litepool."
    for name, title, results in (("bench", "Litepool and what people write", bench), ("peers", "Other servers", peers)):
        if results:
            yield f"## {title}\n\nMeasured {results.date}: {rounds(results)}"
            for model in results.models:
                yield from chapter(results, model, name)
    if wires:
        yield from wires_page.chapter(wires)
    if lived:
        yield from life.chapter(lived)
    main = bench or peers
    if main:
        connections = ", ".join(str(count) for count in main.method["connections"])
        yield METHOD.format(**{**main.method, "connections": connections})
        yield "## Machine\n\n" + tables.machine(main)


def rounds(results: Results) -> str:
    """How much was measured, and of what less than the rest."""
    wanted = results.method["rounds"]
    less = [
        f"{entry.title} with `{entry.model}` ({len(entry.rounds)})"
        for entry in results.entries
        if len(entry.rounds) < wanted
    ]
    fewer = f" Fewer were measured of {', '.join(less)}." if less else ""
    return f"{wanted} rounds, {results.method['seconds']:g} s a measurement.{fewer}"


def chapter(results: Results, model: str, name: str) -> Iterator[str]:
    entries = results.of(model)
    if not entries:
        return
    yield f"### `{model}`: {results.models[model]}"
    for kind, text in (("latency", "One request at a time"), ("throughput", "Requests per second")):
        yield f"![{text}, {model}](img/{name}-{model}-{kind}.svg)"
    yield tables.servers(entries, tables.SPEED)
    yield f"![Latency over arrival rate, {model}](img/{name}-{model}-arrivals.svg)"
    yield "Open loop:\n\n" + tables.servers(entries, tables.OPEN)
    yield "Batches of the client, p50:\n\n" + tables.batches(entries, results.batches[model])
    yield "The interpreter alone, one thread:\n\n" + tables.invokes(results, model)
    yield "What it takes:\n\n" + tables.servers(entries, tables.COST)
    yield "What was checked:\n\n" + tables.checks(entries)
    for entry in results.entries:
        if entry.model == model and entry.error:
            yield f"{entry.title} failed under the load; {len(entry.rounds)} rounds of it were measured before."
    if model == "mlp":
        yield from extras(results)


def extras(results: Results) -> Iterator[str]:
    beside = results.extras.get("neighbour")
    if beside:
        names = ("alone_p50_us", "alone_p99_us", "beside_p50_us", "beside_p99_us")
        cells = [seconds(beside[figure] / 1e6) for figure in names]
        head = ["rate", "p50 alone", "p99 alone", "p50 beside", "p99 beside", "`conv` meanwhile", "errors"]
        rows = [[f"{beside['rate']:,.0f}/s", *cells, f"{beside['slow_rps']:.0f}/s", f"{beside['errors']:.0f}"]]
        yield "`mlp` alone, and with `conv` kept busy in the same server:\n\n" + tables.table(head, rows)
    soaked = results.extras.get("soak")
    if soaked:
        yield (
            f"{soaked['seconds'] / 60:g} minutes at 80% of the most ({soaked['rate']:,.0f} requests/s): "
            f"{soaked['early_pss_mb']:.1f} MB in the second quarter, {soaked['growth_mb']:+.1f} MB in the last, where "
            f"single readings differ by up to {soaked['noise_mb']:.1f} MB; {soaked['errors']:.0f} errors."
        )


def pictures(results: Results | None, name: str, folder: Path) -> None:
    for model in results.models if results else ():
        entries: list[Entry] = results.of(model) if results else []
        if entries:
            title = f"{model}: {results.models[model]}" if results else model
            plots.latency(entries, title, folder / f"{name}-{model}-latency.svg")
            plots.throughput(entries, title, folder / f"{name}-{model}-throughput.svg")
            plots.arrivals(entries, title, folder / f"{name}-{model}-arrivals.svg")


def render(results: Path, docs: Path) -> None:
    """From `bench.json`, `peers.json`, `wires.json` and `life.json`, whichever there are."""
    bench, peers = read(results / "bench.json"), read(results / "peers.json")
    wires = read(results / "wires.json")
    lived = life.load(results / "life.json") if (results / "life.json").exists() else None
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text("\n\n".join(document(bench, peers, lived, wires)) + "\n")
    pictures(bench, "bench", docs / "img")
    pictures(peers, "peers", docs / "img")


if __name__ == "__main__":
    render(*(Path(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (RESULTS, DOCS))
