"""One process that serves: the whole server when there is one worker, else a child of `supervisor`.

As a child it is run as `python -m app.server.worker SOCKET_FD STATUS_FD`, with its settings as one JSON line on
standard input, which then stays open for as long as the parent lives.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable

import orjson

from app.repository.manager import State
from app.server.app import Services, create_app
from app.server.express import Lane
from app.server.serve import Server, make_config, run
from app.settings import Settings
from app.telemetry import logging as log_setup


def report(services: Services) -> dict[str, object]:
    """What the ready line is made of."""
    status, reason = services.manager.status()
    entries = services.manager.entries()
    return {
        "status": status.value,
        "reason": reason,
        "serving": [entry.name for entry in entries if entry.state is State.AVAILABLE],
        "failed": [entry.name for entry in entries if entry.state is State.FAILED],
    }


def work(settings: Settings, sock: socket.socket, settled: Callable[[dict[str, object]], None]) -> None:
    """Serve on a listening socket until told to stop."""
    log_config = log_setup.configure(settings.log_level, settings.log_format)
    lane = Lane(settings.max_body_bytes)

    def changed(services: Services) -> None:
        lane.open(services.dataplane, [entry.name for entry in services.manager.entries()])

    app = create_app(settings, lambda services: settled(report(services)), changed)
    run(Server(make_config(app, lane, settings, log_config), app, settings.drain_seconds), sock)


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    status = os.fdopen(int(sys.argv[2]), "wb", buffering=0)
    given = sys.stdin.buffer.readline()
    settings = Settings.model_validate_json(given)

    def settled(line: dict[str, object]) -> None:
        status.write(orjson.dumps(line) + b"\n")
        # A parent that dies without a word closes our standard input.
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _parent_gone)

    work(settings, sock, settled)


def _parent_gone() -> None:
    if not os.read(sys.stdin.fileno(), 1):
        os.kill(os.getpid(), 15)
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())


if __name__ == "__main__":
    main()
