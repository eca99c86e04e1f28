"""Orders to every worker, one at a time, by whoever has all workers: their parent, or a worker that is alone.

Workers are told of each order in the same order, so that all end in the same state; the next is given out when all have
done the one before. No framework and no event loop is imported here: the parent uses it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, TypeVar

from app.errors import DeadlineExceeded, Unavailable
from app.server.channel import Message, error_to_json

LOAD, UNLOAD, RESCAN = "load", "unload", "rescan"

_MOST_WAITING = 64

W = TypeVar("W")


@dataclass(eq=False)
class _Order(Generic[W]):
    do: str
    model: str
    asker: W
    ask: int
    """The asker's own number for it."""
    number: int = 0
    awaited: set[W] = field(default_factory=set)
    until: float = 0.0
    error: Message | None = None
    """The first that a worker had with it."""
    succeeded: bool = False
    """Whether a worker had none."""
    news: bool = False
    """Whether it unloads what was not unloaded."""


class Dispatch(Generic[W]):
    """The orders that wait, the one under way, and what the past ones come to.

    Args:
        tell: sends a message to a worker; to one that is dead it does nothing.
        seconds: how long an order may take; a worker that hangs does not keep the others from the next.
    """

    def __init__(
        self, tell: Callable[[W, Message], None], seconds: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._tell = tell
        self._seconds = seconds
        self._clock = clock
        self._workers: set[W] = set()
        self._waiting: deque[_Order[W]] = deque()
        self._current: _Order[W] | None = None
        self._number = 0
        self._unloaded: set[str] = set()

    @property
    def unloaded(self) -> list[str]:
        """The models that a worker which joins now is not to load."""
        return sorted(self._unloaded)

    def join(self, worker: W) -> None:
        """Tell a worker of all orders from now on; what came of those before is in `unloaded`."""
        self._workers.add(worker)

    def leave(self, worker: W) -> None:
        """A worker has died: nothing of it is waited for."""
        self._workers.discard(worker)
        if self._current is not None:
            self._current.awaited.discard(worker)
            self._go_on()

    def heard(self, worker: W, message: Message) -> None:
        """Take a worker's `ask` or `done`."""
        if "ask" in message:
            self._ask(_Order(message["do"], message["model"], worker, message["ask"]))
        else:
            self._done(worker, message["done"], message["error"])

    def left_seconds(self) -> float | None:
        """When to call `expire`; None when nothing is under way."""
        return None if self._current is None else max(0.0, self._current.until - self._clock())

    def expire(self) -> None:
        """Go on to the next order if the one under way takes too long; the workers that are still at it go on too."""
        order = self._current
        if order is None or self._clock() < order.until:
            return
        order.error = error_to_json(
            DeadlineExceeded(
                f"{len(order.awaited)} of {len(self._workers)} workers have not done it within {self._seconds:g} s, "
                "and may do so later"
            )
        )
        order.awaited.clear()
        self._go_on()

    def _ask(self, order: _Order[W]) -> None:
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(order)
            self._go_on()
        else:
            order.error = error_to_json(Unavailable(f"{_MOST_WAITING} orders wait already", retry_after=1))
            self._answer(order)

    def _done(self, worker: W, number: int, error: Message | None) -> None:
        order = self._current
        if order is None or order.number != number:
            return  # It was given up.
        order.succeeded = order.succeeded or error is None
        order.error = order.error or error
        order.awaited.discard(worker)
        self._go_on()

    def _go_on(self) -> None:
        """End the order under way if all have done it, and begin the next."""
        if self._current is not None and not self._current.awaited:
            self._end(self._current)
        while self._current is None and self._waiting:
            order = self._waiting.popleft()
            self._begin(order)
            if not order.awaited:
                self._end(order)

    def _begin(self, order: _Order[W]) -> None:
        self._current = order
        self._number = order.number = self._number + 1
        order.until = self._clock() + self._seconds
        order.awaited = set(self._workers)
        # From now on: a worker that joins while the order is carried out is not told of it.
        if order.do == UNLOAD:
            order.news = order.model not in self._unloaded
            self._unloaded.add(order.model)
        elif order.do == LOAD:
            self._unloaded.discard(order.model)
        for worker in self._workers:
            self._tell(worker, {"order": order.number, "do": order.do, "model": order.model})

    def _end(self, order: _Order[W]) -> None:
        self._current = None
        if order.news and order.error is not None and not order.succeeded:
            # There is no such model, or no worker could.
            self._unloaded.discard(order.model)
        self._answer(order)

    def _answer(self, order: _Order[W]) -> None:
        self._tell(order.asker, {"answer": order.ask, "error": order.error})
