"""Published models are fetched and served only when `--published` asks for it, as `make test-models` does."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.process import ROOT, Litepool, environment
from tests.published import reference as reference_program
from tests.published.catalogue import CATALOGUE, Published
from tests.published.fetch import fetch
from tests.published.records import record, records
from tests.published.render import table

_PATIENCE = 1800.0
"""Seconds within which all models are converted and loaded, and all references computed."""

_ROWS = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--published", action="store_true", help="fetch and serve published models")
    parser.addoption(
        "--published-report", type=Path, help="a JSON file to write what became of the published models to"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "published: needs published models, which are fetched; see `make test-models`")
    config.stash[_ROWS] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # The option is not known where pytest meets this file only on its way through all tests.
    if config.getoption("--published", default=False):
        return
    left = [item for item in items if item.get_closest_marker("published")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = list(config.stash[_ROWS].values())
    if not rows:
        return
    terminalreporter.section("published models")
    terminalreporter.write_line(table(rows))
    if report := config.getoption("--published-report"):
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
        terminalreporter.write_line(f"written to {report}")


@pytest.fixture(scope="session")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a link to each model that the chosen tests are about: `-k` makes it small."""
    folder = tmp_path_factory.mktemp("published")
    models = _asked_for(request.session.items)
    for model, file in zip(models, fetch(models).values(), strict=True):
        place = folder / model.name
        place.mkdir()
        (place / model.file).symlink_to(file)
        if model.sample:
            works = {"instance": record(records(model, model.sizes[0]), 0)}
            document = orjson.dumps([{"request": works}], option=orjson.OPT_SERIALIZE_NUMPY)
            (place / "samples.json").write_bytes(document)
    return folder


def _asked_for(items: list[pytest.Item]) -> tuple[Published, ...]:
    chosen = [item for item in items if isinstance(item, pytest.Function) and item.get_closest_marker("published")]
    if any(not hasattr(item, "callspec") for item in chosen):
        return CATALOGUE
    models = [item.callspec.params["model"] for item in chosen]
    return tuple(model for model in CATALOGUE if model in models)


@pytest.fixture(scope="session")
def answers(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of right answers, computed before the server measures its models: that is better done in peace."""
    out = tmp_path_factory.mktemp("answers") / "answers.npz"
    command: list[str | Path] = [sys.executable, "-m", reference_program.__name__, folder, out]
    quiet = environment() | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    made = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=quiet, timeout=_PATIENCE, check=False)
    assert made.returncode == 0, made.stderr
    return out


@pytest.fixture(scope="session")
def server(folder: Path, answers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Litepool]:
    """Two workers that serve the folder from an empty cache; they may be long about it, and each row says how long."""
    settings: dict[str, str | Path] = {"workers": "2", "cache_dir": tmp_path_factory.mktemp("cache")}
    settings |= {"request_timeout": "120", "max_body_bytes": str(2**28)}
    with Litepool(folder, settings=settings) as server:
        yield server.wait_ready(_PATIENCE)


@pytest.fixture(scope="session")
def health(server: Litepool) -> dict[str, Any]:
    """State and reason of each model, as `/healthz` has them."""
    with server.client() as client:
        models = client.get("/healthz").json()["models"]
    return {name: versions["1"] for name, versions in models.items()}


@pytest.fixture
def row(request: pytest.FixtureRequest, model: Published) -> dict[str, Any]:
    """The model's row of the table; tests add to it."""
    rows = request.config.stash[_ROWS]
    package = {"model": model.name, "package": model.package, "format": model.format, "about": model.about}
    return rows.setdefault(model.name, package)
