"""What the parent of several workers does, with processes that are stand-ins. The real ones are in tests/e2e."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from app.server import supervisor as supervisor_module
from app.server.channel import Message, Reader, encode
from app.server.handover import GRPC, HTTP, Giver, Taker
from app.server.listen import listen
from app.server.supervisor import Supervisor, show_exit
from app.settings import Settings

FILES = Path("/proc/self/fd")
REPORT: Message = {"report": {"reason": "", "serving": ["a"], "failed": []}}


class Process:
    """In place of a worker's process: its ends of everything, for the test to use."""

    def __init__(self, pid: int, passed: Sequence[int]) -> None:
        channel, count, self._said, *farewell = map(os.dup, passed)
        for end in farewell:
            os.close(end)
        self.taker = Taker(channel, count)
        hears, tells = os.pipe()
        self._hears = hears
        self.stdin = os.fdopen(tells, "wb")
        self._reader = Reader(hears)
        os.set_blocking(hears, False)
        self.pid = pid
        self.heard: list[Message] = []
        self.code: int | None = None
        self.kinds: list[bytes] = []
        """What is spoken on the connections taken."""

    def say(self, message: Message) -> None:
        os.write(self._said, encode(message))

    def listen(self) -> list[Message]:
        """All that it has been told."""
        try:
            while True:
                self.heard += self._reader.read()
        except BlockingIOError:
            return self.heard

    @property
    def setup(self) -> dict[str, Any]:
        setup: dict[str, Any] = self.listen()[0]["setup"]
        return setup

    def take(self) -> int:
        """Take up the connections that it was given; how many."""
        try:
            taken = self.taker.take()
        except EOFError:
            return 0
        for each, kind in taken:
            self.kinds.append(kind)
            each.close()
        return len(taken)

    def die(self, code: int = -9) -> None:
        self.code = code
        self.taker.close()
        os.close(self._said)
        os.close(self._hears)

    def wait(self, timeout: float | None = None) -> int:
        assert self.code is not None
        return self.code


class Parent:
    """A supervisor that is turned by hand, of processes that are stand-ins."""

    def __init__(self, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._stack = stack
        self.processes: list[Process] = []
        self.failures: list[OSError] = []
        """What starting a process ends in, the next times."""
        self.ready: list[dict[str, Any]] = []
        self.breaths: list[float] = []
        monkeypatch.setattr(subprocess, "Popen", self._open)
        monkeypatch.setattr(supervisor_module, "sleep", self.breaths.append)
        socks = {kind: stack.enter_context(listen("127.0.0.1", 0)) for kind in (HTTP, GRPC)}
        self._addresses = {kind: sock.getsockname() for kind, sock in socks.items()}
        self.supervisor = Supervisor(Settings(models_dir=folder, workers=2), socks, self.ready.append)
        self.supervisor.start()
        stack.callback(self._end)

    def _open(self, command: list[str], *, stdin: int, pass_fds: Sequence[int], process_group: int) -> Process:
        if self.failures:
            raise self.failures.pop()
        assert command[-len(pass_fds) :] == [str(fd) for fd in pass_fds]
        self.processes.append(Process(1000 + len(self.processes), pass_fds))
        return self.processes[-1]

    def turn_until(self, seen: Callable[[], object]) -> None:
        while not seen():
            assert self.supervisor.turn(-1)

    def settle(self) -> None:
        """Have all workers load."""
        for process in self.processes:
            process.say(REPORT)
        self.turn_until(lambda: self.ready)

    def connect(self, kind: bytes = HTTP) -> None:
        client = socket.create_connection(self._addresses[kind])
        self._stack.callback(client.close)

    def giver(self, index: int) -> Giver:
        return next(worker.giver for worker in self.supervisor._workers if worker.index == index)

    def given(self, index: int) -> int:
        """How many connections a worker has or will have."""
        return self.giver(index).open

    def make_small(self, index: int) -> None:
        """Have few connections fill a worker that does not take them."""
        with socket.socket(fileno=os.dup(self.giver(index).fileno())) as channel:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

    def fill(self) -> None:
        """Connect until there is a connection that no worker has room for."""
        for index in (0, 1):
            self.make_small(index)
        while self.supervisor._held is None:
            self.connect()
            self.supervisor.turn(-1)

    def replaced(self, process: Process) -> Process:
        """The process that comes in the place of one that dies."""
        count = len(self.processes)
        process.die()
        self.turn_until(lambda: len(self.processes) > count)
        return self.processes[-1]

    def _end(self) -> None:
        supervisor = self.supervisor
        for worker in list(supervisor._workers):
            cast("Process", worker.process).die(0)
            supervisor._bury(worker)
        if supervisor._held is not None:
            supervisor._held[0].close()
        supervisor._selector.close()
        for end in supervisor._farewell:
            os.close(end)


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Parent]:
    with ExitStack() as stack:
        yield Parent(stack, monkeypatch, tmp_path)


