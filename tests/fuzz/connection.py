"""Connections to a whole server in this process: bytes in, bytes out, by the express lane and all that is behind it."""

import asyncio
from typing import Any, NamedTuple

from uvicorn.server import ServerState

from app.server.express import Express
from app.server.lane import Lane
from tests.server.inprocess import InProcess
from tests.server.test_express import Transport, make_config_of

_HOURS = 10**5


class Response(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class _Told(Transport):
    """`told` is set by whatever the server does."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    def write(self, data: Any) -> None:
        super().write(data)
        self.told.set()

    def close(self) -> None:
        super().close()
        self.told.set()


class Edge:
    """The protocol of the server's port, for an application that runs."""

    def __init__(self, served: InProcess, max_body: int) -> None:
        self._served = served
        lane = Lane(max_body)
        lane.open(served.services.dataplane)
        self._protocol: type[Express] = type("Protocol", (Express,), {"lane": lane})
        self._config = make_config_of(_HOURS, served.app)

    def send(self, data: bytes, *, head: bool = False) -> list[Response]:
        """What a new connection answers to some bytes, until it is closed or waits for more of them.

        Args:
            head: whether the request is one that is answered without a body.
        """
        return self._served.run(self._send(data, head))

    async def _send(self, data: bytes, head: bool) -> list[Response]:
        loop = asyncio.get_running_loop()
        state: dict[str, Any] = {}
        protocol = self._protocol(self._config, ServerState(), state, loop)
        transport = _Told()
        protocol.connection_made(transport)
        protocol.data_received(data)
        while not (transport.is_closing() or protocol.is_idle() or _waits(protocol)):
            await transport.told.wait()
            transport.told.clear()
        protocol.connection_lost(None)
        # What was begun for it hears that it is gone.
        for _ in range(3):
            await asyncio.sleep(0)
        return list(_read(transport.written, head))


def _waits(found: Any) -> bool:
    """Whether it is the client who is waited for: a request has begun and is not complete."""
    return found._in_message and all(turn is found._express for turn in found._turns) and not found.pipeline


def _read(written: bytes, head: bool) -> list[Response]:
    found = []
    while written:
        first, _, rest = written.partition(b"\r\n\r\n")
        status_line, *lines = first.split(b"\r\n")
        version, status, *_ = status_line.split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        written = rest
        if int(status) == 100:
            continue
        length = 0 if head else int(headers.get(b"content-length", b"0"))
        if headers.get(b"transfer-encoding") == b"chunked":
            body, _, written = rest.partition(b"\r\n0\r\n\r\n")
        else:
            assert len(rest) >= length
            body, written = rest[:length], rest[length:]
        found.append(Response(int(status), headers, body))
    return found
