"""The gRPC server of one worker: grpc.aio on the worker's own loop, with every service."""

import asyncio

import grpc.aio

from app.protocols.call import Wire
from app.server.app import Services
from app.server.rpc.handlers import Handlers
from app.server.rpc.health import Health
from app.server.rpc.hot import Elsewhere, Hot, hot_calls
from app.settings import Settings

_MOST = 1 << 20
"""Calls that may come in one turn of the loop: beyond 1,000 gRPC would begin to cancel them."""

_MOST_METADATA = 1 << 17
"""Bytes of a call's metadata: more than the lane lets pass."""


class RpcServer:
    """Made when the worker's services are there.

    Args:
        elsewhere: of a worker that is not alone.
    """

    def __init__(self, services: Services, settings: Settings, elsewhere: Elsewhere | None = None) -> None:
        self.hot: dict[Wire, Hot] = hot_calls(services.dataplane, elsewhere)
        self._ending = asyncio.Event()
        self._health = Health(services.manager, self._ending)
        handlers = Handlers(services, settings, self.hot, self._health, self._ending)
        self.unknown = handlers.unknown
        self._server = grpc.aio.server(
            handlers=(handlers,),
            # How many calls there may be the lane says, connection by connection; all come here on one.
            options=(
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", _MOST_METADATA),
                ("grpc.absolute_max_metadata_size", _MOST_METADATA),
                ("grpc.server.max_pending_requests", _MOST),
                ("grpc.server.max_pending_requests_hard_limit", _MOST),
            ),
        )

    async def start(self, *addresses: str) -> None:
        """Listen on addresses like `127.0.0.1:8500` or `unix:/run/some.sock`.

        Raises:
            OSError: one of them cannot be had.
        """
        for address in addresses:
            try:
                self._server.add_insecure_port(address)
            except RuntimeError as error:
                raise OSError(f"{address} cannot be listened on for gRPC: {error}") from None
        await self._server.start()

    def refresh(self) -> None:
        """Take over what is served now; to be called on the loop whenever that changes."""
        for call in self.hot.values():
            call.refresh()
        self._health.look()

    def retire(self) -> None:
        """Tell whoever watches that the server takes no more traffic, and end the calls that would last."""
        self._ending.set()
        self._health.look()

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and answer those under way; what takes longer than so many seconds is cut off."""
        self.retire()
        await self._server.stop(seconds)
