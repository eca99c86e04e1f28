"""A real `litepool serve`, as a process of its own, and a small client for it."""

import http.client
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM, Signals
from time import monotonic, sleep
from types import TracebackType
from typing import IO, Any, Self, TypeVar
from urllib.parse import urlsplit

import orjson
import psutil

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
LITEPOOL = Path(sys.executable).with_name("litepool")

PATIENCE = 120.0
"""Seconds after which something that should have happened is a failure; no test measures against it."""

UNHURRIED: dict[str, str | Path] = {"drain_seconds": "60", "request_timeout": "120"}
"""Limits of a server under test, unless a test says otherwise: what it has to do may take a busy machine long."""

T = TypeVar("T")


def environment(**settings: str | Path) -> dict[str, str]:
    """This process's environment with only the `settings` given, named without their prefix, of all of Litepool's."""
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(("LITEPOOL_", "PROMETHEUS_"))}
    return theirs | {f"LITEPOOL_{name.upper()}": str(value) for name, value in settings.items()}


def poll(what: str, look: Callable[[], T]) -> T:
    """Look again and again until there is something true to see, where nothing outside tells of it."""
    deadline = monotonic() + PATIENCE
    while not (seen := look()):
        assert monotonic() < deadline, f"never came: {what}"
        sleep(0.01)
    return seen


class Lines:
    """The lines of a pipe, read by a thread as they come."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._lines: list[str] = []
        self._ended = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            for line in self._pipe:
                with self._condition:
                    self._lines.append(line.rstrip("\n"))
                    self._condition.notify_all()
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def wait_for(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """The first line that matches, once it is there."""
        expression = re.compile(pattern)
        seen = 0
        deadline = monotonic() + patience
        with self._condition:
            while True:
                for line in self._lines[seen:]:
                    if found := expression.search(line):
                        return found
                seen = len(self._lines)
                assert not self._ended, f"the output ended without {pattern!r}:\n{self.text()}"
                assert self._condition.wait(deadline - monotonic()), f"no line {pattern!r} came:\n{self.text()}"

    def end(self) -> list[str]:
        """All lines, once the writer has closed the pipe."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "something still holds the pipe open"
        return self._lines

    def text(self) -> str:
        return "\n".join(self._lines)


class Litepool:
    """A server under test. Used as a context it is ended, by its own pid, if the test has not done so.

    Args:
        arguments: of `litepool serve`; the port is chosen by the system.
        settings: as variables of the environment, beside `UNHURRIED`.
        command: in place of `litepool serve ARGUMENTS --port 0`.
        cwd: the folder it is started in.
    """

    def __init__(
        self,
        *arguments: str | Path,
        settings: dict[str, str | Path],
        command: list[str | Path] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.process = subprocess.Popen(
            command or [LITEPOOL, "serve", *arguments, "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment(**(UNHURRIED | settings)),
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out = Lines(self.process.stdout)
        self.log = Lines(self.process.stderr)
        self.url = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_ready(self, patience: float = PATIENCE) -> Self:
        """Wait for the ready line, which has the URL."""
        try:
            self.url = self.out.wait_for(r"^Litepool .* on (http://[^\s:]+:\d+)", patience)[1]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.text()}") from None
        return self

    def wait_listening(self) -> Self:
        """Wait for the open port, which comes long before the ready line where a model must be converted."""

        def listening() -> Any:
            connections = psutil.Process(self.pid).net_connections("tcp")
            return next((each for each in connections if each.status == psutil.CONN_LISTEN), None)

        self.url = "http://{0.ip}:{0.port}".format(poll("an open port", listening).laddr)
        return self

    def client(self) -> "Client":
        return Client(self.url)

    def children(self, command: str) -> list[psutil.Process]:
        """The child processes that run `command`."""
        found = []
        for child in psutil.Process(self.pid).children():
            try:
                if command in " ".join(child.cmdline()):
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        return self.children("app.server.worker")

    def wait(self) -> int:
        """The exit code, negative for a signal, once the process has ended."""
        return self.process.wait(PATIENCE)

    def stop(self, number: Signals = SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE / 4)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.out.end()
        self.log.end()


@dataclass(frozen=True)
class Reply:
    """An answer over HTTP, with its header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


class Client:
    """One connection, kept alive, as a context; for one thread."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)

    def send(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        self.ask(method, path, body, headers)
        return self.reply()

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> None:
        """Send a request whose `reply` is read later."""
        self._connection.request(method, path, body, headers or {})

    def more(self, body: bytes) -> None:
        """Send a part of a body whose head has said that there is more of it."""
        self._connection.send(body)

    def reply(self) -> Reply:
        answer = self._connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def get(self, path: str) -> Reply:
        return self.send("GET", path)

    def post(self, path: str, document: Any) -> Reply:
        body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        return self.send("POST", path, body, {"Content-Type": "application/json"})

    def connect(self) -> None:
        self._connection.connect()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
