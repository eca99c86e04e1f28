"""uvicorn, run as a server that loses nothing when it is told to stop."""

import asyncio
import logging
import os
import signal
import socket
import sys
from time import monotonic
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.flow_control import CLOSE_HEADER

from app.server.app import Services
from app.server.express import Express
from app.server.lane import Lane
from app.server.listen import refuse_new
from app.settings import Settings

log = logging.getLogger(__name__)

_BACKLOG_SECONDS = 0.1
"""How long the last connections may take from the kernel's hands into ours; a turn of the loop would do on loopback."""

_IDLE_GRACE_SECONDS = 0.5
"""How long a connection with no request on it is kept when the server drains: a request may be on its way."""


class Server(uvicorn.Server):
    """Adds the drain to uvicorn: what was accepted is answered, and clients are told to go elsewhere."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds

    @property
    def lingering(self) -> bool:
        """Whether a thread is still at work after the shutdown."""
        services: Services | None = getattr(self._app.state, "services", None)
        return services is not None and services.lingering

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services: Services = self._app.state.services
        services.manager.drain()
        log.info("draining: %d connections are open", len(self.server_state.connections))
        # From here on every answer closes its connection.
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE_HEADER]
        await self._stop_listening(sockets or [])
        await self._finish_connections()
        await super().shutdown([])

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            refuse_new(sock)
        # The kernel finishes the connections that it has begun, and the loop accepts them.
        await asyncio.sleep(_BACKLOG_SECONDS)
        for server in self.servers:
            server.close()
        for sock in sockets:
            sock.close()

    async def _finish_connections(self) -> None:
        """Wait for requests under way; close idle connections after a grace, and all when the drain's time is up."""
        start = monotonic()
        while self.server_state.connections and not self.force_exit:
            waited = monotonic() - start
            if waited > self._drain_seconds:
                log.warning("%d connections were cut off: the drain took too long", len(self.server_state.connections))
                for connection in list(self.server_state.connections):
                    connection.transport.abort()
                return
            for connection in cast("list[Express]", list(self.server_state.connections)):
                if not connection.is_idle():
                    connection.close_after_answer()
                elif waited > _IDLE_GRACE_SECONDS:
                    connection.transport.close()
            await asyncio.sleep(0.02)


def make_config(app: FastAPI, lane: Lane, settings: Settings, log_config: dict[str, Any]) -> uvicorn.Config:
    """uvicorn's configuration, with the express lane as its HTTP protocol."""
    protocol = type("ExpressProtocol", (Express,), {"lane": lane})
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=log_config,
        access_log=settings.access_log,
        server_header=False,
        # uvicorn says that this is whole seconds; all that it, and our protocol, do with it is to wait so long.
        timeout_keep_alive=cast("int", settings.keep_alive),
        backlog=4096,
    )


def run(server: Server, sock: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; returns when what was in flight is answered.

    uvicorn raises a captured signal again once it is done, for the handlers that were there before: ours end the
    process with 0, then as at any time before uvicorn has its own.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        server.run([sock])
    finally:
        if server.lingering:
            # An invoke that does not end holds its thread, and with it an orderly end of the process.
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)
