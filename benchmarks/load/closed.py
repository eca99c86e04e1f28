"""The closed loop, by wrk: each connection sends its next request as soon as it has the answer.

wrk corrects its percentiles for coordinated omission: it adds the requests that a stall kept from being sent. So its
p99 may be compared with that of another wrk run, and not with the serial client's.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
from pathlib import Path

from benchmarks.wire import Request

SCRIPT = Path(__file__).with_name("post.lua")
MARK = "figures "


class WrkError(Exception):
    """wrk did not run, or printed no figures."""


@dataclasses.dataclass(frozen=True)
class Closed:
    """One run of wrk. Errors are failed connections, reads and writes, time-outs, and answers of 400 and up."""

    requests: int
    rps: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    errors: int


def command(request: Request, body: Path, connections: int, seconds: float) -> list[str]:
    """wrk takes whole seconds only."""
    base = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{max(round(seconds), 1)}s"]
    base += ["--timeout", "30s", "--script", str(SCRIPT), f"http://127.0.0.1:{request.port}{request.path}", "--"]
    return [*base, str(body), *(word for header in request.headers.items() for word in header)]


def parse(output: str) -> Closed:
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if len(lines) != 1:
        raise WrkError(f"wrk printed no figures:\n{output}")
    found = json.loads(lines[0].removeprefix(MARK))
    if not found["duration_us"]:
        raise WrkError("wrk ran for no time at all")
    return Closed(
        requests=found["requests"],
        # Of good answers: a server that refuses is not fast.
        rps=(found["requests"] - found["status"]) / found["duration_us"] * 1e6,
        p50_us=found["p50_us"],
        p99_us=found["p99_us"],
        p999_us=found["p999_us"],
        max_us=found["max_us"],
        errors=sum(found[kind] for kind in ("connect", "read", "write", "status", "timeout")),
    )


def measure(request: Request, connections: int, seconds: float) -> Closed:
    with tempfile.NamedTemporaryFile() as body:
        body.write(request.body)
        body.flush()
        words = command(request, Path(body.name), connections, seconds)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrkError(f"wrk ended with {done.returncode}: {done.stdout}{done.stderr}")
    return parse(done.stdout)
