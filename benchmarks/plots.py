"""The results as pictures, in SVG with the text as text. The same results give the same bytes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.format import micros, significant
from benchmarks.measure import SATURATED
from benchmarks.results import Entry, Point

# Any: matplotlib's own type for this lists every key that there is.
STYLE: Any = {
    "svg.hashsalt": "litepool",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
}
COLOURS = {
    "floor": "#8c8c8c",
    "litepool": "#0072b2",
    "litepool-int8": "#56b4e9",
    "litepool-asgi": "#4c5fa8",
    "naive": "#e69f00",
    "keras-call": "#d55e00",
    "keras-predict": "#8b3a00",
}
OTHERS = ("#009e73", "#cc79a7", "#6a3d9a", "#b15928", "#c0392b", "#7a9a01", "#3b3b3b", "#b8860b", "#2f4f4f")


def colours(entries: Sequence[Entry]) -> dict[str, str]:
    others = [entry.server for entry in entries if entry.server not in COLOURS]
    return {**COLOURS, **{name: OTHERS[index % len(OTHERS)] for index, name in enumerate(others)}}


def latency(entries: Sequence[Entry], title: str, path: Path) -> None:
    """One request at a time: a bar to p50, a tick at p99."""
    figure, axes = bars(entries, title)
    found = [(entry.median("one.p50_us") or 0, entry.median("one.p99_us") or 0) for entry in entries]
    shades = colours(entries)
    for row, (entry, (p50, p99)) in enumerate(zip(entries, found, strict=True)):
        axes.barh(row, p50, height=0.6, color=shades[entry.server])
        axes.plot([p50, p99], [row, row], color="#333333", linewidth=0.8)
        axes.plot([p99], [row], marker="|", color="#333333", markersize=9)
        axes.annotate(f" {micros(p50)}", (p99, row), va="center", xytext=(4, 0), textcoords="offset points")
    log_times(axes, "x")
    axes.set_xlim(min(p50 for p50, _ in found) / 3, max(p99 for _, p99 in found) * 4)
    axes.set_xlabel("latency of one request at a time: bar p50, tick p99 (log scale, less is better)")
    save(figure, path)


def throughput(entries: Sequence[Entry], title: str, path: Path) -> None:
    figure, axes = bars(entries, title)
    found = [entry.median("c8.rps") or 0 for entry in entries]
    shades = colours(entries)
    for row, (entry, rps) in enumerate(zip(entries, found, strict=True)):
        axes.barh(row, rps, height=0.6, color=shades[entry.server])
        axes.annotate(significant(rps), (rps, row), va="center", xytext=(4, 0), textcoords="offset points")
    axes.set_xlim(0, max(found) * 1.15)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("requests/s over 8 connections, one record each (more is better)")
    save(figure, path)


def arrivals(entries: Sequence[Entry], title: str, path: Path) -> None:
    """Latency over arrival rate, as far as the server could follow: p50 as a line, p99 dashed."""
    figure, axes = canvas(title, 5.5)
    shades = colours(entries)
    for entry in entries:
        points = followed(entry)
        rates = [rate for rate, _, _ in points]
        style: dict[str, Any] = {"color": shades[entry.server], "linewidth": 1.6, "markersize": 3.5, "marker": "o"}
        axes.plot(rates, [p50 for _, p50, _ in points], label=entry.title, **style)
        axes.plot(rates, [p99 for _, _, p99 in points], linestyle="--", alpha=0.7, **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    log_times(axes, "y")
    axes.set_xlabel("requests/s that arrive (log scale)")
    axes.set_ylabel("latency from the moment due: line p50, dashed p99")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    save(figure, path)


def followed(entry: Entry) -> list[tuple[float, float, float]]:
    """Rate, p50, p99: medians over those rounds' points at which the server kept up with what arrived."""
    by_rate: dict[float, list[Point]] = {}
    for points in entry.open_loop:
        for point in points:
            if point["achieved"] >= SATURATED * point["offered"] and not point["errors"]:
                by_rate.setdefault(point["rate"], []).append(point)
    return [(rate, middle(points, "p50_us"), middle(points, "p99_us")) for rate, points in sorted(by_rate.items())]


def middle(points: Sequence[Point], figure: str) -> float:
    return statistics.median(point[figure] for point in points)


def canvas(title: str, height: float) -> tuple[Figure, Axes]:
    with rc_context(STYLE):
        figure = Figure(figsize=(10, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, loc="left", fontweight="bold")
    return figure, axes


def bars(entries: Sequence[Entry], title: str) -> tuple[Figure, Axes]:
    figure, axes = canvas(title, 1.3 + 0.42 * len(entries))
    axes.set_yticks(range(len(entries)), [entry.title for entry in entries])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return figure, axes


def log_times(axes: Axes, which: str) -> None:
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axis.set_minor_formatter(NullFormatter())


def tick(value: float) -> str:
    """10 ms, where a table would say 10.0 ms."""
    number, unit = micros(value).split()
    return f"{float(number):g} {unit}"


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        figure.savefig(path, format="svg", metadata={"Date": None})
