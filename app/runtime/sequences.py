"""Clients' states: for each sequence of requests an interpreter of its own, kept from its start to its end.

The words are those of Triton's sequence extension: a request that starts, requests that belong, one that ends.
"""

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from app.errors import InvalidArgument, Unavailable
from app.runtime.job import Step
from app.runtime.pool import Task
from app.runtime.runners import AnyRunner

_SHOWN = 64


@dataclass(eq=False)
class Kept:
    """One sequence: its interpreter, and what runs its requests that wait, in the order in which they came."""

    name: str
    used: float
    runner: AnyRunner | None = None
    steps: deque[Task] = field(default_factory=deque)
    busy: bool = False


class Sequences:
    """The sequences of one loaded version, in one worker. For the event loop's thread only.

    Args:
        limit: how many there may be at once.
        idle_seconds: how long one is kept without a request.
        later: `loop.call_later`.
        now: seconds, as `time.monotonic` has them.
    """

    def __init__(
        self,
        limit: int,
        idle_seconds: float,
        later: Callable[[float, Callable[[], None]], object],
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._later = later
        self._now = now
        self._kept: dict[str, Kept] = {}
        self._watching = False

    def __len__(self) -> int:
        return len(self._kept)

    def enter(self, step: Step) -> Kept:
        """The sequence of a request that has come; a start makes it, anew if there is one of that name.

        Raises:
            InvalidArgument: there is none of that name, or none may be at all.
            Unavailable: there are as many as may be.
        """
        kept = self._kept.get(step.name)
        if step.start:
            if not self._limit:
                raise InvalidArgument(
                    "no sequences are kept of this model (model.toml: state.sequences = 0): send it no sequence id"
                )
            if kept is None and len(self._kept) >= self._limit:
                self._drop_idle()
            if kept is None and len(self._kept) >= self._limit:
                raise Unavailable(
                    f"{self._limit} sequences are under way, as many as may be: end one, or try again later",
                    retry_after=1,
                )
            kept = self._kept[step.name] = Kept(step.name, self._now())
            self._watch()
        elif kept is None:
            raise InvalidArgument(
                f"there is no sequence {step.name[:_SHOWN]!r}: it was not started, has ended, or had no request for "
                f"{self._idle_seconds:g} s; start it with the first request"
            )
        kept.used = self._now()
        if step.end:
            # From now on its name is free; what waits is still run on its interpreter.
            del self._kept[step.name]
        return kept

    def leave(self, kept: Kept) -> None:
        """A sequence has no request left for now."""
        kept.used = self._now()

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._later(self._idle_seconds, partial(_sweep_if_alive, weakref.ref(self)))

    def sweep(self) -> None:
        """Drop the sequences that have been idle too long."""
        self._drop_idle()
        self._watching = False
        if self._kept:
            self._watch()

    def _drop_idle(self) -> None:
        latest = self._now() - self._idle_seconds
        self._kept = {name: kept for name, kept in self._kept.items() if kept.busy or kept.used > latest}


def _sweep_if_alive(sequences: "weakref.ref[Sequences]") -> None:
    found = sequences()
    if found is not None:
        found.sweep()
