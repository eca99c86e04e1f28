"""One process that serves: the whole server when there is one worker, else a child of `supervisor`.

As a child it is run as `python -m app.server.worker CHANNEL_FD COUNT_FD STATUS_FD`, with its settings as one JSON line
on standard input, which then stays open for as long as the parent lives.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable

import orjson

from app.repository.manager import State
from app.server import memory
from app.server.app import Services, create_app
from app.server.handover import Taker
from app.server.lane import Lane
from app.server.serve import Server, make_config, run
from app.settings import Settings
from app.telemetry import logging as log_setup

_SWITCH_SECONDS = 0.0005
"""How long the event loop waits at most for a thread that runs Python; it would be 5 ms."""


def report(services: Services) -> dict[str, object]:
    """What the ready line is made of."""
    entries = services.manager.entries()
    return {
        "reason": services.manager.why_nothing(),
        "serving": [entry.name for entry in entries if entry.state is State.AVAILABLE],
        "failed": [entry.name for entry in entries if entry.state is State.FAILED],
    }


def work(
    settings: Settings,
    source: socket.socket | Taker,
    on_settled: Callable[[Services], None],
    on_change: Callable[[Services], None] = lambda _: None,
    load_first: bool = False,
) -> None:
    """Serve what comes to a listening socket, or from a parent, until told to stop; the rest as for `create_app`."""
    memory.stay_small()
    sys.setswitchinterval(_SWITCH_SECONDS)
    log_config = log_setup.configure(settings.log_level, settings.log_format)
    taker = source if isinstance(source, Taker) else None
    lane = Lane(settings.max_body_bytes, taker.closed if taker is not None else None)

    def changed(services: Services) -> None:
        lane.open(services.dataplane, [entry.name for entry in services.manager.entries()])
        on_change(services)

    def settled(services: Services) -> None:
        memory.give_back()
        on_settled(services)

    app = create_app(settings, settled, changed, load_first)
    server = Server(make_config(app, lane, settings, log_config), app, settings.drain_seconds, taker)
    run(server, [] if isinstance(source, Taker) else [source])


def main() -> None:
    taker = Taker(int(sys.argv[1]), int(sys.argv[2]))
    status = os.fdopen(int(sys.argv[3]), "wb", buffering=0)
    settings = Settings.model_validate_json(sys.stdin.buffer.readline())

    listening = False

    def changed(services: Services) -> None:
        nonlocal listening
        if not listening:
            listening = True
            services.manager.peers_settled = False
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _parent_said, services)

    def settled(services: Services) -> None:
        status.write(orjson.dumps(report(services)) + b"\n")

    work(settings, taker, settled, changed, load_first="--replacement" in sys.argv)


def _parent_said(services: Services) -> None:
    """Hear the parent: a byte says that all workers have loaded, the end that it died without a word."""
    if os.read(sys.stdin.fileno(), 1):
        services.manager.peers_settled = True
    else:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
