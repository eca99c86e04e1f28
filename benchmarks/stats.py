"""Percentiles of one run's latencies and the middle of several runs. No I/O."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CURVE = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)


def percentile(samples: NDArray[np.float64], percent: float) -> float:
    """The smallest sample that is at least as large as this percent of all: a latency that really happened."""
    if not len(samples):
        return math.nan
    rank = max(math.ceil(percent / 100 * len(samples)), 1)
    return float(np.partition(samples, rank - 1)[rank - 1])


def curve(samples: NDArray[np.float64]) -> dict[str, float]:
    """The run's distribution in a few numbers, kept in the results beside p50 and p99."""
    return {f"p{percent:g}": round(percentile(samples, percent), 1) for percent in CURVE}


def corrected(samples: NDArray[np.float64], expected: float) -> NDArray[np.float64]:
    """With the requests that a stall kept from being sent, as wrk adds them (`stats_correct` in its stats.c).

    For each sample that is more than twice the expected time between two requests of a connection: those that would
    have been sent meanwhile, each by that time shorter, down to that time.
    """
    parts = [samples]
    missing = samples[samples >= 2 * expected] - expected
    while expected > 0 and len(missing := missing[missing > expected]):
        parts.append(missing)
        missing = missing - expected
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Of one figure over the rounds: the median, and the noise as the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        return cls(statistics.median(values), min(values), max(values))
