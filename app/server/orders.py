"""What clients order of the models by HTTP, carried out in every worker: a worker's side of `dispatch`."""

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial
from itertools import count

from app.errors import Internal, LitepoolError, Unavailable
from app.server.channel import Message, error_from_json, error_to_json
from app.server.dispatch import Dispatch
from app.server.errors import new_request_id

log = logging.getLogger(__name__)

Done = Callable[[LitepoolError | None], None]


class Orders:
    """For the event loop's thread only.

    Args:
        apply: carries out an order (`load`, `unload` or `rescan`, and the model's name) in this worker, and calls back
            on the loop when that is done or has failed. It may be given the next before.
        say: tells the parent; None in a worker that is alone.
    """

    def __init__(self, apply: Callable[[str, str, Done], None], say: Callable[[Message], None] | None = None) -> None:
        self._apply = apply
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._closed = False
        if say is None:
            alone = Dispatch[Orders](_tell_later, math.inf)
            alone.join(self)
            say = partial(alone.heard, self)
        self._say = say

    async def carry_out(self, do: str, model: str = "") -> None:
        """Have every worker do it, after all that was ordered before; returns when they have.

        Raises:
            LitepoolError: one of them could not.
        """
        if self._closed:
            raise _shutting_down()
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._say({"ask": number, "do": do, "model": model})
            await answer
        finally:
            del self._asked[number]

    def heard(self, message: Message) -> None:
        """Take the parent's `order` or `answer`."""
        if "order" in message:
            self._carry_out(message["order"], message["do"], message["model"])
            return
        answer = self._asked.get(message["answer"])
        if answer is None or answer.done():
            return  # Its client has gone.
        error = error_from_json(message["error"])
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    def close(self) -> None:
        """Wait for no answers any more, since the parent is about to stop the workers."""
        self._closed = True
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(_shutting_down())

    def _carry_out(self, number: int, do: str, model: str) -> None:
        def done(error: LitepoolError | None) -> None:
            self._say({"done": number, "error": error_to_json(error)})

        # Whatever happens: the parent waits for this worker, and the other workers' clients with it.
        try:
            self._apply(do, model, done)
        except LitepoolError as error:
            done(error)
        except Exception as error:
            identity = new_request_id()
            log.error("order %s, to %s %r, failed", identity, do, model, exc_info=error)
            done(Internal(f"the server failed on this order; its log has it as order {identity}"))


def _tell_later(orders: Orders, message: Message) -> None:
    # At once it would be in the middle of what the dispatch does, and of what this does with its last order.
    asyncio.get_running_loop().call_soon(orders.heard, message)


def _shutting_down() -> Unavailable:
    return Unavailable("the server is shutting down", retry_after=1)
