"""TensorFlow Serving's `ModelService`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from app.server.rpc.messages import new
from tests import tflite
from tests.server.inprocess import InProcess
from tests.server.rpc.served import MODELS, PLAIN, PREDICTION, SERVING, Rpc, model_spec, predict_request, serving

AVAILABLE, END = 30, 50


def status_of(rpc: Rpc, **spec: Any) -> dict[int, int]:
    request = new(f"{SERVING}.GetModelStatusRequest", model_spec=model_spec(**spec))
    answer = rpc.served.run(rpc.call(f"{MODELS}/GetModelStatus", request))
    return {one.version: one.state for one in answer.model_version_status}


def test_the_status_of_each_version_is_told(rpc: Rpc) -> None:
    assert status_of(rpc, name="affine") == {1: AVAILABLE, 2: AVAILABLE}
    assert status_of(rpc, name="affine", version=1) == {1: AVAILABLE}
    assert status_of(rpc, name="affine", label="stable") == {1: AVAILABLE}


def reload_of(*configs: dict[str, Any]) -> Any:
    return new(f"{SERVING}.ReloadConfigRequest", config={"model_config_list": {"config": configs}})


@pytest.fixture
def folder_of_two(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("first", "second"):
        (folder / f"{name}.tflite").write_bytes(tflite.affine())
    return folder


@pytest.fixture
def controlled(folder_of_two: Path) -> Iterator[Rpc]:
    """A server of two models, which may be loaded and unloaded."""
    with InProcess(folder_of_two, model_control=True) as served:
        context = serving(served, PLAIN, folder_of_two, model_control=True)
        yield served.run(context.__aenter__())
        served.run(context.__aexit__(None, None, None))


def test_a_reload_serves_what_is_listed_and_no_more(controlled: Rpc) -> None:
    run, call = controlled.served.run, controlled.call
    path = f"{MODELS}/HandleReloadConfigRequest"
    run(call(f"{PREDICTION}/Predict", predict_request("first")))

    answer = run(call(path, reload_of({"name": "second", "model_platform": "tensorflow"})))

    assert answer.status.error_code == 0
    assert status_of(controlled, name="first") == {1: END}
    assert status_of(controlled, name="second") == {1: AVAILABLE}
    code, _ = run(controlled.refused(f"{PREDICTION}/Predict", predict_request("first")))
    assert code is grpc.StatusCode.UNAVAILABLE

    run(call(path, reload_of({"name": "second"}, {"name": "first"})))

    assert status_of(controlled, name="first") == {1: AVAILABLE}
    run(call(f"{PREDICTION}/Predict", predict_request("first")))


def test_a_reload_of_an_empty_list_serves_nothing(controlled: Rpc) -> None:
    controlled.served.run(controlled.call(f"{MODELS}/HandleReloadConfigRequest", reload_of()))

    assert status_of(controlled, name="first") == status_of(controlled, name="second") == {1: END}


def test_where_a_model_lies_may_be_said(controlled: Rpc, folder_of_two: Path) -> None:
    config = {
        "name": "first",
        "base_path": f"{folder_of_two}/first",
        "model_version_policy": {"specific": {"versions": [1]}},
    }
    controlled.served.run(controlled.call(f"{MODELS}/HandleReloadConfigRequest", reload_of(config)))

    assert status_of(controlled, name="second") == {1: END}


def test_where_a_model_lies_may_be_said_by_the_end_of_a_link_too(
    controlled: Rpc, folder_of_two: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.tflite").write_bytes(tflite.affine())
    (folder_of_two / "third").symlink_to(elsewhere)
    config = {"name": "third", "base_path": f"{elsewhere}/"}

    controlled.served.run(controlled.call(f"{MODELS}/HandleReloadConfigRequest", reload_of(config)))

    assert status_of(controlled, name="third") == {1: AVAILABLE}


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        ([{"name": ""}], "a model has no name"),
        ([{"name": "first"}, {"name": "first"}], "has 'first' twice"),
        ([{"name": "first", "base_path": "/models/first"}], "base_path is '/models/first'"),
        ([{"name": "first", "base_path": "/models/\0"}], r"base_path is '/models/\x00'"),
        ([{"name": "a" * 5000, "base_path": "/models/a"}], "base_path is '/models/a'"),
        ([{"name": "first", "version_labels": {"stable": 1}}], "version_labels differ"),
        ([{"name": "first", "model_version_policy": {"all": {}}}], "found all, expected versions.latest = 1"),
        ([{"name": "first", "model_version_policy": {"specific": {"versions": [2]}}}], "by which [1] is served"),
        ([{"name": "first", "model_version_policy": {"latest": {"num_versions": 2}}}], "found the latest 2"),
    ],
)
def test_a_list_that_says_otherwise_is_refused_before_anything_is_done(
    controlled: Rpc, configs: list[dict[str, Any]], words: str
) -> None:
    request = controlled.refused(f"{MODELS}/HandleReloadConfigRequest", reload_of(*configs))
    code, text = controlled.served.run(request)

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in text
    assert status_of(controlled, name="second") == {1: AVAILABLE}


@pytest.mark.parametrize(
    ("settings", "policies"),
    [
        ("", [{"latest": {}}, {"latest": {"num_versions": 1}}, {"specific": {"versions": [2]}}, {}]),
        ("[versions]\nlatest = 2\n", [{"latest": {"num_versions": 2}}, {"specific": {"versions": [2, 1, 2]}}]),
        ("[versions]\nall = true\n[labels]\nstable = 1\n", [{"all": {}}, {"specific": {"versions": [1, 2]}}]),
        ("[versions]\nspecific = [1]\n", [{"specific": {"versions": [1]}}]),
    ],
)
@pytest.mark.slow
def test_a_list_may_say_of_a_model_what_its_folder_says_whether_it_is_loaded_or_not(
    controlled: Rpc, folder_of_two: Path, settings: str, policies: list[dict[str, Any]]
) -> None:
    for version in (1, 2):
        (folder_of_two / f"third/{version}").mkdir(parents=True)
        (folder_of_two / f"third/{version}/model.tflite").write_bytes(tflite.affine())
    (folder_of_two / "third/model.toml").write_text(settings)
    path = f"{MODELS}/HandleReloadConfigRequest"

    for policy in policies:
        labels = {"stable": 1} if "labels" in settings else {}
        config = {"name": "third", "model_version_policy": policy, "version_labels": labels}
        controlled.served.run(controlled.call(path, reload_of(config)))
        assert AVAILABLE in status_of(controlled, name="third").values()
        controlled.served.run(controlled.call(path, reload_of({"name": "first"})))
        assert AVAILABLE not in status_of(controlled, name="third").values()


def test_when_a_listed_model_cannot_be_loaded_none_is_unloaded(controlled: Rpc) -> None:
    request = controlled.refused(f"{MODELS}/HandleReloadConfigRequest", reload_of({"name": "third"}))
    code, text = controlled.served.run(request)

    assert code is grpc.StatusCode.NOT_FOUND
    assert "third" in text
    assert status_of(controlled, name="first") == status_of(controlled, name="second") == {1: AVAILABLE}


def test_without_the_operators_leave_nothing_is_ordered(folder_of_two: Path) -> None:
    with InProcess(folder_of_two) as served:
        context = serving(served, PLAIN, folder_of_two)
        rpc = served.run(context.__aenter__())
        orders = {
            f"{MODELS}/HandleReloadConfigRequest": reload_of({"name": "first"}),
            "/inference.GRPCInferenceService/RepositoryModelUnload": new(
                "inference.RepositoryModelUnloadRequest", model_name="first"
            ),
        }
        for path, request in orders.items():
            code, text = served.run(rpc.refused(path, request))
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "--model-control" in text
        assert status_of(rpc, name="first") == status_of(rpc, name="second") == {1: AVAILABLE}
        served.run(context.__aexit__(None, None, None))
