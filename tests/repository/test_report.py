"""What is known of a model, as JSON."""

from pathlib import Path

import orjson
import pytest

from app.repository import report
from app.repository.layout import Kind, Source
from app.repository.loader import Opened, open_model
from app.repository.manager import Entry, State
from tests import tflite
from tests.repository import stand_in


def opened(folder: Path, content: bytes) -> Opened:
    path = folder / "m.tflite"
    path.write_bytes(content)
    return open_model(Source("m", 1, Kind.TFLITE, path, folder), stand_in.converter(folder), lambda stage: None)


def test_a_model_that_is_not_loaded_has_its_state_and_where_it_lies(tmp_path: Path) -> None:
    source = Source("m", 3, Kind.SAVED_MODEL, tmp_path / "m" / "3", tmp_path / "m")
    entry = Entry("m", 3, State.LOADING, "converting", source)

    expected = {"name": "m", "version": 3, "state": "LOADING", "reason": "converting", "description": ""}
    assert report.brief(entry) == expected
    assert report.full(entry) == expected | {"format": "saved_model", "file": "3"}


def test_a_misplaced_model_has_no_file() -> None:
    assert "file" not in report.full(Entry("m", 1, State.FAILED, "found none"))


def test_a_tflite_file_has_no_conversion(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text('class_labels = ["a", "b", "c", "d"]')

    found = report.of_opened(opened(tmp_path, tflite.affine()))

    assert found["conversion"] is None
    assert found["class_labels"] == ["a", "b", "c", "d"]
    assert found["tflite_bytes"] == len(tflite.affine())
    assert found["samples"] == 0
    assert set(found["profile"]["invoke_us"]) >= {"1"}
    assert orjson.loads(orjson.dumps(found)) == found


def test_a_model_whose_file_is_gone_is_still_reported(tmp_path: Path) -> None:
    found = opened(tmp_path, tflite.affine())
    assert isinstance(found.model, Path)
    found.model.unlink()
    found.source.path.unlink()

    assert report.of_opened(found)["tflite_bytes"] == len(tflite.affine())


def test_a_signature_has_the_shapes_that_callers_see(tmp_path: Path) -> None:
    shapes = {}
    for name, content in {"free": tflite.affine(), "one": tflite.fixed_one(), "whole": tflite.whole()}.items():
        signature = report.of_opened(opened(tmp_path, content))["signature"]
        (tensor,) = signature["inputs"]
        shapes[name] = (tensor["shape"], tensor["record_shape"])

    assert shapes == {"free": ([-1, 4], [4]), "one": ([-1, 4], [4]), "whole": ([3, 2], [3, 2])}


def test_a_tensor_has_its_name_and_dtype(tmp_path: Path) -> None:
    signature = report.of_opened(opened(tmp_path, tflite.lookup()))["signature"]

    assert signature["name"] == "serving_default"
    assert signature["inputs"] == [{"name": "x", "dtype": "int32", "shape": [-1, 1], "record_shape": [1]}]
    assert signature["outputs"][0]["dtype"] == "float32"


def converted(folder: Path) -> Opened:
    return open_model(stand_in.model(folder), stand_in.converter(folder), lambda stage: None)


def test_a_converted_model_has_the_three_times_of_one_record_and_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)

    conversion = report.of_opened(converted(tmp_path))["conversion"]

    times = conversion.pop("one_record_us")
    assert times.pop("interpreter") > 0
    assert times == {"model.predict": 46000.0, "model(x)": 1800.0}
    assert conversion == {
        "tensorflow": "2.21.0",
        "keras": "3.15.1",
        "seconds": {"importing": 3.5, "converting": 1},
        "parity": {"records": 16, "tolerance": 1e-4, "differences": {"y": {"absolute": 0.0, "relative": 0.0}}},
    }


def test_a_saved_model_has_no_time_of_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stand_in.REPORT, "timings_us", {"call": 300.0})
    stand_in.install_affine(monkeypatch, tmp_path)

    conversion = report.of_opened(converted(tmp_path))["conversion"]

    assert set(conversion["one_record_us"]) == {"model(x)", "interpreter"}
