"""Write the parts of the documentation that are generated: settings, the keys of model.toml, measured figures.

Each part stands between `<!-- NAME -->` and `<!-- end NAME -->` in a page. With `--check` nothing is written, and the
exit code says whether something would have been.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from app.repository.model_config import BatchingConfig, LaneConfig, ModelConfig, StateConfig, VersionsConfig
from app.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.format import NONE, micros, significant  # noqa: E402  The package is beside this folder.
from benchmarks.results import Entry, Results, load  # noqa: E402
from tests.published.render import markdown  # noqa: E402


def settings_table() -> str:
    """Every setting with its option, its variable, its default and its meaning."""
    rows = ["| option | variable | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        option = "`MODELS_DIR` (argument)" if name == "models_dir" else f"`--{name.replace('_', '-')}`"
        rows.append(f"| {option} | `{PREFIX}{name.upper()}` | {_default(field)} | {_meaning(field)} |")
    return "\n".join(rows)


def model_toml_table() -> str:
    """Every key of model.toml, the tables in it by their names only."""
    return _keys(ModelConfig)


def training_table() -> str:
    """What the training script wrote of the shipped models."""
    rows = ["| model | trained on | held out | result |", "|---|---|---|---|"]
    for path in sorted((ROOT / "models").glob("*/training.json")):
        report: dict[str, Any] = json.loads(path.read_text())
        measures = {key: value for key, value in report.items() if key in ("accuracy", "r2", "risk_accuracy")}
        result = ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in measures.items())
        rows.append(f"| `{path.parent.name}` | {report['train']} | {report['held_out']} | {result} |")
    return "\n".join(rows)


def benchmarks_table() -> str:
    """The main figures of the committed benchmark runs, for the small model."""
    parts = []
    for name, title in (("bench", "Litepool and what people write"), ("peers", "Litepool and other servers")):
        path = ROOT / "benchmarks" / "results" / f"{name}.json"
        if path.exists():
            parts.append(_speeds(load(path), title))
    return "\n\n".join(parts)


def published_table() -> str:
    """What became of each published model when `make test-models` was last run for the documentation."""
    return markdown(json.loads((ROOT / "docs" / "published-models.json").read_text())).rstrip()


def _speeds(results: Results, title: str) -> str:
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "one by one, p50": ("one.p50_us", micros),
        "requests/s, 8 connections": ("c8.rps", significant),
        "32 connections": ("c32.rps", significant),
        "CPU a request": ("c8.cpu_us", micros),
        "batch of 256 in JSON, p50": ("batch256.json.p50_us", micros),
    }
    rows = [f"| {title} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for entry in results.of("mlp"):
        cells = [_cell(entry, figure, write) for figure, write in columns.values()]
        rows.append(f"| {entry.title} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(entry: Entry, figure: str, write: Callable[[float], str]) -> str:
    value = entry.median(figure)
    return NONE if value is None else write(value)


def _keys(model: type[BaseModel]) -> str:
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        key = f"[{name}]" if isinstance(field.default, BaseModel) else field.alias or name
        rows.append(f"| `{key}` | {_default(field)} | {_meaning(field)} |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None or field.default is None or isinstance(field.default, BaseModel):
        return ""
    value = field.default
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else ""


def _meaning(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|")


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "model.toml": model_toml_table,
    "versions": lambda: _keys(VersionsConfig),
    "batching": lambda: _keys(BatchingConfig),
    "state": lambda: _keys(StateConfig),
    "lane": lambda: _keys(LaneConfig),
    "training": training_table,
    "benchmarks": benchmarks_table,
    "published": published_table,
}


def render(page: str) -> str:
    """The page with its generated parts as they should be now."""
    for name, make in PARTS.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)
        page = pattern.sub(lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", page)  # type: ignore[misc]
    return page


def main() -> int:
    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        fresh = render(text)
        if fresh != text:
            stale.append(path.relative_to(ROOT).as_posix())
            if "--check" not in sys.argv:
                path.write_text(fresh, encoding="utf-8")
    print("stale: " + ", ".join(stale) if stale else "the generated parts are fresh")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
