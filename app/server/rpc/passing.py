"""gRPC's calls for sequences that another worker keeps: passed on as they are, and answered there.

They go as the requests of HTTP do (app/server/forward.py), to a path of the worker's application that nobody else may
ask for.
"""

import asyncio
import logging
from typing import Any
from weakref import WeakValueDictionary

import orjson
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.dataplane import Caller, DataPlane
from app.errors import Internal, LitepoolError
from app.protocols.call import OCTETS, Wire
from app.runtime.job import Job
from app.server import predict
from app.server.channel import error_from_json, error_to_json
from app.server.errors import new_request_id
from app.server.forward import FORWARDED, Peers
from app.server.incoming import ClientGone, Incoming
from app.server.rpc.calls import joined
from app.server.rpc.hot import PATHS, Elsewhere, Hot

log = logging.getLogger(__name__)

_TIMEOUT = b"litepool-timeout-ns"
_REFUSED = 422


class _Passed(Job):
    """A call that another worker answers."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self._task = task

    @property
    def abandoned(self) -> bool:
        return self._task.cancelled()

    @abandoned.setter
    def abandoned(self, value: bool) -> None:
        # The other worker finds out that nobody waits.
        if value:
            self._task.cancel()


class Passing:
    """A `Forward` to whichever worker it is.

    Of each sequence one call at a time: a stream does not wait for an answer before it begins the next call, and on
    their ways, over connections of their own, they could overtake each other.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By sequence, of those that have calls under way."""

    def __call__(self, wire: Wire, sequence: str, message: bytes, seconds: float | None, caller: Caller) -> Job:
        turn = self._turns.setdefault(sequence, asyncio.Lock())
        task = asyncio.ensure_future(self._in_turn(turn, wire, sequence, message, seconds, caller))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _Passed(task)

    async def _in_turn(
        self, turn: asyncio.Lock, wire: Wire, sequence: str, message: bytes, seconds: float | None, caller: Caller
    ) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        async with turn:
            left = None if seconds is None else seconds - (clock() - began)
            await self._pass(wire, sequence, message, left, caller)

    async def _pass(self, wire: Wire, sequence: str, message: bytes, seconds: float | None, caller: Caller) -> None:
        headers = [] if seconds is None else [(_TIMEOUT, b"%d" % max(0, round(seconds * 1e9)))]
        try:
            reply = await self._peers.forward(self._peers.owner_of(sequence), _scope(PATHS[wire], headers), message)
            if reply.status == _REFUSED:
                caller.refuse(error_from_json(orjson.loads(reply.body)) or Internal("no reason was given"))
            elif reply.status == 200:
                caller.answer(reply.body, OCTETS)
            else:
                caller.refuse(Internal(f"the worker that keeps this sequence answered {reply.status}"))
        except LitepoolError as error:
            caller.refuse(error)
        except Exception as error:
            # Whatever happens: somebody waits for the answer.
            identity = new_request_id()
            log.error("request %s, for sequence %r of another worker, failed", identity, sequence, exc_info=error)
            caller.refuse(Internal(f"the server failed on this request; its log has it as request {identity}"))


def elsewhere(peers: Peers) -> Elsewhere:
    """The sequences of a worker with fellow workers."""
    return Elsewhere(peers.is_elsewhere, Passing(peers))


def routes(dataplane: DataPlane, max_body: int) -> list[Route]:
    """Where calls that were passed on arrive."""
    return [Route(path, _Arriving(wire, dataplane, max_body), methods=["POST"]) for wire, path in PATHS.items()]


class _Arriving:
    """An ASGI endpoint that takes a call of another worker's, and of nobody else."""

    def __init__(self, wire: Wire, dataplane: DataPlane, max_body: int) -> None:
        self._wire = wire
        self._dataplane = dataplane
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if FORWARDED not in scope.get("extensions", {}):
            raise HTTPException(404)
        headers = dict(scope["headers"])
        timeout = headers.get(_TIMEOUT)
        caller = predict.Caller()
        try:
            body = await Incoming(receive).read(headers, self._max_body)
        except ClientGone:
            return
        seconds = None if timeout is None else int(timeout) / 1e9
        job = Hot(self._wire, self._dataplane)(body, seconds, caller)
        if job is not None and not await predict.is_answered(caller.reply, job, receive):
            return
        told = caller.reply.result()
        refused = isinstance(told, LitepoolError)
        answer = orjson.dumps(error_to_json(told)) if isinstance(told, LitepoolError) else joined(told[0])
        await send({"type": "http.response.start", "status": _REFUSED if refused else 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})


def _scope(path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "http_version": "2",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "client": None,
        "server": None,
        "headers": headers,
    }
