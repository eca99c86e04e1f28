"""How many records invokes had, and what each number of them took: Triton's `batch_stats`."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter

SIZES = (*range(1, 33), *(1 << power for power in range(6, 27)))
"""Numbers of records that are told apart: the small ones each, of others the next power of two. They are few, since
each that occurs is four lines of the exposition."""

_SIZES = np.array(SIZES[:-1])

PHASES = ("decode", "invoke", "encode")

Tally = tuple[str, int, list[int]]
"""How many records, how many invokes of them, and nanoseconds of each of `PHASES`."""


class BatchTally:
    """What the invokes of one servable add up to until it is taken."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums = np.zeros((1 + len(PHASES), len(SIZES)), np.int64)

    def add(self, rows: npt.NDArray[np.int64], batch: npt.NDArray[np.int64], *phases: npt.NDArray[np.int64]) -> None:
        """Add requests that were answered well.

        Args:
            rows, batch: of each request its records, and what `Job.batch` says of its invoke.
            phases: nanoseconds of each of `PHASES`.
        """
        places = np.searchsorted(_SIZES, np.where(batch, np.abs(batch), rows))
        counted = batch >= 0
        decode, invoke, encode = phases
        # The time of an invoke is in all requests that share it.
        for sums, each in zip(self._sums, (counted, decode, invoke * counted, encode), strict=True):
            sums += np.bincount(places, each, len(SIZES)).astype(np.int64)

    def take(self) -> Iterator[Tally]:
        """What there is of each size that occurred, and begin anew."""
        for place in np.flatnonzero(self._sums.any(axis=0)).tolist():
            count, *phases_ns = self._sums[:, place].tolist()
            yield str(SIZES[place]), count, phases_ns
        self._sums[:] = 0


class BatchCounters:
    """The counters of all servables."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["model", "version", "records"]
        self._invokes = Counter(
            "litepool_batches",
            "Invokes run, by the number of records, which above 32 is rounded up to a power of two.",
            labels,
            registry=registry,
        )
        self._seconds = Counter(
            "litepool_batch_seconds",
            "Time of these invokes, and of decoding and encoding what shared them.",
            [*labels, "phase"],
            registry=registry,
        )

    def flush(self, model: str, version: str, tally: BatchTally) -> None:
        """Take over what a servable's add up to."""
        for records, count, phases_ns in tally.take():
            self._invokes.labels(model, version, records).inc(count)
            for phase, spent_ns in zip(PHASES, phases_ns, strict=True):
                self._seconds.labels(model, version, records, phase).inc(spent_ns / 1e9)


class BatchTotals:
    """What was counted of the invokes of one size, over all workers."""

    def __init__(self) -> None:
        self.invokes = 0
        self.sums_ns = dict.fromkeys(PHASES, 0)

    def take(self, phase: str | None, value: float) -> None:
        """Add a sample of the exposition."""
        if phase is None:
            self.invokes = round(value)
        else:
            self.sums_ns[phase] = round(value * 1e9)
