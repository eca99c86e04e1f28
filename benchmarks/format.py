"""Numbers as the tables show them."""

from __future__ import annotations

import math
from collections.abc import Callable

from benchmarks.stats import Summary

NONE = "-"


def significant(value: float, digits: int = 3) -> str:
    """Three digits that mean something, thousands apart: 44,600, 107, 1.86."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else NONE
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(decimals, 0)}f}"


def micros(value: float) -> str:
    """A time given in microseconds, in the unit in which people would say it."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if abs(value) >= size:
            return f"{significant(value / size)} {unit}"
    return f"{significant(value)} us"


def seconds(value: float) -> str:
    return micros(value * 1e6)


def megabytes(value: float) -> str:
    return f"{value:,.0f} MB"


def percent(value: float) -> str:
    return f"{value:.0f}%"


def with_noise(summary: Summary | None, write: Callable[[float], str]) -> str:
    """The median, and small below it the least and the most when the rounds differ."""
    if summary is None:
        return NONE
    least, most = write(summary.least), write(summary.most)
    noise = f"<br><sub>{least} to {most}</sub>" if least != most else ""
    return write(summary.median) + noise
