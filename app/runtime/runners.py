"""The interpreters of one loaded version, which its signatures share: each belongs to one thread for life."""

from collections.abc import Callable, Sequence
from typing import Protocol

from app.tensors import Array, Signature


class AnyRunner(Protocol):
    """What runs one signature: LiteRT's interpreter, or TensorFlow behind a wall."""

    def of(self, name: str) -> "AnyRunner": ...
    def signature(self) -> Signature: ...
    def hold_to(self, signature: Signature) -> None: ...
    def invoke(self, inputs: Sequence[Array]) -> list[Array]: ...


class Runners:
    """Makes interpreters when the thread that keeps them first needs one.

    Args:
        make: makes one more.
        first: one that is made already, for the lane that will be used most.
        threads: how many the pool has.
        inline: whether the event loop runs any of the signatures.
    """

    def __init__(self, make: Callable[[], AnyRunner], first: AnyRunner, threads: int, inline: bool) -> None:
        self.new = make
        self._inline = first
        # A pool's first request should not wait for the interpreter to be built.
        self._pooled: list[AnyRunner | None] = (
            [None] * threads if inline else [first, *(make() for _ in range(threads - 1))]
        )

    def inline(self) -> AnyRunner:
        """The event loop's own."""
        return self._inline

    def pooled(self, thread: int) -> AnyRunner:
        """A pool thread's own; for that thread only."""
        runner = self._pooled[thread]
        if runner is None:
            runner = self._pooled[thread] = self.new()
        return runner