@pytest.mark.parametrize(("code", "shown"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-15, "SIGTERM")])
def test_the_end_of_a_worker_is_told_by_its_exit_code_or_the_name_of_its_signal(code: int, shown: str) -> None:
    assert show_exit(code) == shown


# Loading


def test_each_worker_is_told_its_settings_and_its_place(parent: Parent) -> None:
    setups = [process.setup for process in parent.processes]

    assert [setup["index"] for setup in setups] == [0, 1]
    assert all(Settings.model_validate(setup["settings"]).workers == 2 for setup in setups)
    assert [setup["load_first"] for setup in setups] == [False, False]
    assert [setup["unloaded"] for setup in setups] == [[], []]


def test_it_is_ready_once_when_the_last_worker_has_loaded_and_all_are_told(parent: Parent) -> None:
    first, second = parent.processes
    first.say(REPORT)
    parent.supervisor.turn(-1)
    assert parent.ready == []
    assert {"settled": True} not in first.listen()

    second.say(REPORT)
    parent.supervisor.turn(-1)

    assert parent.ready == [REPORT["report"]]
    assert first.listen()[-1] == second.listen()[-1] == {"settled": True}
    parent.replaced(first).say(REPORT)
    parent.turn_until(lambda: parent.processes[-1].listen()[-1] == {"settled": True})
    assert len(parent.ready) == 1


# Orders


def test_what_one_worker_asks_is_ordered_of_both_and_answered_when_both_have_done_it(parent: Parent) -> None:
    parent.settle()
    first, second = parent.processes
    second.say({"ask": 5, "do": "unload", "model": "a"})
    order = {"order": 1, "do": "unload", "model": "a"}
    parent.turn_until(lambda: first.listen()[-1] == order and second.listen()[-1] == order)

    first.say({"done": 1, "error": None})
    parent.supervisor.turn(-1)
    assert second.listen()[-1] == order
    second.say({"done": 1, "error": None})
    parent.supervisor.turn(-1)

    assert second.listen()[-1] == {"answer": 5, "error": None}


def test_a_worker_that_dies_over_an_order_does_not_hold_it_up_and_its_successor_is_told_of_it(parent: Parent) -> None:
    parent.settle()
    first, second = parent.processes
    second.say({"ask": 1, "do": "unload", "model": "a"})
    parent.supervisor.turn(-1)
    second.say({"done": 1, "error": None})
    parent.supervisor.turn(-1)

    third = parent.replaced(first)

    assert second.listen()[-1] == {"answer": 1, "error": None}
    assert third.setup["unloaded"] == ["a"]
    assert third.setup["index"] == 0
    assert third.setup["load_first"], "there is one that has models to answer with"


def test_a_worker_that_does_not_listen_is_not_waited_for_and_hears_all_of_it_later(parent: Parent) -> None:
    parent.settle()
    first, second = parent.processes
    first.listen()
    asked = 3000
    for number in range(asked):
        first.say({"ask": number, "do": "load", "model": "a"})
        if number % 100 == 0:
            parent.supervisor.turn(-1)
    # Most are refused, since too many wait already, which is more to tell than the pipe holds.
    parent.turn_until(lambda: sum("answer" in message for message in first.listen()) == asked - 65)

    answered = [message["answer"] for message in first.heard if "answer" in message]
    assert answered == list(range(65, asked))
    assert second.listen()[-1] == {"order": 1, "do": "load", "model": "a"}


# Connections


def test_connections_go_to_the_worker_that_has_the_fewest(parent: Parent) -> None:
    parent.settle()
    first, second = parent.processes
    taken = [0, 0]
    for _ in range(6):
        parent.connect()

    def all_taken() -> bool:
        taken[0] += first.take()
        taken[1] += second.take()
        return sum(taken) == 6

    parent.turn_until(all_taken)

    assert taken == [3, 3]
    for _ in range(3):
        first.taker.closed()
        parent.connect()
    parent.turn_until(lambda: first.take() + sum(taken) > 6)
    assert second.take() == 0


