"""The application as a whole: its routes, and what happens when its lifespan begins and ends."""

import threading
from pathlib import Path
from typing import Any

import pytest

from app.repository import loader, manager
from tests.server.inprocess import PATIENCE, InProcess, error_of

ROUTES = {
    "/": {"GET"},
    "/healthz": {"GET"},
    "/livez": {"GET"},
    "/readyz": {"GET"},
    "/models": {"GET"},
    "/models/affine": {"GET"},
    "/metrics": {"GET"},
    "/docs": {"GET"},
    "/openapi.json": {"GET"},
    "/predict": {"POST"},
    "/predict/affine": {"POST"},
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.mark.parametrize("path", [path for path, methods in ROUTES.items() if "GET" in methods])
def test_a_route_that_is_read_answers_200(good: InProcess, path: str) -> None:
    assert good.get(path).status_code == 200


@pytest.mark.parametrize("path", [path for path, methods in ROUTES.items() if "POST" in methods])
def test_a_route_that_predicts_answers_200(good: InProcess, path: str) -> None:
    assert good.post(path, {"instance": [1, 2, 3, 4]}).json() == {"prediction": [3, 5, 7, 9]}


@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for path in ROUTES for method in METHODS if method not in ROUTES[path]]
)
def test_another_method_is_405_and_told_which_are_allowed(good: InProcess, method: str, path: str) -> None:
    response = good.request(method, path)

    message = error_of(response, 405)
    allowed = set(response.headers["allow"].split(", "))
    assert allowed - {"HEAD"} == ROUTES[path]
    assert path in message
    assert method in message


@pytest.mark.parametrize("path", ["/nothing", "/predict/affine/more", "/healthz/x", "/static-offline-docs/no.js"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_route_is_404_and_names_the_path(good: InProcess, method: str, path: str) -> None:
    # The folder of assets is only read.
    status = 405 if method == "POST" and path.startswith("/static") else 404

    assert path in error_of(good.request(method, path), status)


def test_an_endless_path_is_not_repeated_whole(good: InProcess) -> None:
    assert len(error_of(good.get("/" + "x" * 5000), 404)) < 1000


def test_settled_is_told_once_however_many_models_there_are(good: InProcess) -> None:
    assert good.settled_times == 1


def test_an_empty_folder_is_settled_at_once(tmp_path: Path) -> None:
    with InProcess(tmp_path) as served:
        assert served.settled_times == 1


def test_the_schema_is_made_anew_when_a_model_has_been_loaded(one_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = held_loading(monkeypatch)
    with InProcess(one_model, settle=False) as served, gate:
        assert "/predict/affine" not in served.get("/openapi.json").json()["paths"]

        gate.open()
        served.wait_settled()

        assert "/predict/affine" in served.get("/openapi.json").json()["paths"]


def test_the_end_of_the_lifespan_leaves_no_thread_behind(one_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    gate = held_loading(monkeypatch)
    with InProcess(one_model, settle=False), gate:
        gate.wait_entered()
        assert len(set(threading.enumerate()) - before) >= 2, "a loader and a pool thread"

    assert set(threading.enumerate()) <= before


class Gate:
    """Holds the loader until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()

    def pass_through(self) -> None:
        self._entered.set()
        assert self._opened.wait(PATIENCE)

    def wait_entered(self) -> None:
        assert self._entered.wait(PATIENCE)

    def open(self) -> None:
        self._opened.set()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


def held_loading(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Hold the loading of every model, after it has said what it is about, until the gate is opened."""
    gate = Gate()

    def held(source: Any, converter: Any, lanes: Any, progress: Any, check: Any) -> Any:
        progress("turning the handle")
        gate.pass_through()
        return loader.load(source, converter, lanes, progress, check)

    monkeypatch.setattr(manager, "load", held)
    return gate
