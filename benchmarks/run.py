"""A whole run: every server checked first, then measured in alternating rounds (A B C, A B C, ...)."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import itertools
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.check import WrongAnswerError, check, request
from benchmarks.connection import BrokenAnswerError
from benchmarks.load.closed import WrkError
from benchmarks.load.h2 import H2loadError
from benchmarks.measure import Measurement, Round
from benchmarks.method import Method
from benchmarks.models import VARIANTS, Model, Reference, prepare, records
from benchmarks.paths import CACHE
from benchmarks.probe import healthy, machine, settle, success, versions, wait_for_answer, wait_until_idle
from benchmarks.process import Child, StartError, running
from benchmarks.results import Entry, Figures, Results
from benchmarks.servers.base import Launch, Server
from benchmarks.stats import percentile

# What one server's failure can look like from here; it ends that server's part of the run and no other's.
FAILURES = (
    StartError,
    WrongAnswerError,
    BrokenAnswerError,
    WrkError,
    H2loadError,
    OSError,
    subprocess.SubprocessError,
)
PORTS = range(18000, 28000, 10)
PORTS_IN_A_ROW = 4
LEAST_INVOKES = 5


@dataclasses.dataclass(frozen=True)
class Started:
    """A server that has given its first good answer."""

    child: Child
    port: int
    start_s: float
    busy_percent: float


@contextlib.contextmanager
def started(server: Server, model: Model, patience: float = 20) -> Iterator[Started]:
    """Waits so many seconds for the machine to be idle, then for the server's first good answer."""
    busy = wait_until_idle(patience)
    folder = CACHE / "run" / f"{server.name}-{model.name}"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True))
        launch = Launch(free_port(), model, folder, Path(scratch))
        command, env = server.command(launch), server.env(launch)
        began = time.perf_counter()
        child = stack.enter_context(running(command, env, server.cwd, folder / "server.log"))
        if server.health:
            get = f"GET {server.health} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
            wait_for_answer(child, launch.port, get, healthy, server.start_limit)
        ask = request(server, model, launch.port, server.json, records(model, 1)).raw()
        wait_for_answer(child, launch.port, ask, success, server.start_limit)
        took = time.perf_counter() - began
        settle(child)
        yield Started(child, launch.port, took, busy)


def free_port() -> int:
    """The first of four free ones in a row, below those that the system gives to clients: some peers take the next."""
    for port in PORTS:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for offset in range(PORTS_IN_A_ROW):
                taken = stack.enter_context(socket.socket())
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken.bind(("127.0.0.1", port + offset))
            return port
    raise OSError("no four free ports in a row")


def invoke_us(model: Model, variant: str, size: int, seconds: float) -> float:
    """The interpreter alone, one thread, this process: the median of its invokes."""
    reference = Reference(model.tflite(variant))
    reference.load(records(model, size))
    taken: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(taken) < LEAST_INVOKES or time.perf_counter() < deadline:
        began = time.perf_counter()
        reference.invoke()
        taken.append((time.perf_counter() - began) * 1e6)
    return percentile(np.asarray(taken), 50)


def invokes(results: Results, model: Model, variants: Sequence[str], seconds: float) -> None:
    """One round of the interpreter alone, kept in the results."""
    for variant, size in itertools.product(variants, (1, *model.batches)):
        taken = results.invoke_us[model.name].setdefault(f"{variant}.{size}", [])
        taken.append(round(invoke_us(model, variant, size, seconds), 2))


def begin(models: Sequence[Model], method: Method) -> Results:
    """With nothing measured yet."""
    return Results(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine(),
        versions=versions(),
        method=dataclasses.asdict(method),
        models={model.name: model.about for model in models},
        batches={model.name: list(model.batches) for model in models},
        invoke_us={model.name: {} for model in models},
        entries=[],
    )


def attempt(label: str, act: Callable[[], None]) -> str:
    """Does it and says how long it took; returns what failed, nothing when all went well."""
    began = time.monotonic()
    try:
        act()
    except subprocess.CalledProcessError as error:
        # Its own message has the paths of this machine.
        found = f"the load client failed with exit code {error.returncode}"
    except FAILURES as error:
        found = f"{type(error).__name__}: {error}"
    else:
        print(f"{label}: {time.monotonic() - began:.0f} s", flush=True)
        return ""
    print(f"{label}: FAILED\n{found}", flush=True)
    return found


class Run:
    """One run: `check` then `measure`. Saves its results after every server, so an ended run has what it measured."""

    def __init__(self, servers: Sequence[Server], models: Sequence[Model], method: Method, out: Path) -> None:
        self._targets = list(itertools.product(models, servers))
        self._models = models
        self._method = method
        self._out = out
        self._samples: dict[str, NDArray[np.float64]] = {}
        self.results = begin(models, method)
        self._entries: dict[tuple[str, str], Entry] = {}

    @property
    def failed(self) -> list[Entry]:
        return [entry for entry in self.results.entries if entry.error]

    def check(self) -> None:
        """Make what is needed, start each server once and compare its answers. Those that fail are not measured."""
        for model in self._models:
            prepare(model)
        for model, server in self._targets:
            entry = Entry(server.name, server.title, server.group, server.about, model.name, {})
            self._entries[model.name, server.name] = entry
            self.results.entries.append(entry)
            check_it = functools.partial(self._check, server, model, entry)
            entry.error = attempt(f"check {server.name} {model.name}", check_it)

    def measure(self) -> None:
        for number in range(self._method.rounds):
            self._invokes()
            for model, server in self._targets:
                entry = self._entries[model.name, server.name]
                if not entry.error:
                    label = f"round {number + 1}/{self._method.rounds} {server.name} {model.name}"
                    entry.error = attempt(label, functools.partial(self._measure, server, model, entry))
                    self.save()

    def extra(self, name: str, act: Callable[[], Figures]) -> None:
        """A measurement that belongs to no one server's rounds; when it fails, the run goes on and has failed."""
        entry = Entry(name, name, "extra", "", "", {})

        def keep() -> None:
            self.results.extras[name] = act()

        entry.error = attempt(name, keep)
        if entry.error:
            self.results.entries.append(entry)

    def save(self) -> None:
        self.results.save(self._out)
        if not self._samples:
            return
        arrays: dict[str, Any] = dict(self._samples)
        np.savez_compressed(self._out.with_suffix(".npz"), **arrays)

    def _check(self, server: Server, model: Model, entry: Entry) -> None:
        server.prepare()
        entry.versions = server.versions()
        with started(server, model, patience=0) as live:
            checked = check(server, model, live.port)
        entry.checked_answers, entry.max_difference = checked.answers, checked.max_difference

    def _measure(self, server: Server, model: Model, entry: Entry) -> None:
        with started(server, model, self._method.patience_s) as live:
            done = Measurement(server, model, live.port, live.child, self._method).run()
        self._keep(entry, live, done)

    def _keep(self, entry: Entry, live: Started, done: Round) -> None:
        start = {"start.seconds": round(live.start_s, 3), "start.busy_percent": live.busy_percent}
        entry.rounds.append({**start, **done.figures})
        entry.curves.append(done.curves)
        entry.open_loop.append([dataclasses.asdict(point) for point in done.open_loop])
        entry.errors += done.errors
        for name, values in done.samples.items():
            self._samples[f"{entry.server}/{entry.model}/{name}/{len(entry.rounds)}"] = values

    def _invokes(self) -> None:
        for model in self._models:
            invokes(self.results, model, VARIANTS, min(self._method.seconds, 1))
