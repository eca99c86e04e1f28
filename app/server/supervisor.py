"""The parent of several workers: starts them on one listening socket, replaces those that die, and stops them."""

import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, BinaryIO

from app.server.listen import refuse_new
from app.settings import Settings

log = logging.getLogger(__name__)

_YOUNG_SECONDS = 5.0
_YOUNG_DEATHS = 3
"""So many workers dying so young, one after another, end the server: it cannot work here."""

_KILL_GRACE_SECONDS = 1.5


@dataclass(eq=False)
class Worker:
    """A child process, and the pipe on which it tells that it is ready; the pipe's end is the process's end."""

    process: "subprocess.Popen[bytes]"
    status: BinaryIO
    started: float = field(default_factory=monotonic)
    report: dict[str, Any] | None = None


class Supervisor:
    """Runs `settings.workers` processes until SIGTERM or SIGINT.

    Args:
        ready: called once, when every worker of the first generation has loaded its models.
    """

    def __init__(self, settings: Settings, sock: socket.socket, ready: Callable[[dict[str, Any]], None]) -> None:
        self._settings = settings
        self._sock = sock
        self._ready = ready
        self._told = False
        self._stopping = False
        self._young_deaths = 0
        self._workers: set[Worker] = set()
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Supervise; the exit code: 0, or 1 when workers cannot live."""
        with tempfile.TemporaryDirectory(prefix="litepool-metrics-") as metrics:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
            wake_read, wake_write = os.pipe()
            for end in (wake_read, wake_write):
                os.set_blocking(end, False)
            signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: None)
            self._selector.register(wake_read, selectors.EVENT_READ)
            for _ in range(self._settings.workers):
                self._start()
            return self._supervise(wake_read)

    def _supervise(self, wake: int) -> int:
        while True:
            for key, _ in self._selector.select():
                if key.fd == wake:
                    os.read(wake, 1024)
                    return self._stop()
                self._heard(key.data)
            if self._young_deaths >= _YOUNG_DEATHS:
                log.error("%d workers died within %g s of their start: giving up", self._young_deaths, _YOUNG_SECONDS)
                self._stop()
                return 1

    def _start(self, *options: str) -> None:
        read, write = os.pipe()
        # Without -P a folder called app in the current one would be taken for ours.
        command = [sys.executable, "-P", "-m", "app.server.worker", str(self._sock.fileno()), str(write), *options]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            pass_fds=(self._sock.fileno(), write),
        )
        os.close(write)
        assert process.stdin is not None
        process.stdin.write(self._settings.model_dump_json().encode() + b"\n")
        process.stdin.flush()
        worker = Worker(process, os.fdopen(read, "rb", buffering=0))
        self._workers.add(worker)
        self._selector.register(worker.status, selectors.EVENT_READ, worker)

    def _heard(self, worker: Worker) -> None:
        line = worker.status.readline()
        if line:
            worker.report = json.loads(line)
            self._young_deaths = 0
            self._all_loaded()
            return
        code = self._bury(worker)
        log.error("worker %d died (%s) and is replaced", worker.process.pid, show_exit(code))
        self._young_deaths = self._young_deaths + 1 if monotonic() - worker.started < _YOUNG_SECONDS else 0
        if self._young_deaths < _YOUNG_DEATHS:
            self._start(*(["--replacement"] if self._told else []))

    def _all_loaded(self) -> None:
        """Once every worker has loaded, have each say that it is ready, and say so ourselves: once."""
        reports = [worker.report for worker in self._workers if worker.report is not None]
        if len(reports) < len(self._workers):
            return
        for worker in self._workers:
            assert worker.process.stdin is not None
            with suppress(OSError):
                worker.process.stdin.write(b".")
                worker.process.stdin.flush()
        if not self._told:
            self._told = True
            self._ready(reports[0])

    def _bury(self, worker: Worker) -> int:
        self._selector.unregister(worker.status)
        worker.status.close()
        self._workers.discard(worker)
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        return worker.process.wait()

    def _stop(self) -> int:
        # First here: a connection that waits in the backlog is taken by the last worker that closes the socket.
        refuse_new(self._sock)
        self._sock.close()
        for worker in self._workers:
            worker.process.terminate()
        deadline = monotonic() + self._settings.drain_seconds + _KILL_GRACE_SECONDS
        for worker in list(self._workers):
            try:
                code = worker.process.wait(max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                log.error("worker %d did not stop in time and is killed", worker.process.pid)
                worker.process.kill()
                code = worker.process.wait()
            if code not in (0, -signal.SIGTERM):
                log.error("worker %d ended with %s", worker.process.pid, show_exit(code))
            self._bury(worker)
        return 0


def show_exit(code: int) -> str:
    """`exit code 3`, or the name of the signal."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
