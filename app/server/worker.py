"""One process that serves: the whole server when there is one worker, else a child of `supervisor`.

As a child it is run as `python -m app.server.worker CHANNEL_FD COUNT_FD STATUS_FD ENDED_FD HELD_FD`: the first two are
its `Taker`'s, on the third it speaks to its parent, and the last two are its `Farewell`'s. What the parent says comes
on standard input, which stays open for as long as the parent lives; first of all comes the setup.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.repository.manager import State
from app.server import memory
from app.server.app import Crew, Services, create_app
from app.server.browsers import not_express
from app.server.channel import Message, Reader, encode
from app.server.forward import Peers
from app.server.handover import Taker
from app.server.inlet import Farewell, Inlet
from app.server.lane import Lane
from app.server.serve import Server, make_config, run
from app.settings import Settings
from app.telemetry import logging as log_setup

_SWITCH_SECONDS = 0.0005
"""How long the event loop waits at most for a thread that runs Python; it would be 5 ms."""


def report(services: Services) -> dict[str, object]:
    """What the ready line is made of."""
    entries = services.manager.entries()
    serving = list(dict.fromkeys(entry.name for entry in entries if entry.state is State.AVAILABLE))
    failed = [entry for entry in entries if entry.state is State.FAILED]
    return {
        "reason": services.manager.why_nothing(),
        "serving": serving,
        "failed": [f"{entry.name} {entry.version}" if entry.name in serving else entry.name for entry in failed],
    }


def work(
    settings: Settings,
    source: socket.socket | Taker,
    on_settled: Callable[[Services], None],
    on_change: Callable[[Services], None] = lambda _: None,
    load_first: bool = False,
    crew: Crew | None = None,
    farewell: Farewell | None = None,
    grpc_sock: socket.socket | None = None,
) -> None:
    """Serve what comes to a listening socket, or from a parent, until told to stop; the rest as for `create_app`.

    Args:
        farewell: of a worker with a crew.
        grpc_sock: the listening socket of gRPC, of a worker that is alone.
    """
    memory.stay_small()
    sys.setswitchinterval(_SWITCH_SECONDS)
    log_config = log_setup.configure(settings.log_level, settings.log_format)
    taker = source if isinstance(source, Taker) else None
    lane = Lane(settings.max_body_bytes, taker.closed if taker is not None else None, not_express(settings))

    edge = None
    if settings.grpc_port is not None:
        # Here, because it takes time and memory, and most servers do without.
        from app.server.rpc.edge import Edge  # noqa: PLC0415

        edge = Edge(settings, grpc_sock, crew.peers if crew is not None else None, lane.closed)

    def changed(services: Services) -> None:
        lane.open(services.dataplane)
        if edge is not None:
            edge.refresh()
        on_change(services)

    def settled(services: Services) -> None:
        memory.give_back()
        on_settled(services)

    app = create_app(settings, settled, changed, load_first, crew)
    inlet = None
    if crew is not None and farewell is not None:
        inlet = Inlet(app, crew.peers.socket_of(crew.peers.index), settings.max_body_bytes, farewell)
    server = Server(make_config(app, lane, settings, log_config), app, settings.drain_seconds, taker, inlet, edge)
    run(server, [] if isinstance(source, Taker) else [source])


class Parent:
    """The process that has started this one.

    Args:
        heard: where it speaks to us; the end of that is its end.
        said: where it hears us.
    """

    def __init__(self, heard: int, said: int) -> None:
        self._heard = heard
        self._said = said
        self._reader = Reader(heard)
        self._early: list[Message] = []

    def setup(self) -> dict[str, Any]:
        """Wait for the first message.

        Raises:
            EOFError: the parent has died.
        """
        while not self._early:
            self._early = self._reader.read()
        setup: dict[str, Any] = self._early.pop(0)["setup"]
        return setup

    def say(self, message: Message) -> None:
        left = memoryview(encode(message))
        # The end of a parent is heard where it speaks.
        with suppress(BrokenPipeError):
            while left:
                left = left[os.write(self._said, left) :]

    def listen(self, services: Services) -> None:
        """Do from now on what the parent says, on the running loop."""
        for message in self._early:
            self._obey(message, services)
        asyncio.get_running_loop().add_reader(self._heard, self._speaks, services)

    def _speaks(self, services: Services) -> None:
        try:
            messages = self._reader.read()
        except EOFError:
            asyncio.get_running_loop().remove_reader(self._heard)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        for message in messages:
            self._obey(message, services)

    def _obey(self, message: Message, services: Services) -> None:
        if "settled" in message:
            services.manager.peers_settled = True
            # It is ready only now, of which somebody may want to hear.
            services.manager.changed()
        else:
            services.orders.heard(message)


def main() -> None:
    channel, count, said, ended, held = map(int, sys.argv[1:])
    parent = Parent(sys.stdin.fileno(), said)
    try:
        setup = parent.setup()
    except EOFError:
        return
    settings = Settings.model_validate(setup["settings"])
    peers = Peers(
        Path(setup["folder"]), setup["index"], settings.workers, settings.max_body_bytes, settings.request_timeout
    )
    crew = Crew(parent.say, frozenset(setup["unloaded"]), peers)
    listening = False

    def changed(services: Services) -> None:
        nonlocal listening
        if not listening:
            listening = True
            services.manager.peers_settled = False
            parent.listen(services)

    def settled(services: Services) -> None:
        parent.say({"report": report(services)})

    work(
        settings,
        Taker(channel, count),
        settled,
        changed,
        load_first=setup["load_first"],
        crew=crew,
        farewell=Farewell(ended, held),
    )


if __name__ == "__main__":
    main()
