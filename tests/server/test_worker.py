"""What a worker tells of itself when it is settled, the line that is made of it, and what it hears from its parent."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from app.cli import ready_line
from app.server.app import Services
from app.server.channel import Message, Reader, encode
from app.server.worker import Parent, report
from tests.server.inprocess import InProcess

URL = "http://127.0.0.1:8000"


def test_a_report_names_what_serves_and_what_failed(mixed: InProcess) -> None:
    found = report(mixed.services)

    assert found["serving"] == ["affine"]
    assert found["failed"] == ["<img src=x onerror=alert(1)>", "broken"]
    assert orjson.loads(orjson.dumps(found)) == found, "it goes through a pipe as JSON"


def test_the_ready_line_names_url_models_and_workers(good: InProcess) -> None:
    line = ready_line(URL, 2, report(good.services))

    assert line.startswith(f"Litepool is ready on {URL}: affine, bool, ")
    assert line.endswith("(2 workers)")
    assert "\n" not in line


def test_the_ready_line_names_what_is_not_served(mixed: InProcess) -> None:
    line = ready_line(URL, 1, report(mixed.services))

    assert line.startswith(f"Litepool is ready on {URL}: affine (1 worker); ")
    assert line.endswith("broken")


def test_the_line_of_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with InProcess(tmp_path) as served:
        line = ready_line(URL, 1, report(served.services))

    assert line.startswith(f"Litepool serves nothing on {URL}: ")
    assert "put one there" in line


class Pipes:
    """A parent's ends of the pipes to a worker, and a stand-in for the worker's services."""

    def __init__(self) -> None:
        hears, self.tells = os.pipe()
        self.hears, said = os.pipe()
        self._open = {hears, said, self.tells, self.hears}
        self.parent = Parent(hears, said)
        self.heard: list[Message] = []
        self.seen: list[bool] = []
        self.manager = SimpleNamespace(peers_settled=False)
        self.manager.changed = lambda: self.seen.append(self.manager.peers_settled)
        stand_in: Any = SimpleNamespace(manager=self.manager, orders=SimpleNamespace(heard=self.heard.append))
        self.services = cast("Services", stand_in)

    def tell(self, *messages: Message) -> None:
        os.write(self.tells, b"".join(map(encode, messages)))

    def close(self, *ends: int) -> None:
        for end in ends or tuple(self._open):
            os.close(end)
            self._open.discard(end)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close()


async def listen_until(pipes: Pipes, seen: Any) -> None:
    pipes.parent.listen(pipes.services)
    while not seen():  # noqa: ASYNC110  there is nothing to wait for but the turns of the loop
        await asyncio.sleep(0)


def test_orders_that_come_with_the_setup_are_carried_out_once_there_is_somebody_to_do_it(pipes: Pipes) -> None:
    first, second = ({"order": number, "do": "unload", "model": "a"} for number in (1, 2))
    pipes.tell({"setup": {"index": 1}}, first)

    assert pipes.parent.setup() == {"index": 1}
    pipes.tell(second)
    asyncio.run(listen_until(pipes, lambda: len(pipes.heard) == 2))

    assert pipes.heard == [first, second]


def test_a_setup_that_never_comes_is_the_end(pipes: Pipes) -> None:
    os.write(pipes.tells, b'{"setup"')
    pipes.close(pipes.tells)

    with pytest.raises(EOFError):
        pipes.parent.setup()


def test_a_worker_is_told_that_the_others_have_loaded_too_and_says_that_it_is_ready(pipes: Pipes) -> None:
    pipes.tell({"settled": True})
    asyncio.run(listen_until(pipes, lambda: pipes.manager.peers_settled))

    assert pipes.heard == []
    assert pipes.seen == [True], "who watches the server's health hears of it"


def test_the_end_of_the_parent_ends_the_worker(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *signal: signals.append(signal))
    pipes.close(pipes.tells)

    asyncio.run(listen_until(pipes, lambda: signals))

    assert signals == [(os.getpid(), SIGTERM)]


def test_what_a_worker_says_arrives_and_after_the_parents_end_does_no_harm(pipes: Pipes) -> None:
    pipes.parent.say({"done": 1, "error": None})
    assert Reader(pipes.hears).read() == [{"done": 1, "error": None}]

    pipes.close(pipes.hears)
    pipes.parent.say({"done": 2, "error": None})
