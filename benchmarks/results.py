"""The results on disk: one JSON file with the machine, the versions, the method and every round's figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from benchmarks.stats import Summary

FORMAT = 1
Figures = dict[str, float]
Point = dict[str, float]


@dataclasses.dataclass
class Entry:
    """One server with one model. `error` says why there are no rounds."""

    server: str
    title: str
    group: str
    about: str
    model: str
    versions: dict[str, str]
    checked_answers: int = 0
    max_difference: float = 0.0
    rounds: list[Figures] = dataclasses.field(default_factory=list)
    curves: list[dict[str, dict[str, float]]] = dataclasses.field(default_factory=list)
    open_loop: list[list[Point]] = dataclasses.field(default_factory=list)
    errors: int = 0
    error: str = ""

    def values(self, figure: str) -> list[float]:
        """One value for each round that has it."""
        return [found[figure] for found in self.rounds if figure in found]

    def summary(self, figure: str) -> Summary | None:
        values = self.values(figure)
        return Summary.of(values) if values else None

    def median(self, figure: str) -> float | None:
        summary = self.summary(figure)
        return summary.median if summary else None


@dataclasses.dataclass
class Results:
    """A whole run. `invoke_us` is the interpreter alone: by model, then `variant.batch`, one figure for each round."""

    date: str
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    method: dict[str, Any]
    models: dict[str, str]
    batches: dict[str, list[int]]
    invoke_us: dict[str, dict[str, list[float]]]
    entries: list[Entry]
    extras: dict[str, Figures] = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    def entry(self, server: str, model: str) -> Entry | None:
        """None when it was not measured."""
        found = [entry for entry in self.entries if (entry.server, entry.model) == (server, model) and entry.rounds]
        return found[0] if found else None

    def of(self, model: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.model == model and entry.rounds]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def load(path: Path) -> Results:
    """Raises ValueError for a file of another format."""
    found = json.loads(path.read_text())
    if found.get("format") != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, found {found.get('format')}")
    return Results(**{**found, "entries": [Entry(**entry) for entry in found["entries"]]})
