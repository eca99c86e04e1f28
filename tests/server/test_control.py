"""Health, models and metrics."""

import secrets
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import __version__
from app.errors import ModelError
from app.repository import loader, manager
from tests import tflite
from tests.server.inprocess import InProcess, error_of
from tests.server.test_app import held_loading

AVAILABLE = {"state": "AVAILABLE", "reason": ""}


# /healthz


def test_healthz_is_ok_with_every_model_available(one_model: Path) -> None:
    with InProcess(one_model) as served:
        response = served.get("/healthz")

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"status": "ok", "models": {"affine": {"1": AVAILABLE}}}


def test_healthz_is_degraded_when_some_models_failed_and_others_serve(mixed: InProcess) -> None:
    response = mixed.get("/healthz")

    assert response.status_code == 200
    body = response.json()
    assert body.keys() == {"status", "models"}
    assert body["status"] == "degraded"
    assert body["models"]["affine"] == {"1": AVAILABLE}
    assert body["models"]["broken"].keys() == {"1"}
    assert body["models"]["broken"]["1"]["state"] == "FAILED"
    assert body["models"]["broken"]["1"]["reason"]


def test_healthz_is_failed_when_nothing_serves(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "broken.tflite").write_bytes(tflite.truncated(tflite.affine()))
    with InProcess(tmp_path / "models") as served:
        response = served.get("/healthz")

    assert response.status_code == 503
    assert response.json()["status"] == "failed"
    assert response.json()["models"]["broken"]["1"]["state"] == "FAILED"


def test_healthz_of_an_empty_folder_is_failed_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with InProcess(tmp_path / "models") as served:
        response = served.get("/healthz")
        refused = served.post("/predict", {"instance": [1]})

    assert response.status_code == 503
    assert response.json()["status"] == "failed"
    assert response.json()["models"] == {}
    assert "put one there" in response.text
    assert "put one there" in error_of(refused, 503)


def test_healthz_is_starting_with_what_is_waited_for(one_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one_model / "next.tflite").write_bytes(tflite.affine())
    gate = held_loading(monkeypatch)
    with InProcess(one_model, settle=False) as served, gate:
        gate.wait_entered()
        response = served.get("/healthz")

    assert response.status_code == 503
    body = response.json()
    assert body["status"] == "starting"
    assert body["models"]["affine"] == {"1": {"state": "LOADING", "reason": "turning the handle"}}
    assert body["models"]["next"]["1"]["state"] == "START"
    assert body["models"]["next"]["1"]["reason"]


def test_healthz_is_draining_once_the_server_goes_away(one_model: Path) -> None:
    with InProcess(one_model) as served:
        served.services.manager.drain()
        response = served.get("/healthz")
        ready = served.get("/readyz")
        answer = served.post("/predict", {"instance": [1, 2, 3, 4]})

    assert response.status_code == 503
    assert response.json()["status"] == "draining"
    assert response.json()["models"] == {"affine": {"1": AVAILABLE}}
    assert ready.status_code == 503
    assert answer.json() == {"prediction": [3, 5, 7, 9]}, "what still comes is answered"


# /livez and /readyz


