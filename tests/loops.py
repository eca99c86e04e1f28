"""A stand-in for the event loop: what is handed to it runs when a test says so, on the test's own thread."""

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

PATIENCE = 30.0
"""Seconds after which a test that waits for another thread fails; nothing is measured by it."""


class Loop:
    """Its `call` does for `loop.call_soon` and for `loop.call_soon_threadsafe`."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        """What was asked for later: after how many seconds, and what; a test runs it when it likes."""

    def call(self, function: Callable[..., object], *args: Any) -> None:
        self._calls.put((function, args))

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Stands for `loop.call_later`."""
        self.timers.append((seconds, function))

    def turn(self) -> None:
        """Run what has been handed over so far."""
        for _ in range(self._calls.qsize()):
            self.wait()

    def settle(self) -> None:
        """Run turns until nothing is handed over any more."""
        while self._calls.qsize():
            self.turn()

    def wait(self) -> None:
        """Run one thing, which another thread may be about to hand over."""
        function, args = self._calls.get(timeout=PATIENCE)
        function(*args)

    def run_until(self, done: Callable[[], bool]) -> None:
        """Run what is handed over until `done`."""
        while not done():
            self.wait()
