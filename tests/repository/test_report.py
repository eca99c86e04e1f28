"""What is known of a model, as JSON."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from app.repository import report
from app.repository.layout import Kind, Source
from app.repository.loader import Loaded, Opened, open_model, plans_of
from app.repository.manager import Entry, State
from app.runtime.profile import Profile
from app.tensors import Scaling, make_signature
from tests import tflite
from tests.repository import stand_in
from tests.signatures import spec


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

    found = of_opened(opened(tmp_path, tflite.affine()))

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

    assert of_opened(found)["tflite_bytes"] == len(tflite.affine())


def test_a_signature_says_what_is_a_string_and_what_integers_mean() -> None:
    signature = make_signature("s", (spec("x", "string"),), (spec("y", "int8", scaling=Scaling(0.5, -3)),))

    found = report.signature_json(signature)

    assert found["inputs"] == [{"name": "x", "dtype": "string", "shape": [-1, 4], "record_shape": [4]}]
    assert found["outputs"][0]["dtype"] == "int8"
    assert found["outputs"][0]["scaling"] == {"scale": 0.5, "zero_point": -3}


def test_a_signature_has_the_shapes_that_callers_see(tmp_path: Path) -> None:
    shapes = {}
    for name, content in {"free": tflite.affine(), "one": tflite.fixed_one(), "whole": tflite.whole()}.items():
        signature = of_opened(opened(tmp_path, content))["signature"]
        (tensor,) = signature["inputs"]
        shapes[name] = (tensor["shape"], tensor["record_shape"])

    assert shapes == {"free": ([-1, 4], [4]), "one": ([-1, 4], [4]), "whole": ([3, 2], [3, 2])}


def test_a_tensor_has_its_name_and_dtype(tmp_path: Path) -> None:
    signature = of_opened(opened(tmp_path, tflite.lookup()))["signature"]

    assert signature["name"] == "serving_default"
    assert signature["inputs"] == [{"name": "x", "dtype": "int32", "shape": [-1, 1], "record_shape": [1]}]
    assert signature["outputs"][0]["dtype"] == "float32"


def converted(folder: Path) -> Opened:
    return open_model(stand_in.model(folder), stand_in.converter(folder), lambda stage: None)


def test_a_converted_model_has_the_three_times_of_one_record_and_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)

    conversion = of_opened(converted(tmp_path))["conversion"]

    times = conversion.pop("one_record_us")
    assert times.pop("interpreter") > 0
    assert times == {"model.predict": 46000.0, "model(x)": 1800.0}
    assert conversion == {
        "tensorflow": "2.21.0",
        "keras": "3.15.1",
        "trained_in": None,
        "seconds": {"importing": 3.5, "converting": 1},
        "rung": "plain",
        "calibrated_with": None,
        "parity": {
            "records": 16,
            "uncertain": 0,
            "tolerance": 1e-4,
            "differences": {"y": {"absolute": 0.0, "relative": 0.0, "top_class": 1.0}},
        },
    }


def test_a_saved_model_has_no_time_of_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stand_in.REPORT, "timings_us", {"call": 300.0})
    stand_in.install_affine(monkeypatch, tmp_path)

    conversion = of_opened(converted(tmp_path))["conversion"]

    assert set(conversion["one_record_us"]) == {"model(x)", "interpreter"}


# The profile and what follows from it


def measured(found: Opened, **examined: Any) -> Opened:
    """The same model, as if this had been found of it."""
    offered = replace(found.default, examined=replace(found.default.examined, **examined))
    return replace(found, signatures={offered.signature.name: offered})


def of_opened(found: Opened) -> dict[str, Any]:
    return report.of_opened(found, plans_of(found, 300.0))


def lane_of(found: Opened, invoke_us: dict[int, float] | None = None) -> dict[str, Any]:
    """The lane of a model, as if this had been measured; what may run on the loop takes 300 us."""
    found = measured(found, profile=Profile(invoke_us or {1: 10.0, 8: 20.0}))
    lane = report.of_plan(found.default, found, found.default.plan(found.config, 300))
    assert orjson.loads(orjson.dumps(lane)) == lane
    return lane


def test_a_profile_has_the_cost_of_an_invoke_and_of_a_record_and_how_long_measuring_took(tmp_path: Path) -> None:
    found = measured(opened(tmp_path, tflite.affine()), profile=Profile({1: 10.04, 8: 20.0}), profile_ms=12.34)
    found = replace(found, open_ms=56.78)

    assert of_opened(found)["profile"] == {
        "invoke_us": {"1": 10.0, "8": 20.0},
        "record_us": {"1": 10.04, "8": 2.5},
        "measured_ms": 12.3,
        "opened_ms": 56.8,
    }


def test_measuring_is_a_part_of_opening(tmp_path: Path) -> None:
    found = opened(tmp_path, tflite.affine(1.0625))

    assert 0 < found.default.examined.profile_ms < found.open_ms


def test_a_lane_says_where_invokes_run_and_what_they_share(tmp_path: Path) -> None:
    lane = lane_of(opened(tmp_path, tflite.affine()), {1: 10.0, 4: 12.0, 8: 80.0})

    assert lane == {
        "default": "inline",
        "pool_because": None,
        "inline_rows": 30,
        "merge_rows": 4,
        "not_merged_because": None,
        "taken_together": {"1": 1, "4": 4, "8": 4},
        "most_rows": 32,
        "split_rows": 50,
        "threads": 1,
        "fixed": {},
    }
    assert report.where(lane) == "on the event loop up to 30 records, larger batches on pool threads"
    assert report.sharing(lane) == "up to 4 records of different requests are run together"


def test_a_lane_says_what_its_owner_has_fixed_be_it_the_default(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text("[lane]\ninline_rows = 1\nmerge_rows = 4\nthreads = 1")

    lane = lane_of(opened(tmp_path, tflite.affine()))

    assert lane["fixed"] == {"inline_rows": 1, "merge_rows": 4, "threads": 1}
    assert (lane["inline_rows"], lane["merge_rows"], lane["threads"]) == (1, 4, 1)
    assert lane["taken_together"] == {"1": 1, "8": 4}
    assert report.where(lane) == "on the event loop up to 1 record, larger batches on pool threads"


STATEFUL = "it keeps variables between invokes"
POOLED = f"{STATEFUL}, so that every request gets an interpreter of its own"
MIXING = "its graph mixes rows: REDUCE_MAX over the batch axis at 'largest'"


@pytest.mark.parametrize(
    ("content", "toml", "invoke_us", "pooled", "alone"),
    [
        (tflite.running_sum(), "", None, POOLED, STATEFUL),
        (tflite.maximum_over_batch(), "", None, None, MIXING),
        (tflite.affine(), "[lane]\ninline_rows = 0\nmerge_rows = 1", None, "model.toml says so", "model.toml says so"),
        (
            tflite.affine(),
            "",
            {1: 20_000.0},
            "an invoke of one record costs more than inline_us",
            "one record takes so long that no larger batch was measured",
        ),
        (
            tflite.affine(),
            "",
            {1: 200.0, 8: 1600.0},
            None,
            "an invoke of several records costs about as much as one each",
        ),
    ],
)
def test_a_lane_says_why_nothing_runs_on_the_loop_and_why_nothing_is_shared(
    tmp_path: Path, content: bytes, toml: str, invoke_us: dict[int, float] | None, pooled: str | None, alone: str
) -> None:
    (tmp_path / "model.toml").write_text(toml)

    lane = lane_of(opened(tmp_path, content), invoke_us)

    assert lane["default"] == ("inline" if pooled is None else "pool")
    assert lane["pool_because"] == pooled
    assert lane["not_merged_because"] == alone
    assert report.sharing(lane) == f"each request is run alone: {alone}"
    if pooled is not None:
        assert report.where(lane) == f"on pool threads: {pooled}"


def test_a_model_whose_cost_depends_on_its_input_is_not_run_on_the_loop(tmp_path: Path) -> None:
    lane = lane_of(measured(opened(tmp_path, tflite.affine()), unpredictable=True))

    assert lane["pool_because"] == "its graph has control flow, so that what an invoke costs depends on its input"


def test_a_batch_is_neither_split_nor_cut_where_its_rows_may_depend_on_each_other(tmp_path: Path) -> None:
    lane = lane_of(opened(tmp_path, tflite.maximum_over_batch()))

    assert (lane["most_rows"], lane["split_rows"]) == (None, None)


@pytest.mark.parametrize("invoke_us", [{1: 10.0, 8: 80.0}, {1: 0.7, 256: 28.1}, {1: 700.0}, {1: 19_000.0}])
def test_a_batch_is_said_to_be_split_from_the_size_on_at_which_it_is(invoke_us: dict[int, float]) -> None:
    profile = Profile(invoke_us)
    rows = profile.split_rows()

    assert profile.parts(rows, 2) == 2
    assert profile.parts(rows - 1, 2) == 1


# Several versions and signatures


def test_all_versions_of_a_model_have_their_states_and_labels_and_the_newest_that_serves_is_told_of_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "full", lambda entry: {"version": entry.version})
    entries = [
        Entry("m", 1, State.END, "unloaded"),
        Entry("m", 2, State.AVAILABLE, loaded=cast("Loaded", "loaded")),
        Entry("m", 3, State.FAILED, "damaged"),
    ]

    found = report.of_versions(entries, {"stable": 2, "live": 2, "canary": 3})

    assert found["version"] == 2
    assert found["labels"] == {"stable": 2, "live": 2, "canary": 3}
    assert found["versions"] == [
        {"version": 1, "state": "END", "reason": "unloaded", "labels": []},
        {"version": 2, "state": "AVAILABLE", "reason": "", "labels": ["live", "stable"]},
        {"version": 3, "state": "FAILED", "reason": "damaged", "labels": ["canary"]},
    ]
    assert report.of_versions(entries[::2], {})["version"] == 3


def test_every_signature_is_told_of_and_the_default_one_at_the_top(tmp_path: Path) -> None:
    found = of_opened(opened(tmp_path, tflite.several_signatures()))

    assert list(found["signatures"]) == ["serving_default", "less"]
    assert found["batching"] == found["signatures"]["serving_default"]["batching"]
    assert found["signatures"]["less"]["batching"] == {
        "class": "batched",
        "because": "its graph mixes rows: REDUCE_MAX over the batch axis at 'largest'",
    }
    assert found["signatures_left_out"] == {}
    assert orjson.loads(orjson.dumps(found)) == found


def test_a_signature_that_is_not_served_is_told_with_its_reason(tmp_path: Path) -> None:
    found = of_opened(opened(tmp_path, tflite.several_signatures(second_runs=False)))

    assert list(found["signatures"]) == ["serving_default"]
    assert found["signatures_left_out"]["less"].startswith("it does not run: ")


def test_the_owner_may_choose_the_default_signature_and_a_stricter_class(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text('signature = "less"\nbatching.class = "looped"')

    found = of_opened(opened(tmp_path, tflite.several_signatures()))

    assert found["signature"]["name"] == "less"
    assert found["batching"] == {"class": "looped", "because": "model.toml says so"}
    assert found["lane"]["not_merged_because"] == "model.toml says so"


def test_what_integers_stand_for_is_told(tmp_path: Path) -> None:
    (tensor,) = of_opened(opened(tmp_path, tflite.quantized()))["signature"]["inputs"]

    assert (tensor["dtype"], tensor["scaling"]) == ("int8", {"scale": 0.5, "zero_point": -1})


def test_the_variants_of_a_conversion_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install_affine(monkeypatch, tmp_path)
    (tmp_path / "model.toml").write_text('quantization = "auto"')
    source = replace(stand_in.model(tmp_path), folder=tmp_path)

    found = of_opened(open_model(source, stand_in.converter(tmp_path), lambda stage: None))

    assert list(found["variants"]) == ["none", "float16", "dynamic", "int8"]
    (chosen,) = [name for name, row in found["variants"].items() if row["served"]]
    assert found["quantization"] == chosen
    for row in found["variants"].values():
        assert set(row) == {"rung", "bytes", "invoke_us", "difference", "top_class", "served"}
        assert set(row["invoke_us"]) == {"1", "8", "32"}
