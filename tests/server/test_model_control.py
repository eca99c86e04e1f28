"""Loading and unloading by HTTP, in a worker that is alone. That it is true for all is in tests/e2e/test_control.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tflite
from tests.server.inprocess import InProcess, error_of

RECORD = {"instance": [1, 2, 3, 4]}
ANSWER = {"prediction": [3, 5, 7, 9]}
PATHS = ["/models/affine/load", "/models/affine/unload", "/models/rescan"]


@pytest.fixture
def models(one_model: Path) -> Path:
    """A folder with `affine` and `other`, so that neither is the only one."""
    (one_model / "other.tflite").write_bytes(tflite.affine(scale=3.0))
    return one_model


@pytest.fixture
def served(models: Path) -> Iterator[InProcess]:
    with InProcess(models, model_control=True) as served:
        yield served


def order(served: InProcess, path: str, **headers: str) -> int:
    return served.request("POST", path, headers=headers).status_code


def test_an_unloaded_model_is_not_served_until_it_is_loaded_again_and_others_are(served: InProcess) -> None:
    unloaded = served.request("POST", "/models/affine/unload")
    assert unloaded.status_code == 200
    assert unloaded.json() == served.get("/models/affine").json()
    assert unloaded.json()["state"] == "END"
    error_of(served.post("/predict/affine", RECORD), 503)
    assert served.post("/predict/other", RECORD).status_code == 200

    loaded = served.request("POST", "/models/affine/load")
    assert loaded.status_code == 200
    assert loaded.json() == served.get("/models/affine").json()
    assert loaded.json()["state"] == "AVAILABLE"
    assert served.post("/predict/affine", RECORD).json() == ANSWER


def test_a_load_that_fails_is_503_with_the_reason(served: InProcess, models: Path) -> None:
    assert order(served, "/models/affine/unload") == 200
    (models / "affine.tflite").write_bytes(tflite.truncated(tflite.affine()))

    message = error_of(served.request("POST", "/models/affine/load"), 503)

    assert message == "version 1: " + served.get("/models/affine").json()["reason"]


def test_a_rescan_answers_with_the_list_of_models(served: InProcess) -> None:
    response = served.request("POST", "/models/rescan")

    assert response.status_code == 200
    assert response.json() == served.get("/models").json()


@pytest.mark.parametrize("do", ["load", "unload"])
@pytest.mark.parametrize("name", ["nothing", "..", "%2e%2e%2fetc", "a%0Ab", "%F0%9F%90%8D", "x" * 3000])
def test_an_unknown_model_is_404(served: InProcess, do: str, name: str) -> None:
    assert len(error_of(served.request("POST", f"/models/{name}/{do}"), 404)) < 500


@pytest.mark.parametrize("path", PATHS)
def test_where_it_is_not_allowed_it_is_403_and_says_how_to_allow_it(good: InProcess, path: str) -> None:
    assert "--model-control" in error_of(good.request("POST", path), 403)
    assert good.post("/predict/affine", RECORD).json() == ANSWER


@pytest.mark.parametrize("path", PATHS)
def test_a_page_of_another_site_may_order_nothing(served: InProcess, path: str) -> None:
    for origin in ("http://elsewhere.example", "null", "http://litepool.elsewhere.example"):
        response = served.request("POST", path, headers={"Origin": origin})
        assert "may not" in error_of(response, 403)
    assert order(served, path, Origin="http://litepool") == 200


def test_a_server_that_stops_answers_503(served: InProcess) -> None:
    served.services.orders.close()

    assert "shutting down" in error_of(served.request("POST", "/models/affine/load"), 503)


def test_what_goes_wrong_unforeseen_is_500_and_found_in_the_log(
    served: InProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(served.services.orders, "_apply", fail)

    message = error_of(served.request("POST", "/models/affine/load"), 500)

    assert "a bug" not in message
    assert message.rpartition(" ")[2] in caplog.text
    assert "KeyError: 'a bug'" in caplog.text


def test_the_documentation_has_the_routes_only_where_they_are_allowed(served: InProcess, good: InProcess) -> None:
    shown = {"/models/{model}/load", "/models/{model}/unload", "/models/rescan"}

    document = served.get("/openapi.json").json()
    assert shown <= document["paths"].keys()
    for path in shown:
        assert document["paths"][path]["post"]["responses"].keys() == {"200", "default"}
    assert not shown & good.get("/openapi.json").json()["paths"].keys()