def test_livez_is_200_and_readyz_503_while_the_first_load_is_under_way(
    one_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = held_loading(monkeypatch)
    with InProcess(one_model, settle=False) as served, gate:
        gate.wait_entered()
        alive, ready = served.get("/livez"), served.get("/readyz")

        gate.open()
        served.wait_settled()
        settled = served.get("/readyz")

    assert alive.status_code == 200
    assert ready.status_code == 503
    assert "turning the handle" in ready.text
    assert settled.status_code == 200


def test_readyz_is_200_when_some_models_failed_and_503_when_nothing_serves(mixed: InProcess, tmp_path: Path) -> None:
    assert mixed.get("/readyz").status_code == 200
    with InProcess(tmp_path) as served:
        assert served.get("/readyz").status_code == 503
        assert served.get("/livez").status_code == 200


# What happens to a request for a model that is not serving


def test_a_model_that_is_loading_answers_503_with_retry_after_and_what_is_under_way(
    one_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = held_loading(monkeypatch)
    with InProcess(one_model, settle=False) as served, gate:
        gate.wait_entered()
        for path in ("/predict", "/predict/affine"):
            response = served.post(path, {"instance": [1, 2, 3, 4]})

            assert "turning the handle" in error_of(response, 503)
            assert int(response.headers["retry-after"]) > 0


def test_a_failed_model_answers_503_with_its_reason_and_no_retry_after(mixed: InProcess) -> None:
    reason = mixed.get("/healthz").json()["models"]["broken"]["1"]["reason"]
    response = mixed.post("/predict/broken", {"instance": [1, 2, 3, 4]})

    assert reason in error_of(response, 503)
    assert "retry-after" not in response.headers


@pytest.mark.parametrize("fault", [ModelError("it has no handle"), ZeroDivisionError("division by zero")])
def test_a_model_that_fails_in_any_way_leaves_the_others_serving(
    one_model: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    (one_model / "bad.tflite").write_bytes(tflite.affine())

    def failing(source: Any, converter: Any, lanes: Any, progress: Any, check: Any) -> Any:
        if source.name == "bad":
            raise fault
        return loader.load(source, converter, lanes, progress, check)

    monkeypatch.setattr(manager, "load", failing)
    with InProcess(one_model) as served:
        states = served.get("/healthz").json()["models"]
        answer = served.post("/predict/affine", {"instance": [1, 2, 3, 4]})

    assert states["bad"]["1"]["state"] == "FAILED"
    assert str(fault) in states["bad"]["1"]["reason"]
    assert answer.status_code == 200


# /models


def test_models_lists_every_model_with_its_state_and_the_default(mixed: InProcess) -> None:
    body = mixed.get("/models").json()

    assert body["default_model"] == "affine"
    states = {model["name"]: (model["version"], model["state"], bool(model["reason"])) for model in body["models"]}
    assert states == {
        "<img src=x onerror=alert(1)>": (1, "FAILED", True),
        "affine": (1, "AVAILABLE", False),
        "broken": (1, "FAILED", True),
    }


def test_a_model_shows_its_tensors_in_the_order_of_its_signature(good: InProcess) -> None:
    body = good.get("/models/pair").json()

    assert (body["name"], body["version"], body["state"], body["reason"]) == ("pair", 1, "AVAILABLE", "")
    assert (body["format"], body["file"], body["conversion"]) == ("tflite", "pair.tflite", None)
    vector = {"dtype": "float32", "shape": [-1, 3], "record_shape": [3]}
    assert body["signature"]["inputs"] == [{"name": "left", **vector}, {"name": "right", **vector}]
    assert body["signature"]["outputs"] == [
        {"name": "difference", **vector},
        {"name": "total", "dtype": "float32", "shape": [-1, 1], "record_shape": [1]},
    ]
    assert body["samples"] == 2
    assert all(cost > 0 for cost in body["profile"]["invoke_us"].values())


def test_a_model_shows_its_profile_and_its_lane(good: InProcess) -> None:
    body = good.get("/models/affine").json()

    profile, lane = body["profile"], body["lane"]
    sizes = list(profile["invoke_us"])
    assert sizes[0] == "1"
    assert list(profile["record_us"]) == list(lane["taken_together"]) == sizes
    assert profile["measured_ms"] > 0
    assert profile["opened_ms"] > 0, "less than that where the model was measured for an earlier start"
    assert (lane["default"], lane["pool_because"], lane["threads"], lane["fixed"]) == ("inline", None, 1, {})


def test_a_model_shows_what_its_owner_has_fixed(one_model: Path) -> None:
    (one_model / "own").mkdir()
    (one_model / "own" / "m.tflite").write_bytes(tflite.affine())
    (one_model / "own" / "model.toml").write_text("[lane]\ninline_rows = 0\nmerge_rows = 5\nthreads = 2")
    with InProcess(one_model, default_model="own") as served:
        lane = served.get("/models/own").json()["lane"]
        answer = served.post("/predict", {"instance": [1, 2, 3, 4]})

    assert lane["fixed"] == {"inline_rows": 0, "merge_rows": 5, "threads": 2}
    assert (lane["default"], lane["pool_because"]) == ("pool", "model.toml says so")
    assert (lane["inline_rows"], lane["merge_rows"], lane["threads"]) == (0, 5, 2)
    assert answer.json() == {"prediction": [3, 5, 7, 9]}


def test_a_failed_model_is_shown_with_its_reason(mixed: InProcess) -> None:
    body = mixed.get("/models/broken").json()

    assert body["state"] == "FAILED"
    assert body["reason"] == mixed.get("/healthz").json()["models"]["broken"]["1"]["reason"]


def test_a_model_that_is_loading_is_shown(one_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = held_loading(monkeypatch)
    with InProcess(one_model, settle=False) as served, gate:
        gate.wait_entered()
        response = served.get("/models/affine")

    assert response.status_code == 200
    assert response.json()["state"] == "LOADING"
    assert response.json()["reason"] == "turning the handle"


@pytest.mark.parametrize("name", ["nobody", "AFFINE", "affine%20", "%2e%2e", "a" * 3000])
def test_an_unknown_model_is_404_with_the_names_that_exist(mixed: InProcess, name: str) -> None:
    message = error_of(mixed.get(f"/models/{name}"), 404)

    assert "affine" in message
    assert "broken" in message
    assert len(message) < 1000


# /metrics


def series(served: InProcess) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of /metrics, by name and labels."""
    response = served.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def requests(served: InProcess) -> dict[tuple[str, str, str], float]:
    """litepool_requests_total by model, version and code."""
    return {
        (labels["model"], labels["version"], labels["code"]): value
        for (name, pairs), value in series(served).items()
        if name == "litepool_requests_total"
        for labels in [dict(pairs)]
    }


def send_known(served: InProcess) -> list[httpx.Response]:
    """Three single records, a batch of five, three faults of different kinds, and one record for another model."""
    single = b'{"instance": [1, 2, 3, 4]}'
    return [
        *(served.send("/predict", single) for _ in range(3)),
        served.post("/predict/affine", {"instances": [[1, 2, 3, 4]] * 5}),
        served.send("/predict", b"no json"),
        served.send("/predict", b'{"instance": [1, 2]}'),
        served.send("/predict", single, content_type="text/csv"),
        served.post("/predict/other", {"instance": [0]}),
        served.post("/predict/other", {"instance": [77]}),
        served.post("/predict/unknown", {"instance": [1]}),
    ]


def test_metrics_are_right_after_a_known_set_of_requests(one_model: Path) -> None:
    (one_model / "other.tflite").write_bytes(tflite.lookup())
    with InProcess(one_model, default_model="affine") as served:
        codes = [response.status_code for response in send_known(served)]
        assert codes == [200, 200, 200, 200, 400, 400, 415, 200, 400, 404]
        found = series(served)
        outcomes = requests(served)

    assert outcomes == {
        ("affine", "1", "OK"): 4,
        ("affine", "1", "INVALID_ARGUMENT"): 2,
        ("affine", "1", "UNSUPPORTED_FORMAT"): 1,
        ("other", "1", "OK"): 1,
        ("other", "1", "INVALID_ARGUMENT"): 1,
        ("", "", "NOT_FOUND"): 1,
    }
    affine = (("model", "affine"), ("version", "1"))
    assert found["litepool_records_total", affine] == 8
    assert found["litepool_records_total", (("model", "other"), ("version", "1"))] == 1
    for phase, least in {"decode": 4, "invoke": 4, "encode": 4, "total": 6}.items():
        labels = (("model", "affine"), ("phase", phase), ("version", "1"))
        count = found["litepool_request_seconds_count", labels]
        assert least <= count <= 7, phase
        assert found["litepool_request_seconds_sum", labels] > 0
        everything = (("le", "+Inf"), *labels)
        assert found["litepool_request_seconds_bucket", everything] == count


def test_the_buckets_of_a_histogram_add_up(good: InProcess) -> None:
    assert good.post("/predict", {"instance": [1, 2, 3, 4]}).status_code == 200
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    for (name, labels), value in series(good).items():
        if name == "litepool_request_seconds_bucket":
            bound = float(dict(labels)["le"])
            rest = tuple(pair for pair in labels if pair[0] != "le")
            buckets.setdefault(rest, []).append((bound, value))

    assert buckets
    for counts in buckets.values():
        values = [value for _, value in sorted(counts)]
        assert values == sorted(values)


def test_no_label_comes_from_a_url(good: InProcess) -> None:
    before = series(good).keys()
    stranger = secrets.token_hex(8)
    for path in (f"/predict/{stranger}", f"/models/{stranger}", f"/{stranger}", f"/predict/affine/{stranger}"):
        assert good.post(path, {}).status_code in (404, 405)
        assert good.get(path).status_code in (404, 405)
    good.send("/predict", b"{}", content_type=f"application/{stranger}")

    text = good.get("/metrics").text
    assert stranger not in text
    added = {(name, labels) for name, labels in series(good).keys() - before}
    assert {dict(labels)["model"] for _, labels in added} <= {"", "affine"}


def test_a_failed_model_adds_no_count_of_its_own(mixed: InProcess) -> None:
    assert mixed.post("/predict/broken", {"instance": [1]}).status_code == 503

    assert requests(mixed)["", "", "UNAVAILABLE"] >= 1


def test_openapi_has_the_version_of_the_package(good: InProcess) -> None:
    assert good.get("/openapi.json").json()["info"]["version"] == __version__
