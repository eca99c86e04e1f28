"""Counts and latencies, exposed by prometheus_client for all workers together.

The request path only adds to plain lists; they are handed to prometheus_client at most a few times a second, because
one of its observations costs a tenth of a small prediction. With `PROMETHEUS_MULTIPROC_DIR` set before this module is
imported, as `litepool serve` does for several workers, a scrape of any worker answers for all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from app.telemetry.batches import BatchCounters, BatchTally, BatchTotals

disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FLUSH_SECONDS = 0.25

PHASES = ("decode", "queue", "invoke", "encode", "total")

_BOUNDS = (
    *(10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3),
    *(10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_BOUNDS_NS = np.array([round(bound * 1e9) for bound in _BOUNDS])

_AT_ONCE = 256
"""Requests after which their latencies are sorted into buckets, if the next flush has not come first."""


class TallyHistogram(Histogram):
    """A histogram that takes counts made elsewhere, one for each bucket, instead of single observations."""

    def merge(self, counts: Sequence[int], total: float) -> None:
        """Add `counts`, the last of them for what is above all bounds, and the sum of the observations."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class ModelMetrics:
    """What one servable's requests add up to. For the event loop's thread only."""

    __slots__ = (
        "_batches",
        "_codes",
        "_counts",
        "_failed_ns",
        "_good",
        "_invokes",
        "_labels",
        "_metrics",
        "_records",
        "_refused",
        "_sums",
    )

    def __init__(self, metrics: "Metrics", model: str, version: str) -> None:
        self._metrics = metrics
        self._labels = (model, version)
        self._codes: dict[str, int] = {}
        self._records = self._invokes = self._failed_ns = 0
        self._good: list[Sequence[int]] = []
        self._refused: list[Sequence[int]] = []
        self._counts = np.zeros((len(PHASES), len(_BOUNDS) + 1), np.int64)
        self._sums = np.zeros(len(PHASES), np.int64)
        self._batches = BatchTally()

    def answered(self, seen: Sequence[int]) -> None:
        """Count a good answer: its records, its `Job.batch`, then nanoseconds of each of `PHASES` (0: not entered)."""
        good = self._good
        if not good:
            self._metrics.touch(self)
        good.append(seen)
        if len(good) >= _AT_ONCE:
            self._count_seen()

    def refused(self, code: str, phases_ns: Sequence[int] = ()) -> None:
        """Count any other outcome: its code, and the phases as for a good answer, if it came so far."""
        self._metrics.touch(self)
        self._codes[code] = self._codes.get(code, 0) + 1
        if phases_ns:
            self._failed_ns += phases_ns[-1]
            # No invoke is counted where there is no answer.
            self._refused.append((0, -1, *phases_ns))
            if len(self._refused) >= _AT_ONCE:
                self._count_seen()

    def flush(self) -> None:
        """Hand what was counted to prometheus_client."""
        self._count_seen()
        for code, count in self._codes.items():
            self._metrics.requests.labels(*self._labels, code).inc(count)
        self._codes.clear()
        self._metrics.records.labels(*self._labels).inc(self._records)
        self._metrics.invokes.labels(*self._labels).inc(self._invokes)
        self._metrics.failed_seconds.labels(*self._labels).inc(self._failed_ns / 1e9)
        self._metrics.batches.flush(*self._labels, self._batches)
        if self._records:
            self._metrics.last.labels(*self._labels).set_to_current_time()
        self._records = self._invokes = self._failed_ns = 0
        for phase, counts, total in zip(PHASES, self._counts, self._sums, strict=True):
            if counts.any():
                self._metrics.seconds.labels(*self._labels, phase).merge(counts.tolist(), float(total) / 1e9)
        self._counts[:] = 0
        self._sums[:] = 0

    def _count_seen(self) -> None:
        """Sort the latencies seen into their buckets, many at once: NumPy takes as long for a hundred as for one."""
        good = len(self._good)
        if good:
            self._codes["OK"] = self._codes.get("OK", 0) + good
        seen = self._good + self._refused
        if not seen:
            return
        taken = np.array(seen, np.int64)
        self._good.clear()
        self._refused.clear()
        self._records += int(taken[:, 0].sum())
        self._invokes += int(np.count_nonzero(taken[:, 1] >= 0))
        phases = taken[:, 2:]
        rows, batch, decode, _, invoke, encode, _ = taken[:good].T
        self._batches.add(rows, batch, decode, invoke, encode)
        self._sums += phases.sum(axis=0)
        places = np.searchsorted(_BOUNDS_NS, phases)
        for index in range(len(PHASES)):
            self._counts[index] += np.bincount(places[phases[:, index] > 0, index], minlength=len(_BOUNDS) + 1)


