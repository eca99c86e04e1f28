"""The command line: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import life
from benchmarks.extras import neighbour, soak
from benchmarks.method import QUICK, Method
from benchmarks.models import CONV, MLP, MODELS
from benchmarks.paths import CACHE, DOCS, RESULTS
from benchmarks.peers import PEERS
from benchmarks.process import become_subreaper
from benchmarks.render import render
from benchmarks.results import Entry, load
from benchmarks.run import Run
from benchmarks.servers import EXPRESS, EXPRESS_BOTH, EXPRESS_INT8, FLOOR, SERVERS, Server
from benchmarks.ways import HOSTS
from benchmarks.wires import METHOD as WIRES
from benchmarks.wires import WireRun

PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client"}
"""What has each load generator on Debian."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    known = [server.name for server in (*SERVERS, *PEERS)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure servers on this machine.")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything runs")
    parser.add_argument("--peers", action="store_true", help="other servers, beside the floor and Litepool")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=known, help=f"of {', '.join(known)}")
    parser.add_argument("--models", nargs="+", metavar="MODEL", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rounds", type=int, help="alternating rounds; the tables show their medians")
    parser.add_argument("--seconds", type=float, help="length of each measurement")
    parser.add_argument("--rate-step", type=int, metavar="N", help="in the open loop only every N-th rate")
    parser.add_argument("--soak", type=float, default=0, metavar="S", help="also hold Litepool at 80%% load so long")
    parser.add_argument("--out", type=Path, help="the results' JSON file; docs/ is written for the default only")
    parser.add_argument("--extras", action="store_true", help="only what follows the rounds of earlier results")
    parser.add_argument("--wires", action="store_true", help="only the wire formats, beside the floor and Triton")
    parser.add_argument("--life", action="store_true", help="only swaps, hostile files, reloads and unlike clients")
    parser.add_argument("--check", action="store_true", help="only check the answers")
    return parser.parse_args(arguments)


def choose(options: argparse.Namespace) -> list[Server]:
    """With --peers those of the baseline that show what the peers are to be held against."""
    offered = (FLOOR, EXPRESS_INT8, EXPRESS, *PEERS) if options.peers else SERVERS
    if not options.only:
        return list(offered)
    return [server for server in (*SERVERS, *PEERS) if server.name in options.only]


def method(options: argparse.Namespace) -> Method:
    given = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "rate_step": options.rate_step,
        "soak_s": options.soak,
    }
    base = QUICK if options.quick else WIRES if options.wires else Method()
    return dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})


def default_out(options: argparse.Namespace) -> Path:
    """A partial run does not overwrite the results that the documentation shows."""
    name = next((f"{kind}.json" for kind in ("life", "wires", "peers") if getattr(options, kind)), "bench.json")
    partial = options.quick or options.only or options.check or len(options.models) < len(MODELS)
    return CACHE / "results" / name if partial else RESULTS / name


def show(out: Path) -> None:
    render(out.parent, DOCS if out.parent == RESULTS else out.parent)


def live(length: life.Length, out: Path) -> int:
    found = life.measure(length)
    found.save(out)
    show(out)
    for fault in found.faults():
        print(f"a fault: {fault}", file=sys.stderr)
    return 1 if found.faults() else 0


def missing(*programs: str) -> list[str]:
    """What to do about each program that is not installed."""
    return [
        f"{name} is needed and was not found; on Debian and Ubuntu: apt-get install {PACKAGES[name]}"
        for name in programs
        if not shutil.which(name)
    ]


def wired(options: argparse.Namespace, out: Path) -> int:
    hosts = [host for host in HOSTS if not options.only or host.server.name in options.only]
    run = WireRun(hosts, method(options), out)
    run.check()
    if not options.check:
        run.measure()
        show(out)
    return tell(run.failed)


def tell(failed: Sequence[Entry]) -> int:
    for entry in failed:
        print(f"not measured: {entry.server} with {entry.model}: {entry.error.splitlines()[0]}", file=sys.stderr)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    out: Path = options.out or default_out(options)
    if options.life:
        return live(life.QUICK if options.quick else life.Length(), out)
    if lacking := missing("wrk", *(["h2load"] if options.wires else [])):
        print(*lacking, sep="\n", file=sys.stderr)
        return 2
    become_subreaper()
    # So that the server under measurement is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if options.wires:
        return wired(options, out)
    run = Run(choose(options), [MODELS[name] for name in options.models], method(options), out)
    if options.extras:
        run.results = load(out)
    else:
        run.check()
    if not options.check:
        if not options.extras:
            run.measure()
        if not options.peers and run.results.entry(EXPRESS.name, MLP.name):
            run.extra("neighbour", lambda: neighbour(EXPRESS_BOTH, MLP, CONV, method(options)))
            if options.soak:
                run.extra("soak", lambda: soak(EXPRESS, MLP, run.results, options.soak))
        run.save()
        show(out)
    return tell(run.failed)


if __name__ == "__main__":
    sys.exit(main())
