"""The results as Markdown tables. No prose, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.format import NONE, megabytes, micros, percent, seconds, significant, with_noise
from benchmarks.ratios import Aim
from benchmarks.results import Entry, Results

Column = tuple[str, str, Callable[[float], str]]

SPEED: tuple[Column, ...] = (
    ("one by one, p50", "one.p50_us", micros),
    ("p99", "one.p99_us", micros),
    ("p50, processors kept awake", "awake.p50_us", micros),
    ("requests/s, 1 connection", "c1.rps", significant),
    ("8", "c8.rps", significant),
    ("32", "c32.rps", significant),
    ("p99, 8 connections", "c8.p99_us", micros),
    ("32", "c32.p99_us", micros),
    ("CPU per request", "c8.cpu_us", micros),
)
COST: tuple[Column, ...] = (
    ("start-up", "start.seconds", seconds),
    ("memory, idle", "memory.idle.pss_mb", megabytes),
    ("memory, after the load", "memory.used.pss_mb", megabytes),
    ("machine busy before the start", "start.busy_percent", percent),
)
OPEN: tuple[Column, ...] = (
    ("most answers/s", "open.saturation_rps", significant),
    ("at 70% of it: p50", "open70.p50_us", micros),
    ("p99", "open70.p99_us", micros),
    ("the client's share of a core", "open70.client_cpu", significant),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def servers(entries: Sequence[Entry], columns: Sequence[Column]) -> str:
    rows = [
        [entry.title, *(with_noise(entry.summary(figure), write) for _, figure, write in columns)] for entry in entries
    ]
    return table(["server", *(title for title, _, _ in columns)], rows)


def batches(entries: Sequence[Entry], sizes: Sequence[int]) -> str:
    """p50 of the client's own batches; a dash where a server has no such format."""
    columns: list[Column] = [
        (f"{size} records, {name}", f"batch{size}.{wire}.p50_us", micros)
        for wire, name in (("json", "JSON"), ("npy", ".npy"))
        for size in sizes
    ]
    return servers(entries, columns)


def checks(entries: Sequence[Entry]) -> str:
    head = ["server", "answers compared", "largest difference", "errors under load", "versions"]
    rows = []
    for entry in entries:
        found = ", ".join(f"{name} {version}" for name, version in entry.versions.items()) or "as above"
        difference = f"{entry.max_difference:.1e}" if entry.group != "floor" else NONE
        rows.append([entry.title, str(entry.checked_answers), difference, str(entry.errors), found])
    return table(head, rows)


def aims(wanted: Sequence[Aim], first: Results | None, second: Results | None) -> str:
    """What each aim finds in the results that it is given."""
    rows = []
    for aim in wanted:
        value = aim.find(first, second)
        found = f"{significant(value)}{aim.unit}" if value is not None else "not measured"
        verdict = NONE if value is None else ("yes" if aim.reached(value) else "no")
        rows.append([aim.label, aim.bound, found, verdict])
    return table(["figure, `mlp`", "aim", "measured", "reached"], rows)


def machine(results: Results) -> str:
    facts = {**results.machine, **{f"`{name}`": version for name, version in results.versions.items()}}
    return table(["what", "which"], [[name, str(value)] for name, value in facts.items()])


def invokes(results: Results, model: str) -> str:
    rows = []
    for name, taken in results.invoke_us.get(model, {}).items():
        variant, size = name.split(".")
        rows.append([variant, size, micros(sorted(taken)[len(taken) // 2])])
    return table(["weights", "records", "invoke"], rows)
