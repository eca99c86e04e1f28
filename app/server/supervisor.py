"""The parent of several workers: starts them, gives them connections, replaces those that die, and stops them."""

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from time import monotonic, sleep
from typing import IO, Any, BinaryIO

from app.server.channel import Message, Reader, Writer
from app.server.dispatch import Dispatch
from app.server.handover import Giver
from app.server.listen import BACKLOG_SECONDS, refuse_new, short_folder
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
    """A child process, and the pipes on which it speaks and is spoken to; the end of the first is the process's end.

    `index` is its place among the workers, which one that replaces it takes over.
    """

    index: int
    process: "subprocess.Popen[bytes]"
    status: BinaryIO
    reader: Reader
    writer: Writer
    giver: Giver
    started: float = field(default_factory=monotonic)
    report: dict[str, Any] | None = None

    @property
    def stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin


class Supervisor:
    """Runs `settings.workers` processes until SIGTERM or SIGINT.

    Args:
        socks: those that listen, by what is spoken on their connections.
        ready: called once, when every worker of the first generation has loaded its models.
    """

    def __init__(
        self, settings: Settings, socks: Mapping[bytes, socket.socket], ready: Callable[[dict[str, Any]], None]
    ) -> None:
        self._settings = settings
        self._socks = socks
        self._ready = ready
        self._told = False
        self._young_deaths = 0
        self._workers: set[Worker] = set()
        self._selector = selectors.DefaultSelector()
        self._held: tuple[socket.socket, bytes] | None = None
        """A connection that no worker has room for,"""
        self._full: list[Giver] = []
        """and those whose room is waited for, if there are any workers."""
        self._dispatch = Dispatch[Worker](self._tell, settings.conversion_timeout + settings.load_timeout)
        self._folder = ""
        """Where the workers' own sockets are."""
        self._farewell = (-1, -1)
        """The ends of the workers' pipe of that name."""

    def run(self) -> int:
        """Supervise; the exit code: 0, or 1 when workers cannot live."""
        # A folder so made is this user's alone.
        with (
            tempfile.TemporaryDirectory(prefix="litepool-metrics-") as metrics,
            tempfile.TemporaryDirectory(prefix="litepool-", dir=short_folder()) as self._folder,
        ):
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
            wake_read, wake_write = os.pipe()
            for end in (wake_read, wake_write):
                os.set_blocking(end, False)
            signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: None)
            self._selector.register(wake_read, selectors.EVENT_READ)
            self.start()
            while self.turn(wake_read):
                if self._young_deaths >= _YOUNG_DEATHS:
                    log.error(
                        "%d workers died within %g s of their start: giving up", self._young_deaths, _YOUNG_SECONDS
                    )
                    self._stop()
                    return 1
            self._stop()
            return 0

    def start(self) -> None:
        """Start the workers, and accept connections for them from now on."""
        self._farewell = os.pipe()
        for index in range(self._settings.workers):
            self._start(index)
        self._listen()

    def _listen(self) -> None:
        for kind, sock in self._socks.items():
            self._selector.register(sock, selectors.EVENT_READ, partial(self._accept, sock, kind))

    def turn(self, wake: int) -> bool:
        """Wait until there is something to do, and do it; False if it is that `wake` can be read."""
        for key, _ in self._selector.select(self._dispatch.left_seconds()):
            if key.fd == wake:
                return False
            key.data()
        self._dispatch.expire()
        return True

    def _start(self, index: int) -> None:
        with ExitStack() as stack:
            read, write = os.pipe()
            stack.callback(os.close, write)
            status = os.fdopen(read, "rb", buffering=0)
            giver = Giver()
            stack.callback(giver.handed)
            passed = (*giver.passed, write, *self._farewell)
            # Without -P a folder called app in the current one would be taken for ours.
            command = [sys.executable, "-P", "-m", "app.server.worker", *map(str, passed)]
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    pass_fds=passed,
                    # The terminal's Ctrl-C is for the parent, which ends the workers in order.
                    process_group=0,
                )
            except OSError:
                status.close()
                giver.close()
                raise
        assert process.stdin is not None
        writer = Writer(process.stdin.fileno())
        worker = Worker(index, process, status, Reader(read), writer, giver)
        self._workers.add(worker)
        self._selector.register(worker.status, selectors.EVENT_READ, partial(self._heard, worker))
        setup = {
            "settings": self._settings.model_dump(mode="json"),
            "index": index,
            "folder": self._folder,
            "unloaded": self._dispatch.unloaded,
            # One that replaces another gets no connection before it has models to answer with.
            "load_first": self._told,
        }
        self._tell(worker, {"setup": setup})
        self._dispatch.join(worker)
        if self._held is not None:
            self._release()

    def _tell(self, worker: Worker, message: Message) -> None:
        if worker in self._workers and not worker.writer.send(message):
            stdin = worker.stdin
            if stdin not in self._selector.get_map():
                self._selector.register(stdin, selectors.EVENT_WRITE, partial(self._tell_rest, worker))

    def _tell_rest(self, worker: Worker) -> None:
        if worker in self._workers and worker.writer.flush():
            self._selector.unregister(worker.stdin)

    def _accept(self, sock: socket.socket, kind: bytes) -> None:
        """Take what waits, and give each connection to the worker that has the fewest."""
        if self._is_full():
            return  # Another socket's connection has found no room in this same turn.
        for _ in range(_MOST_AT_ONCE):
            try:
                connection, _ = sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptors or no memory, which will not change at once.
                log.warning("a connection could not be accepted: %s", error.strerror)
                sleep(_BREATH_SECONDS)
                return
            self._give(connection, kind)
            if self._is_full():
                return

    def _is_full(self) -> bool:
        """Whether a connection waits for room."""
        return self._held is not None

    def _give(self, connection: socket.socket, kind: bytes) -> None:
        usable = [worker for worker in self._workers if worker.giver.usable]
        # One that replaces another has nothing to answer with until it has loaded its models.
        loaded = [worker for worker in usable if worker.report is not None or not self._told]
        full: list[Giver] = []
        for giver in sorted((worker.giver for worker in loaded or usable), key=attrgetter("open")):
            try:
                if giver.give(connection, kind):
                    connection.close()
                    return
            except BlockingIOError:
                full.append(giver)
            except OSError as error:
                log.warning("a connection could not be given to a worker: %s", error.strerror)
                sleep(_BREATH_SECONDS)
                full.append(giver)
        # No worker can take it now: no other is accepted until one can, or there is a new one.
        self._held = connection, kind
        for sock in self._socks.values():
            self._selector.unregister(sock)
        for giver in full:
            self._selector.register(giver, selectors.EVENT_WRITE, self._release)
        self._full = full

    def _release(self) -> None:
        """Go on accepting: a worker that was waited for has room, or is gone, or there is a new one."""
        held, self._held = self._held, None
        if held is None:
            return  # Two of them had room at once.
        for giver in self._full:
            self._selector.unregister(giver)
        self._full = []
        self._listen()
        self._give(*held)

    def _heard(self, worker: Worker) -> None:
        try:
            messages = worker.reader.read()
        except EOFError:
            self._replace(worker)
            return
        for message in messages:
            if "report" in message:
                worker.report = message["report"]
                self._young_deaths = 0
                self._all_loaded()
                if self._held is not None:
                    # Until now the connection waited for the others alone, which may hang.
                    self._release()
            else:
                self._dispatch.heard(worker, message)

    def _replace(self, worker: Worker) -> None:
        code = self._bury(worker)
        log.error("worker %d died (%s) and is replaced", worker.process.pid, show_exit(code))
        self._young_deaths = self._young_deaths + 1 if monotonic() - worker.started < _YOUNG_SECONDS else 0
        while self._young_deaths < _YOUNG_DEATHS:
            try:
                self._start(worker.index)
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
            self._tell(worker, {"settled": True})
        if not self._told:
            self._told = True
            self._ready(reports[0])

    def _bury(self, worker: Worker) -> int:
        for pipe in (worker.status, worker.stdin):
            if pipe in self._selector.get_map():
                self._selector.unregister(pipe)
            pipe.close()
        self._workers.discard(worker)
        self._dispatch.leave(worker)
        worker.giver.usable = False
        if worker.giver in self._full:
            self._release()
        worker.giver.close()
        return worker.process.wait()

    def _stop(self) -> None:
        for sock in self._socks.values():
            refuse_new(sock)
        # The kernel finishes the connections that it has begun.
        begun = monotonic() + BACKLOG_SECONDS
        while (left := begun - monotonic()) > 0:
            for key, _ in self._selector.select(left):
                if key.fileobj in self._socks.values() or isinstance(key.fileobj, Giver):
                    key.data()
                else:
                    # Not to be heard again and again: the end of a worker is found below.
                    self._selector.unregister(key.fileobj)
        for sock in self._socks.values():
            sock.close()
        for giver in self._full:
            self._selector.unregister(giver)
        self._full = []
        for end in self._farewell:
            os.close(end)
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


def show_exit(code: int) -> str:
    """`exit code 3`, or the name of the signal."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
