"""Where a worker gets the requests that other workers pass on to it: the other end of `forward`."""

import asyncio
import logging
import os
import socket
from collections.abc import MutableMapping
from pathlib import Path
from time import monotonic
from typing import Any

from starlette.types import ASGIApp

from app.server.forward import frame, headers_to, read_frame, scope_of

log = logging.getLogger(__name__)

_BACKLOG = 1024


class Inlet:
    """Serves them with an ASGI application.

    Args:
        path: the socket's, in a folder that nobody else may enter. What is there already is a dead worker's.
        max_body: the largest body taken, in bytes.
        farewell: the workers', by which this one finds out when they pass on nothing any more.
    """

    def __init__(self, app: ASGIApp, path: Path, max_body: int, farewell: "Farewell") -> None:
        self._app = app
        self._path = path
        self._max_body = max_body
        self._farewell = farewell
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        """Those of them on which there is a request."""
        self._closing = False

    async def open(self) -> None:
        """Listen from now on."""
        sock = socket.socket(socket.AF_UNIX)
        # Under another name first, so that there is at no time nothing.
        fresh = self._path.with_suffix(f".{os.getpid()}")
        sock.bind(str(fresh))
        sock.listen(_BACKLOG)
        fresh.rename(self._path)
        sock.setblocking(False)
        self._server = await asyncio.start_unix_server(self._connected, sock=sock, backlog=_BACKLOG)

    async def close(self, seconds: float, alone: bool) -> None:
        """Listen no more, and answer what is under way; to be called when this worker itself passes on nothing more.

        Args:
            seconds: how long that may take.
            alone: whether the other workers go on. If not, what they still pass on is waited for.
        """
        assert self._server is not None
        until = monotonic() + seconds
        self._farewell.leave()
        if not alone:
            await self._farewell.all_left(seconds)
        self._server.close()
        self._closing = True
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=max(0.0, until - monotonic()))
            if late:
                log.warning("%d requests of other workers were cut off: the drain took too long", len(late))
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        upcoming = asyncio.ensure_future(self._next(reader))
        try:
            while not self._closing and (request := await upcoming) is not None:
                self._under_way.add(task)
                upcoming = asyncio.ensure_future(self._next(reader))
                answer = await self._answer(*request, upcoming)
                if answer is None:
                    return
                writer.writelines(answer)
                await writer.drain()
                self._under_way.discard(task)
        except OSError as error:
            log.debug("the worker that has passed on a request is gone: %s", error)
        finally:
            self._under_way.discard(task)
            upcoming.cancel()
            writer.close()

    async def _next(self, reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes] | None:
        """A request's head and body; None when there are no more."""
        try:
            return await read_frame(reader, self._max_body)
        except (OSError, EOFError):
            return None

    async def _answer(
        self, head: dict[str, Any], body: bytes, end: "asyncio.Future[Any]"
    ) -> tuple[bytes, bytes] | None:
        """A request's answer as a frame; None if there is none.

        Args:
            end: what comes on the connection behind the request, which before the answer can only be its end.
        """
        exchange = _Exchange(body, end)
        try:
            await self._app(scope_of(head), exchange.receive, exchange.send)
        except Exception:
            # The application has answered, as far as it could.
            log.exception("a request that another worker has passed on failed")
        if not exchange.complete:
            return None
        return frame({"status": exchange.status, "headers": exchange.headers}, exchange.answer)


class _Exchange:
    """One request, as the application sees it."""

    def __init__(self, body: bytes, end: "asyncio.Future[Any]") -> None:
        self._body: bytes | None = body
        self._end = end
        self._pieces: list[bytes] = []
        self.status = 500
        self.headers: list[tuple[str, str]] = []
        self.complete = False

    @property
    def answer(self) -> bytes:
        return b"".join(self._pieces)

    async def receive(self) -> dict[str, Any]:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.wait((self._end,))
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = headers_to(message["headers"])
            return
        self._pieces.append(message.get("body", b""))
        self.complete = not message.get("more_body", False)


class Farewell:
    """A pipe that every worker holds open for as long as it may pass on requests: its end says that none will.

    Whoever dies has let go of it as well.

    Args:
        held: the end for writing, which `leave` closes.
    """

    def __init__(self, ended: int, held: int) -> None:
        self._ended = ended
        self._held = held

    def leave(self) -> None:
        os.close(self._held)

    async def all_left(self, seconds: float) -> None:
        """Wait for the end, but not longer than so many seconds."""
        loop = asyncio.get_running_loop()
        end = asyncio.Event()
        loop.add_reader(self._ended, end.set)
        try:
            async with asyncio.timeout(seconds):
                await end.wait()
        except TimeoutError:
            log.debug("not all workers have ended their requests in time")
        finally:
            loop.remove_reader(self._ended)
            os.close(self._ended)
