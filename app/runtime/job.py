"""One call on its way through a servable."""

from collections.abc import Sequence
from time import perf_counter_ns
from typing import NamedTuple

from app.errors import DeadlineExceeded
from app.tensors import Array


class Step(NamedTuple):
    """A request's place in a sequence of requests that share a model's state.

    Args:
        name: the sequence's.
        start: whether it is the first, which gets a clean state.
        end: whether it is the last, after which the state is dropped.
    """

    name: str
    start: bool = False
    end: bool = False


class Abandoned(Exception):
    """Nobody waits for the answer any more, so there is none."""


class Job:
    """A decoded, or still to be decoded, call. Subclasses know the wire format; the runtime knows only arrays.

    `prepare`, the invoke and `accept` run on one thread, the loop's or a pool's; `finish` always runs on the loop,
    once. Times are in nanoseconds of `perf_counter_ns`.
    """

    # Of the class, until a job has its own: most never do.
    deadline = 0
    abandoned = False
    sequence: Step | None = None
    """For a model with state: which sequence it belongs to."""
    inputs: tuple[Array, ...] = ()
    rows = 0
    queued_at = 0
    queue_ns = 0
    invoke_ns = 0
    batch = 0
    """Records of an invoke that several jobs share, below 0 in all of them but one, which alone counts it. 0: the job
    had its invoke to itself."""

    def prepare(self) -> None:
        """Fill `inputs` and `rows` if that has not been done.

        Raises:
            LitepoolError: the call is refused.
        """
        raise NotImplementedError

    def accept(self, outputs: Sequence[Array]) -> None:
        """Take the outputs, each `[rows, *record]`, in the signature's order.

        Raises:
            LitepoolError: they have no form in the caller's format.
        """
        raise NotImplementedError

    def finish(self, error: Exception | None) -> None:
        """Answer: with what `accept` was given, or with the error."""
        raise NotImplementedError

    def check_wanted(self, now: int = 0) -> None:
        """Refuse a call that nobody waits for, or that waited too long.

        Args:
            now: when it ceased to wait; 0: this moment.

        Raises:
            Abandoned, DeadlineExceeded
        """
        if self.abandoned:
            raise Abandoned
        if self.queued_at:
            now = now or perf_counter_ns()
            self.queue_ns = now - self.queued_at
            if now > self.deadline:
                raise DeadlineExceeded(
                    f"the request waited {self.queue_ns / 1e6:.0f} ms for the model, longer than it may: try later"
                )
