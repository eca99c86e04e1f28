"""The parent of several workers: starts them, gives them connections, replaces those that die, and stops them."""

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
from functools import partial
from operator import attrgetter
from time import monotonic, sleep
from typing import Any, BinaryIO

from app.server.handover import Giver
from app.server.listen import BACKLOG_SECONDS, refuse_new
from app.settings import Settings

log = logging.getLogger(__name__)

_YOUNG_SECONDS = 5.0
_YOUNG_DEATHS = 3
"""So many workers dying so young, one after another, end the server: it cannot work here."""

_KILL_GRACE_SECONDS = 1.5

_MOST_AT_ONCE = 64
"""Connections accepted before workers are listened to again."""

_BREATH_SECONDS = 0.1


@dataclass(eq=False)
class Worker:
    """A child process, and the pipe on which it tells that it is ready; the pipe's end is the process's end."""

    process: "subprocess.Popen[bytes]"
    status: BinaryIO
    giver: Giver
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
        self._held: socket.socket | None = None
        """A connection that no worker has room for,"""
        self._full: list[Giver] = []
        """and those whose room is waited for, if there are any workers."""

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
            self._selector.register(self._sock, selectors.EVENT_READ, self._accept)
            return self._supervise(wake_read)

    def _supervise(self, wake: int) -> int:
        while True:
            for key, _ in self._selector.select():
                if key.fd == wake:
                    os.read(wake, 1024)
                    return self._stop()
                key.data()
            if self._young_deaths >= _YOUNG_DEATHS:
                log.error("%d workers died within %g s of their start: giving up", self._young_deaths, _YOUNG_SECONDS)
                self._stop()
                return 1

    def _start(self, *options: str) -> None:
        read, write = os.pipe()
        giver = Giver()
        # Without -P a folder called app in the current one would be taken for ours.
        command = [sys.executable, "-P", "-m", "app.server.worker", *map(str, (*giver.passed, write)), *options]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            pass_fds=(*giver.passed, write),
            # The terminal's Ctrl-C is for the parent, which ends the workers in order.
            process_group=0,
        )
        os.close(write)
        giver.handed()
        assert process.stdin is not None
        process.stdin.write(self._settings.model_dump_json().encode() + b"\n")
        process.stdin.flush()
        worker = Worker(process, os.fdopen(read, "rb", buffering=0), giver)
        self._workers.add(worker)
        self._selector.register(worker.status, selectors.EVENT_READ, partial(self._heard, worker))
        if self._held is not None:
            self._release()

    def _accept(self) -> None:
        """Take what waits, and give each connection to the worker that has the fewest."""
        for _ in range(_MOST_AT_ONCE):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptors or no memory, which will not change at once.
                log.warning("a connection could not be accepted: %s", error.strerror)
                sleep(_BREATH_SECONDS)
                return
            self._give(connection)
            if self._held is not None:
                return

    def _give(self, connection: socket.socket) -> None:
        usable = [worker for worker in self._workers if worker.giver.usable]
        # One that replaces another has nothing to answer with until it has loaded its models.
        loaded = [worker for worker in usable if worker.report is not None or not self._told]
        full: list[Giver] = []
        for giver in sorted((worker.giver for worker in loaded or usable), key=attrgetter("open")):
            try:
                if giver.give(connection):
                    connection.close()
                    return
            except BlockingIOError:
                full.append(giver)
            except OSError as error:
                log.warning("a connection could not be given to a worker: %s", error.strerror)
                sleep(_BREATH_SECONDS)
                full.append(giver)
        # No worker can take it now: no other is accepted until one can, or there is a new one.
        self._held = connection
        self._selector.unregister(self._sock)
        for giver in full:
            self._selector.register(giver, selectors.EVENT_WRITE, self._release)
        self._full = full

    def _release(self) -> None:
        """Go on accepting: a worker that was waited for has room, or is gone, or there is a new one."""
        connection, self._held = self._held, None
        if connection is None:
            return  # Two of them had room at once.
        for giver in self._full:
            self._selector.unregister(giver)
        self._full = []
        self._selector.register(self._sock, selectors.EVENT_READ, self._accept)
        self._give(connection)

    def _heard(self, worker: Worker) -> None:
        line = worker.status.readline()
        if line.endswith(b"\n"):
            worker.report = json.loads(line)
            self._young_deaths = 0
            self._all_loaded()
            return
        code = self._bury(worker)
        log.error("worker %d died (%s) and is replaced", worker.process.pid, show_exit(code))
        self._young_deaths = self._young_deaths + 1 if monotonic() - worker.started < _YOUNG_SECONDS else 0
        while self._young_deaths < _YOUNG_DEATHS:
            try:
                self._start(*(["--replacement"] if self._told else []))
            except OSError as error:
                # No process, no descriptor or no memory to be had for the moment.
                log.error("a worker could not be started: %s", error)
                self._young_deaths += 1
                sleep(_BREATH_SECONDS)
            else:
                return

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
        if worker.status in self._selector.get_map():
            self._selector.unregister(worker.status)
        worker.status.close()
        self._workers.discard(worker)
        worker.giver.usable = False
        if worker.giver in self._full:
            self._release()
        worker.giver.close()
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        return worker.process.wait()

    def _stop(self) -> int:
        refuse_new(self._sock)
        # The kernel finishes the connections that it has begun.
        begun = monotonic() + BACKLOG_SECONDS
        while (left := begun - monotonic()) > 0:
            for key, _ in self._selector.select(left):
                if key.fileobj is self._sock or isinstance(key.fileobj, Giver):
                    key.data()
                else:
                    # Not to be heard again and again: the end of a worker is found below.
                    self._selector.unregister(key.fileobj)
        self._sock.close()
        for giver in self._full:
            self._selector.unregister(giver)
        self._full = []
        for worker in self._workers:
            worker.giver.close()
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
