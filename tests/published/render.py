"""The table of published models, from what `make test-models` found."""

from collections.abc import Iterable
from math import isinf
from typing import Any

_HEAD = ("model", "from", "format", "what it is", "class", "conversion", "worst difference", "not served because")


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """The table for docs/."""
    lines = [_HEAD, tuple("---" for _ in _HEAD), *map(_cells, rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The same for a terminal, without the words of what each model is."""
    lines = [[*cells[:3], *cells[4:]] for cells in (_HEAD, *map(_cells, rows))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["model"],
        row["package"],
        row["format"],
        row["about"],
        row.get("class", ""),
        row.get("rung", ""),
        _difference(row),
        row.get("refused", ""),
    )


def _difference(row: dict[str, Any]) -> str:
    if "difference" not in row:
        return ""
    # JSON has no infinity: the report says null.
    found = row["difference"]
    return "wrong" if found is None or isinf(found) else f"{found:.1e}" if found else "0"