def test_connections_of_each_kind_are_told_apart_and_counted_together(parent: Parent) -> None:
    parent.settle()
    first, second = parent.processes
    for kind in (GRPC, HTTP, GRPC, HTTP):
        parent.connect(kind)

    parent.turn_until(lambda: parent.given(0) + parent.given(1) == 4)

    assert (first.take(), second.take()) == (2, 2)
    assert sorted(first.kinds + second.kinds) == [GRPC, GRPC, HTTP, HTTP]


def test_no_kind_is_accepted_while_a_connection_finds_no_room(parent: Parent) -> None:
    parent.settle()
    parent.fill()
    before = parent.given(0) + parent.given(1)
    parent.connect(GRPC)
    parent.connect(HTTP)

    parent.processes[0].take()
    parent.turn_until(lambda: parent.given(0) + parent.given(1) == before + 3)

    assert parent.supervisor._held is None


def test_the_connections_of_a_worker_that_hangs_go_to_the_other_when_it_is_full(parent: Parent) -> None:
    parent.settle()
    hung, well = parent.processes
    parent.make_small(0)

    # Each gets as many as the other, until the one is full.
    in_a_row = 0
    while in_a_row < 10:
        parent.connect()
        parent.supervisor.turn(-1)
        in_a_row = in_a_row + 1 if well.take() else 0

    assert parent.given(0) > 0
    assert parent.given(1) >= parent.given(0) + 9
    assert hung.take() == parent.given(0)


def test_when_both_are_full_no_more_are_accepted_until_one_has_room(parent: Parent) -> None:
    parent.settle()
    parent.fill()
    before = parent.given(0) + parent.given(1)
    parent.connect()

    taken = parent.processes[0].take()
    # The one that waited, and the one that came after it.
    parent.turn_until(lambda: parent.given(0) + parent.given(1) == before + 2)

    assert parent.supervisor._held is None
    assert taken + parent.processes[0].take() == parent.given(0)


def test_a_replacement_takes_what_waits_once_it_has_loaded_though_the_other_hangs(parent: Parent) -> None:
    parent.settle()
    parent.fill()
    before = parent.given(1)
    third = parent.replaced(parent.processes[0])
    assert third.take() == 0

    third.say(REPORT)
    parent.turn_until(lambda: parent.supervisor._held is None)

    assert third.take() == 1
    assert parent.given(1) == before


def test_a_replacement_gets_no_connection_before_it_has_loaded_if_another_has(parent: Parent) -> None:
    parent.settle()
    first, second = parent.processes
    third = parent.replaced(first)
    for _ in range(4):
        parent.connect()
    parent.turn_until(lambda: parent.given(1) == 4)
    assert third.take() == 0

    third.say(REPORT)
    parent.turn_until(lambda: third.listen()[-1] == {"settled": True})
    parent.connect()
    parent.supervisor.turn(-1)

    assert third.take() == 1
    assert second.take() == 4


# Replacements


def test_a_replacement_that_cannot_be_started_at_once_is_started_a_moment_later_in_the_same_place(
    parent: Parent, caplog: pytest.LogCaptureFixture
) -> None:
    parent.settle()
    parent.failures = [OSError(11, "Resource temporarily unavailable")]

    third = parent.replaced(parent.processes[1])
    third.say(REPORT)
    parent.turn_until(lambda: third.listen()[-1] == {"settled": True})

    assert third.setup["index"] == 1
    assert len(parent.breaths) == 1
    assert caplog.messages[-1] == "a worker could not be started: [Errno 11] Resource temporarily unavailable"


@pytest.mark.skipif(not FILES.exists(), reason="open files are counted where the system lists them")
def test_a_start_that_fails_leaves_no_file_open(parent: Parent) -> None:
    before = sum(1 for _ in FILES.iterdir())
    parent.failures = [OSError(11, "Resource temporarily unavailable")]

    with pytest.raises(OSError, match="temporarily"):
        parent.supervisor._start(0)

    assert sum(1 for _ in FILES.iterdir()) == before


def test_a_replacement_that_cannot_be_started_at_all_is_given_up(parent: Parent) -> None:
    parent.settle()
    parent.failures = [OSError(11, "Resource temporarily unavailable")] * 10
    parent.processes[0].die()

    parent.supervisor.turn(-1)

    assert len(parent.failures) > 5
    assert len(parent.processes) == 2
