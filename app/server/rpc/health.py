"""The health service that probes and load balancers ask: `grpc.health.v1.Health`."""

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

from app.repository.manager import Manager, Status
from app.server.rpc.messages import SERVICES

FULL_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_SERVING = (Status.OK, Status.DEGRADED)


class Health(aio.HealthServicer):  # type: ignore[misc]
    """As `/readyz` has it, of the server as a whole, whose name is empty, and of each of its services.

    Args:
        ending: set when the server ends, and with it the calls that watch.
    """

    def __init__(self, manager: Manager, ending: asyncio.Event) -> None:
        super().__init__()
        self._manager = manager
        self._ending = ending

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  the service calls it so
        await self.look()
        return await super().Check(request, context)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        watching = asyncio.ensure_future(super().Watch(request, context))
        end = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((watching, end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.cancel()
            watching.cancel()

    async def look(self) -> None:
        """Tell whoever watches, if it has changed whether the server takes traffic."""
        serves = self._manager.status()[0] in _SERVING
        status = health_pb2.HealthCheckResponse.SERVING if serves else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *SERVICES):
            if self._server_status.get(service) != status:
                await self.set(service, status)
