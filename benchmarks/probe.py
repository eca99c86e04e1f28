"""What a server's processes cost, and what machine this is."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

from benchmarks.connection import BrokenAnswerError, Connection
from benchmarks.process import Child, StartError

PACKAGES = (
    "litepool",
    "ai-edge-litert",
    "fastapi",
    "grpcio",
    "httptools",
    "keras",
    "numpy",
    "orjson",
    "pydantic",
    "starlette",
    "tensorflow",
    "tensorflow-cpu",
    "uvicorn",
    "uvloop",
)
MB = 1e6
IDLE_S = 0.05


@dataclasses.dataclass(frozen=True)
class Memory:
    """Of a process tree, in MB. PSS counts a page that n processes share as 1/n in each, so it adds up."""

    rss: float
    pss: float


def memory(tree: Iterable[psutil.Process]) -> Memory:
    rss = pss = 0
    for process in tree:
        try:
            info = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        rss += info.rss
        pss += getattr(info, "pss", info.rss)
    return Memory(rss / MB, pss / MB)


def cpu_seconds(tree: Iterable[psutil.Process]) -> dict[int, float]:
    """User and system time by process id."""
    used = {}
    for process in tree:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used[process.pid] = times.user + times.system
    return used


def cpu_between(before: dict[int, float], after: dict[int, float]) -> float:
    """Seconds used by those that live at the end; one that ended meanwhile took its figure with it."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def settle(child: Child, limit: float = 30) -> None:
    """Wait until the tree is idle: the first good answer may come while other workers are still loading."""
    deadline = time.monotonic() + limit
    before = cpu_seconds(child.tree())
    while time.monotonic() < deadline:
        time.sleep(0.5)
        after = cpu_seconds(child.tree())
        if cpu_between(before, after) < IDLE_S:
            return
        before = after


def wait_until_idle(patience: float, limit_percent: float = 10) -> float:
    """The machine's busy percent just before a start, waited for to fall below the limit as long as patience lasts."""
    deadline = time.monotonic() + patience
    busy = psutil.cpu_percent(interval=0.5)
    while busy > limit_percent and time.monotonic() < deadline:
        busy = psutil.cpu_percent(interval=1)
    return busy


def success(good: bool, _body: bytes) -> bool:
    """A 2xx, whatever it says."""
    return good


def healthy(good: bool, body: bytes) -> bool:
    """Litepool's own word for it. Raises StartError for one that says that it will never serve."""
    if b'"status":"failed"' in body.replace(b" ", b""):
        raise StartError(f"says {body[:1000].decode(errors='replace')}")
    return good and b'"ok"' in body


def wait_for_answer(
    child: Child, port: int, request: bytes, verdict: Callable[[bool, bytes], bool], limit: float
) -> float:
    """Seconds until an answer was found good. Raises StartError when the server ends or time is up."""
    started = time.perf_counter()
    seen = "no connection"
    while time.perf_counter() - started < limit:
        child.require_alive()
        try:
            with Connection(port, timeout=10) as connection:
                good, body = connection.fetch(request)
            if verdict(good, body):
                return time.perf_counter() - started
            seen = body[:300].decode(errors="replace")
        except (OSError, BrokenAnswerError) as error:
            seen = repr(error)
        time.sleep(0.01)
    raise StartError(f"no good answer in {limit:.0f} s, the last was {seen}:\n{child.log_end()}")


def machine() -> dict[str, str | int | float]:
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "wrk": tool_version(["wrk", "-v"]),
    }


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def tool_version(command: Sequence[str]) -> str:
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    words = (done.stdout + done.stderr).split()
    return words[1] if len(words) > 1 else "unknown"


def versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Of what is installed beside this process."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