class Totals:
    """What was counted of one version since the server's start, over all its workers."""

    def __init__(self) -> None:
        self.requests: dict[str, int] = {}
        """By outcome."""
        self.records = 0
        self.invokes = 0
        self.failed_ns = 0
        """In all, of those requests that were not answered well."""
        self.last_answer = 0.0
        """When, in seconds of the epoch; 0 for never."""
        self.counts: dict[str, int] = {}
        self.sums_ns: dict[str, int] = {}
        """Of each phase how often it was entered, and its time in nanoseconds."""
        self.batches: dict[int, BatchTotals] = {}
        """By the number of records of an invoke."""

    def take(self, name: str, kind: str, value: float) -> None:
        """Add a sample of the exposition; `kind` is its outcome or its phase."""
        match name:
            case "litepool_requests_total":
                self.requests[kind] = round(value)
            case "litepool_records_total":
                self.records = round(value)
            case "litepool_invokes_total":
                self.invokes = round(value)
            case "litepool_failed_seconds_total":
                self.failed_ns = round(value * 1e9)
            case "litepool_last_answer_timestamp_seconds":
                self.last_answer = value
            case "litepool_request_seconds_count":
                self.counts[kind] = round(value)
            case "litepool_request_seconds_sum":
                self.sums_ns[kind] = round(value * 1e9)


class Metrics:
    """All metrics of one worker.

    Args:
        later: called with a number of seconds and a function to call then, on the loop; `loop.call_later` fits.
    """

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._later = later
        self._dirty: dict[ModelMetrics, None] = {}
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "litepool_requests",
            "Requests answered, by outcome; no model is named where none was found.",
            ["model", "version", "code"],
            registry=self._registry,
        )
        self.records = Counter("litepool_records", "Records predicted.", ["model", "version"], registry=self._registry)
        self.invokes = Counter(
            "litepool_invokes", "Invokes run; requests may share one.", ["model", "version"], registry=self._registry
        )
        self.batches = BatchCounters(self._registry)
        self.failed_seconds = Counter(
            "litepool_failed_seconds",
            "Time of requests that were not answered well; it is in litepool_request_seconds too.",
            ["model", "version"],
            registry=self._registry,
        )
        self.last = Gauge(
            "litepool_last_answer_timestamp_seconds",
            "When a request was last answered well, to a quarter of a second.",
            ["model", "version"],
            registry=self._registry,
            multiprocess_mode="max",
        )
        self.seconds = TallyHistogram(
            "litepool_request_seconds",
            "Time of requests, in all and by phase.",
            ["model", "version", "phase"],
            registry=self._registry,
            buckets=_BOUNDS,
        )
        self.unknown = ModelMetrics(self, "", "")

    def model(self, name: str, version: int) -> ModelMetrics:
        """The counters of one servable: labels come from what was resolved, never from a request."""
        return ModelMetrics(self, name, str(version))

    def touch(self, counters: ModelMetrics) -> None:
        """Have `counters` flushed soon."""
        if not self._dirty:
            self._later(FLUSH_SECONDS, self.flush)
        self._dirty[counters] = None

    def flush(self) -> None:
        """Hand everything counted so far to prometheus_client."""
        for counters in self._dirty:
            counters.flush()
        self._dirty.clear()

    def totals(self) -> dict[tuple[str, str], "Totals"]:
        """What all workers have counted, by model and version."""
        self.flush()
        found: dict[tuple[str, str], Totals] = {}
        for family in self._collected().collect():
            for sample in family.samples:
                labels = sample.labels
                if "model" not in labels or "le" in labels:
                    continue
                totals = found.setdefault((labels["model"], labels["version"]), Totals())
                if "records" in labels:
                    batch = totals.batches.setdefault(int(labels["records"]), BatchTotals())
                    batch.take(labels.get("phase"), sample.value)
                else:
                    rest = labels.get("code") or labels.get("phase") or ""
                    totals.take(sample.name, rest, sample.value)
        return found

    def render(self) -> bytes:
        """The exposition of all workers, in Prometheus' text format."""
        self.flush()
        return generate_latest(self._collected())

    def _collected(self) -> Any:
        if values.ValueClass is values.MutexValue:
            return self._registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry
