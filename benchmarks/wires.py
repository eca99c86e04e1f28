"""The wire formats, measured side by side: `python -m benchmarks --wires`.

Every server is started once in each round and asked in all its ways before the next is: what one connection gets is
measured for all ways, then what 8 get, then 32, so that figures that are held against each other are close in time.
"""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.check import CLIENTS, ROUNDS, judge
from benchmarks.method import Method
from benchmarks.models import MLP, Floats, Reference, prepare, records
from benchmarks.probe import cpu_between, cpu_seconds, tool_version
from benchmarks.results import Entry
from benchmarks.run import Started, attempt, begin, invokes, started
from benchmarks.ways import Host, Way

METHOD = Method(rounds=3, seconds=2.0, warmup_s=1.0, batch_s=2.0)
MODEL = MLP
VARIANT = "float32"


class WireRun:
    """One run: `check`, then `measure`. Saves its results after every server, so an ended run has what it measured."""

    def __init__(self, hosts: Sequence[Host], method: Method, out: Path) -> None:
        self._hosts = hosts
        self._method = method
        self._out = out
        self.results = begin([MODEL], method)
        self.results.machine["h2load"] = tool_version(["h2load", "--version"])
        self._entries = {host.server.name: [entry(host, way) for way in host.ways] for host in hosts}
        self.results.entries = [each for host in hosts for each in self._entries[host.server.name]]

    @property
    def failed(self) -> list[Entry]:
        return [each for each in self.results.entries if each.error]

    def check(self) -> None:
        """Start each server once and compare the answers of every way. Ways that fail are not measured."""
        prepare(MODEL)
        for host in self._hosts:
            self._attempt(f"check {host.server.name}", host, functools.partial(self._check, host))

    def measure(self) -> None:
        for number in range(self._method.rounds):
            invokes(self.results, MODEL, (VARIANT,), min(self._method.seconds, 1))
            for host in self._hosts:
                label = f"round {number + 1}/{self._method.rounds} {host.server.name}"
                self._attempt(label, host, functools.partial(self._measure, host))
                self.results.save(self._out)

    def _attempt(self, label: str, host: Host, act: Callable[[], None]) -> None:
        """A server that fails ends all its ways' part of the run."""
        if not self._working(host):
            return
        error = attempt(label, act)
        for _, each in self._working(host):
            each.error = error

    def _working(self, host: Host) -> list[tuple[Way, Entry]]:
        pairs = zip(host.ways, self._entries[host.server.name], strict=True)
        return [(way, each) for way, each in pairs if not each.error]

    def _check(self, host: Host) -> None:
        host.server.prepare()
        with started(host.server, MODEL, patience=0) as live:
            for way, each in self._working(host):
                each.versions = host.server.versions()
                each.error = attempt(f"check {each.server}", functools.partial(compare, host, way, each, live.port))

    def _measure(self, host: Host) -> None:
        with started(host.server, MODEL, self._method.patience_s) as live:
            session = Session(host, live, self._method)
            working = self._working(host)
            for way, each in working:
                each.rounds.append({})
                session.warm_up(way)
            for connections in self._method.connections:
                for way, each in working:
                    session.closed(way, each, connections)
            for size in MODEL.batches:
                for way, each in working:
                    session.batch(way, each, size)


class Session:
    """One start of a server. It adds to the last round of the entries that it is given."""

    def __init__(self, host: Host, live: Started, method: Method) -> None:
        self._host = host
        self._live = live
        self._method = method
        self._records = records(MODEL, MODEL.batches[-1])
        self._right = right(host, self._records)

    def warm_up(self, way: Way) -> None:
        self._load(way, way.sizes[0], 8, self._method.warmup_s)

    def closed(self, way: Way, each: Entry, connections: int) -> None:
        """Single records, and what of the processors' time the server took for one."""
        if 1 in way.sizes:
            self._keep(each, f"c{connections}", self._load(way, 1, connections, self._method.seconds))

    def batch(self, way: Way, each: Entry, size: int) -> None:
        if size in way.sizes:
            self._keep(each, f"batch{size}", self._load(way, size, 1, self._method.batch_s))

    def _load(self, way: Way, size: int, connections: int, seconds: float) -> dict[str, float]:
        """The answer is looked at before and after, so that a server which went wrong under the load is found."""
        ask = way.request(self._live.port, self._records[:size])
        answer = way.fetch(ask)
        before = cpu_seconds(self._live.child.tree())
        run = way.load(ask, answer, connections, seconds)
        used = cpu_between(before, cpu_seconds(self._live.child.tree()))
        expected = self._right[:size] if self._right is not None else None
        for body in (answer, way.fetch(ask)):
            judge(self._host.server, way.wire, True, body, expected)
        figures = {"rps": run.rps, "p50_us": run.p50_us, "p99_us": run.p99_us, "errors": run.errors}
        return {**figures, "cpu_us": used / run.requests * 1e6} if run.requests else {"errors": run.errors}

    def _keep(self, each: Entry, group: str, figures: dict[str, float]) -> None:
        each.errors += round(figures.pop("errors"))
        each.rounds[-1].update({f"{group}.{name}": round(value, 3) for name, value in figures.items()})


def entry(host: Host, way: Way) -> Entry:
    server = host.server
    return Entry(
        f"{server.name}.{way.name}", f"{server.title}: {way.title}", server.group, server.about, MODEL.name, {}
    )


def right(host: Host, batch: Floats) -> Floats | None:
    """What the interpreter answers; None for the floor."""
    return Reference(MODEL.tflite(VARIANT)).answer(batch) if host.server.variant else None


def compare(host: Host, way: Way, each: Entry, port: int) -> None:
    """Single records and batches one by one, then different single records from several clients at once."""
    batch = records(MODEL, max(MODEL.batches[-1], CLIENTS * ROUNDS))
    expected = right(host, batch)

    def differs(part: slice) -> float:
        body = way.fetch(way.request(port, batch[part]))
        return judge(host.server, way.wire, True, body, expected[part] if expected is not None else None)

    alone = [slice(0, 1), slice(1, 2), *(slice(0, size) for size in MODEL.batches)]
    found = [differs(part) for part in alone]
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        found += pool.map(differs, [slice(index, index + 1) for index in range(CLIENTS * ROUNDS)])
    each.checked_answers, each.max_difference = len(found), max(found)
