"""uvicorn, run as a server that loses nothing when it is told to stop."""

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.flow_control import CLOSE_HEADER

from app.server.app import Services
from app.server.express import Express
from app.server.handover import GRPC, Taker
from app.server.inlet import Inlet
from app.server.lane import Lane
from app.server.listen import BACKLOG_SECONDS, refuse_new
from app.settings import Settings

if TYPE_CHECKING:
    from app.server.rpc.edge import Edge

log = logging.getLogger(__name__)

_LAST_GIFT_SECONDS = 3 * BACKLOG_SECONDS
"""How long a worker that is told to stop takes what its parent still gives: the parent may have been told as well."""

_IDLE_GRACE_SECONDS = 0.5
"""How long a connection with no request on it is kept when the server drains: a request may be on its way."""


class Server(uvicorn.Server):
    """Adds the drain to uvicorn: what was accepted is answered, and clients are told to go elsewhere.

    Args:
        taker: where connections come from, in a worker that does not listen itself.
        inlet: where the requests that other workers pass on come from, if there are any.
        edge: gRPC's, where it is spoken.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        drain_seconds: float,
        taker: Taker | None = None,
        inlet: Inlet | None = None,
        edge: "Edge | None" = None,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds
        self._taker = taker
        self._inlet = inlet
        self._edge = edge
        self._taken_all = asyncio.Event()
        self._adoptions: set[asyncio.Task[None]] = set()

    @property
    def lingering(self) -> bool:
        """Whether a thread is still at work after the shutdown."""
        services: Services | None = getattr(self._app.state, "services", None)
        return services is not None and services.lingering

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._edge is not None:
            listener = await self._edge.open(self._app.state.services)
            if listener is not None:
                self.servers.append(listener)
        if self._taker is not None:
            asyncio.get_running_loop().add_reader(self._taker.fileno(), self._take, self._taker)
        if self._inlet is not None:
            await self._inlet.open()

    def _take(self, taker: Taker) -> None:
        try:
            given = taker.take()
        except EOFError:
            asyncio.get_running_loop().remove_reader(taker.fileno())
            self._taken_all.set()
            return
        for connection, kind in given:
            task = asyncio.create_task(self._adopt(connection, kind, taker))
            self._adoptions.add(task)
            task.add_done_callback(self._adoptions.discard)

    async def _adopt(self, connection: socket.socket, kind: bytes, taker: Taker) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            if kind == GRPC:
                assert self._edge is not None
                return self._edge.protocol()
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )
            return made

        try:
            await loop.connect_accepted_socket(protocol, connection)
        except OSError as error:
            log.debug("a connection was gone before it was taken up: %s", error)
            connection.close()
            taker.closed()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services: Services = self._app.state.services
        services.manager.drain()
        services.orders.close()
        log.info("draining: %d connections are open", len(self.server_state.connections))
        # From here on every answer closes its connection.
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE_HEADER]
        if self._edge is not None and self._edge.sock is not None:
            sockets = [*(sockets or []), self._edge.sock]
        alone = await self._stop_listening(sockets or [])
        begun = monotonic()
        await asyncio.gather(self._finish_connections(), self._finish_calls())
        if self._inlet is not None:
            left = 0.0 if self.force_exit else max(0.0, begun + self._drain_seconds - monotonic())
            await self._inlet.close(left, alone)
        await super().shutdown([])

    async def _stop_listening(self, sockets: list[socket.socket]) -> bool:
        """Take no more connections; whether it is this worker alone that stops, and not the server."""
        if self._taker is not None:
            return await self._take_the_last(self._taker)
        for sock in sockets:
            refuse_new(sock)
        # The kernel finishes the connections that it has begun, and the loop accepts them.
        await asyncio.sleep(BACKLOG_SECONDS)
        for server in self.servers:
            server.close()
        for sock in sockets:
            sock.close()
        return False

    async def _take_the_last(self, taker: Taker) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._taken_all.wait(), _LAST_GIFT_SECONDS)
        alone = not self._taken_all.is_set()
        if alone:
            # What was given before can still be read.
            taker.refuse()
            await self._taken_all.wait()
        if self._adoptions:
            await asyncio.wait(self._adoptions)
        return alone

    async def _finish_calls(self) -> None:
        if self._edge is not None:
            await self._edge.drain(0.0 if self.force_exit else self._drain_seconds)

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


def run(server: Server, sockets: list[socket.socket]) -> None:
    """Serve until SIGTERM or SIGINT; returns when what was in flight is answered.

    uvicorn raises a captured signal again once it is done, for the handlers that were there before: ours end the
    process with 0, then as at any time before uvicorn has its own.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        server.run(sockets)
    finally:
        if server.lingering:
            # An invoke that does not end holds its thread, and with it an orderly end of the process.
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)
