"""The health service that probes and load balancers ask: `grpc.health.v1.Health`.

Not grpcio-health-checking's own servicer: there whoever watches holds a lock while it is told, so that one that does
not read keeps the news from all others, and at the end those behind it hear nothing.
"""

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2

from app.protocols.call import SHOWN
from app.repository.manager import Manager, Status
from app.server.rpc.calls import Left
from app.server.rpc.messages import POOL, SERVICES, methods
from app.server.rpc.status import Refused

FULL_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

POOL.AddSerializedFile(health_pb2.DESCRIPTOR.serialized_pb)

_SERVING = (Status.OK, Status.DEGRADED)


class Health:
    """As `/readyz` has it, of the server as a whole, whose name is empty, and of each of its services.

    Args:
        ending: set when the server ends, and with it the calls that watch.
    """

    def __init__(self, manager: Manager, ending: asyncio.Event) -> None:
        self._manager = manager
        self._ending = ending
        self._news = asyncio.Event()
        found = {method.name: method for method in methods(FULL_NAME)}
        self._check, self._watch = found["Check"], found["Watch"]
        # Older releases of grpcio-health-checking do not know it.
        self._list = found.get("List")
        more = ((self._list.path, self._answer_all),) if self._list is not None else ()
        self.calls = ((self._check.path, self._answer), *more)
        self.streams = ((self._watch.path, self._tell),)

    def look(self) -> None:
        """Have whoever watches look again; to be called on the loop whenever it may have changed what they see."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _answer(self, message: bytes, _: Left) -> bytes:
        """What is so now."""
        service = self._check.read(message).service
        status = self._status(service)
        if status == "SERVICE_UNKNOWN":
            services = ", ".join(SERVICES)
            text = f"no service {service[:SHOWN]!r}: expected none, for the server as a whole, or one of {services}"
            raise Refused(grpc.StatusCode.NOT_FOUND, text)
        return self._check.write({"status": status})

    async def _answer_all(self, message: bytes, _: Left) -> bytes:
        """The same of all services."""
        assert self._list is not None
        self._list.read(message)
        return self._list.write({"statuses": {name: {"status": self._status(name)} for name in ("", *SERVICES)}})

    async def _tell(self, messages: AsyncIterator[bytes], _: Left) -> AsyncIterator[bytes]:
        """The same, and again whenever it changes, until the server ends."""
        message = await anext(messages, None)
        if message is None:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, "expected one request message, found none")
        service = self._watch.read(message).service
        told = None
        while True:
            news, status = self._news, self._status(service)
            if status != told:
                told = status
                yield self._watch.write({"status": status})
                # Meanwhile there may be news.
            elif self._ending.is_set():
                return
            else:
                await news.wait()

    def _status(self, service: str) -> str:
        if service and service not in SERVICES:
            return "SERVICE_UNKNOWN"
        serves = not self._ending.is_set() and self._manager.status()[0] in _SERVING
        return "SERVING" if serves else "NOT_SERVING"
