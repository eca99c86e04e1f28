"""gRPC in one worker: connections on the express lane, and behind it, on a private socket, grpc.aio's server.

The calls that predict are answered by the lane itself; it passes all others on.
"""

import asyncio
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

from app.protocols.call import Wire
from app.server.app import Services
from app.server.forward import Peers
from app.server.h2 import head as h2
from app.server.h2.connection import GrpcProtocol
from app.server.h2.lane import GrpcLane
from app.server.h2.relay import Relay
from app.server.listen import short_folder
from app.server.rpc import stream
from app.server.rpc.hot import PATHS
from app.server.rpc.passing import elsewhere
from app.server.rpc.server import RpcServer
from app.server.rpc.status import number_and_text
from app.settings import Settings


class Edge:
    """Opened once the worker's services are there.

    Args:
        sock: where this worker listens itself; None if it is given its connections.
        peers: of a worker that is not alone.
        closed: called when a connection has closed.
    """

    def __init__(
        self,
        settings: Settings,
        sock: socket.socket | None = None,
        peers: Peers | None = None,
        closed: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._peers = peers
        self._closed = closed
        self._held = ExitStack()
        self._server: RpcServer | None = None
        self.sock = sock

    async def open(self, services: Services) -> asyncio.Server | None:
        """Take connections from now on; what listens, if that is this worker.

        Raises:
            OSError: there can be no private socket.
        """
        target = f"unix:{self._private_path()}"
        self._server = RpcServer(services, self._settings, elsewhere(self._peers) if self._peers is not None else None)
        await self._server.start(target)
        self._relay = Relay(target)
        calls = self._server.hot
        hot: dict[bytes, h2.Hot] = {PATHS[wire].encode(): call for wire, call in calls.items()}
        hot[stream.PATH.encode()] = stream.streamed(calls[Wire.GRPC_INFER])
        settings, unknown = self._settings, self._server.unknown
        self._lane = GrpcLane(hot, self._relay, settings.max_body_bytes, number_and_text, unknown, settings.access_log)
        if self.sock is None:
            return None
        return await asyncio.get_running_loop().create_server(self.protocol, sock=self.sock)

    def _private_path(self) -> Path:
        if self._peers is not None:
            # In the folder of the workers' other sockets, which their parent removes.
            return self._peers.socket_of(self._peers.index).with_suffix(".grpc")
        folder = tempfile.TemporaryDirectory(prefix="litepool-", dir=short_folder())
        return Path(self._held.enter_context(folder)) / "0.grpc"

    def protocol(self) -> GrpcProtocol:
        """What speaks on a new connection."""
        return _Counted(self._lane, asyncio.get_running_loop(), self._closed)

    def refresh(self) -> None:
        """Take over what is served now; to be called on the loop whenever that changes."""
        if self._server is not None:
            self._server.refresh()

    async def drain(self, seconds: float) -> None:
        """Take no more calls and answer those under way; what takes longer than so many seconds is cut off."""
        if self._server is None:
            return
        until = monotonic() + seconds
        self._server.retire()
        await self._lane.drain(seconds)
        await self._relay.close()
        await self._server.stop(max(0.0, until - monotonic()))
        self._held.close()


class _Counted(GrpcProtocol):
    """A connection whose end somebody is told of."""

    def __init__(self, lane: GrpcLane, loop: asyncio.AbstractEventLoop, closed: Callable[[], None] | None) -> None:
        super().__init__(lane, loop)
        self._told = closed

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._told is not None:
            self._told()
