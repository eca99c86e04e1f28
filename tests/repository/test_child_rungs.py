"""Which rung of the conversion's ladder brings which model to TFLite, and what is told of it.

The models are made by keras_models.py and converted by climb.py. test_child_ladder.py climbs without TensorFlow.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import child_ladder
from app.repository import convert
from tests.repository import climb

pytestmark = pytest.mark.slow

CHILD = str(convert._CHILD)
ASSETS = ["asset", "asset_again"]
RECURRENT = ["dropping.keras", "lstm.keras", "gru", "bidirectional.keras", "legacy.h5", "decoder.keras"]
ONLY_TENSORFLOW = {
    "lower": {"dtype": "string", "shape": [-1]},
    "vocabulary.keras": {"dtype": "string", "shape": [-1, 1]},
    "in_double": {"dtype": "float64", "shape": [-1, 2]},
}
V1 = ["v1_plain", "v1_tagged", "v1_loop", "v1_local"]
FIXED = "the batch is fixed at 1"


@pytest.fixture(scope="module")
def converted(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that climb.py fills."""
    out = tmp_path_factory.mktemp("converted")
    command = [sys.executable, str(climb.__file__), CHILD, str(workshop / "ladder"), str(out)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def said(converted: Path) -> dict[str, Any]:
    """By model, `candidates`, and `report` or `error`."""
    said: dict[str, Any] = json.loads((converted / "outcomes.json").read_text())
    return said


def differences(workshop: Path, converted: Path, said: dict[str, Any], name: str) -> dict[str, float]:
    """Between LiteRT and TensorFlow, by output, on records that the conversion never saw, alone each."""
    with np.load(f"{workshop / 'ladder' / name.removesuffix('.npz')}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    inputs = {key.removeprefix("in "): value for key, value in arrays.items() if key.startswith("in ")}
    report = said[name]["report"]
    (signature,) = report["signatures"]
    file_name = report["variants"]["none"]["file"]
    found = climb.answers(converted / name / file_name, signature["name"], inputs, False, climb.ROWS)
    assert sorted(found) == sorted(key.removeprefix("out ") for key in arrays if key.startswith("out "))
    return {key: float(np.abs(value - arrays[f"out {key}"]).max()) for key, value in found.items()}


# Rungs


@pytest.mark.parametrize(
    ("name", "rung", "failed"),
    [
        ("v1_plain", "plain", []),
        ("shapeless", "plain", []),
        ("shapely.h5", "plain", []),
        ("slotted", "plain", []),
        ("picked", "concrete", ["plain"]),
        *((name, "fixed", ["plain", "concrete"]) for name in RECURRENT),
        ("each_step.keras", "fixed", ["plain", "concrete", "fixed"]),
        ("v1_loop", "v1", ["plain", "concrete", "fixed"]),
        ("v1_local", "v1", []),
        ("v1_asset", "v1", []),
    ],
)
def test_each_model_is_served_from_the_first_rung_that_does(
    said: dict[str, Any], name: str, rung: str, failed: list[str]
) -> None:
    report = said[name]["report"]

    assert report["variants"]["none"]["rung"] == rung
    assert [each["rung"] for each in report["rungs_failed"]] == failed
    assert all(each["reason"] for each in report["rungs_failed"])


@pytest.mark.parametrize("name", [*RECURRENT, "each_step.keras", "picked", "shapely.h5", *V1])
def test_what_came_of_a_rung_has_the_models_names_and_answers_as_tensorflow_does(
    workshop: Path, converted: Path, said: dict[str, Any], name: str
) -> None:
    found = differences(workshop, converted, said, name)

    assert found
    assert max(found.values()) < 1e-4


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_layer_over_a_free_batch_is_converted_for_a_batch_of_one(said: dict[str, Any], name: str) -> None:
    report = said[name]["report"]

    assert report["variants"]["none"]["note"] == FIXED
    assert report["signatures"][0]["batching"] == "free"


@pytest.mark.parametrize("name", ["gru", "bidirectional.keras"])
def test_a_free_time_stays_free_though_the_batch_does_not(converted: Path, said: dict[str, Any], name: str) -> None:
    file = converted / name / said[name]["report"]["variants"]["none"]["file"]

    (detail,) = Interpreter(model_path=str(file)).get_input_details()

    assert list(detail["shape_signature"][:2]) == [1, -1]


def test_where_a_free_time_cannot_be_had_all_is_fixed_at_a_size_that_runs_and_noted(said: dict[str, Any]) -> None:
    report = said["each_step.keras"]["report"]

    assert report["variants"]["none"]["note"] == "all dimensions are fixed: a record is [16, 2]"


def test_samples_come_first_among_the_records_and_show_the_sizes_of_free_dimensions(
    converted: Path, said: dict[str, Any]
) -> None:
    (signature,) = said["gru"]["report"]["signatures"]
    with np.load(converted / "gru" / "parity.npz") as arrays:
        records = arrays["in_0_0"]

    assert signature["samples"] == 3
    assert records.shape[1:] == (9, 2)
    assert (records[:3] == 1).all()
    assert not (records[3:6] == 1).all()


# What TFLite cannot express


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lower", "it needs operations that TFLite does not have, StringLower: use other layers"),
        ("vocabulary.keras", r"embedding\w* has another shape"),
        ("in_double", "it needs operations that TFLite does not have, MatMul on float64: use float32"),
    ],
)
def test_what_only_tensorflow_runs_is_left_for_it_with_the_reason(
    converted: Path, said: dict[str, Any], name: str, reason: str
) -> None:
    engine = said[name]["engine"]

    assert re.fullmatch(reason, said[name]["error"])
    assert engine["signature"] == "serving_default"
    assert list(engine["inputs"].values()) == [ONLY_TENSORFLOW[name]]
    assert (converted / name / engine["saved_model"] / "saved_model.pb").is_file()
    assert (converted / name / engine["saved_model"] / "variables" / "variables.index").is_file()
    assert (converted / name / "parity.npz").is_file()


def test_a_string_lookup_that_litert_has_is_served_by_it(converted: Path, said: dict[str, Any]) -> None:
    report = said["looked_up"]["report"]
    file = converted / "looked_up" / report["variants"]["none"]["file"]

    found = climb.answers(file, "serving_default", {"word": np.array([b"b", b"a", b"z"])}, False, 3)

    assert found["id"].tolist() == [2, 1, -1]


@pytest.mark.parametrize("name", ASSETS)
def test_a_table_filled_from_an_asset_is_left_for_tensorflow_with_the_asset(
    converted: Path, said: dict[str, Any], name: str
) -> None:
    assert said[name]["error"] == (
        "it needs operations that TFLite does not have, InitializeTableFromTextFile: use tables that are filled from "
        "lists"
    )
    assert (converted / name / "engine" / "assets" / "vocabulary.txt").read_text() == "a\nb\n"
    with np.load(converted / name / "parity.npz") as arrays:
        found = dict(zip(arrays["in_0_0"], arrays["out_0_0"], strict=True))
    assert (found[b"b"], found[b"the"]) == (1, -1)


def test_a_table_that_tensorflow_1_filled_from_an_asset_is_part_of_what_litert_runs(
    converted: Path, said: dict[str, Any]
) -> None:
    file = converted / "v1_asset" / said["v1_asset"]["report"]["variants"]["none"]["file"]

    found = climb.answers(file, "serving_default", {"word": np.array([b"b", b"a", b"z"])}, False, 3)

    assert found["id"].tolist() == [6, 5, 4]


# Precision


def test_a_model_of_mixed_precision_is_computed_in_float32_and_answers_as_well_as_16_bits_can_tell(
    workshop: Path, converted: Path, said: dict[str, Any]
) -> None:
    report = said["mixed.keras"]["report"]
    found = differences(workshop, converted, said, "mixed.keras")

    assert report["variants"]["none"]["rung"] == "plain"
    assert report["trained_in"] == "mixed_float16"
    assert 0 < max(found.values()) < 5e-3


# State and chance


def test_what_recurrent_cells_drop_in_training_is_no_state_unless_the_model_wants_it_always(
    said: dict[str, Any],
) -> None:
    assert not said["dropping.keras"]["report"]["stateful"]
    assert said["dropping_on.keras"]["engine"]["stateful"]


def test_a_model_with_state_keeps_it_and_is_compared_by_its_first_answer(converted: Path, said: dict[str, Any]) -> None:
    report = said["counted"]["report"]
    runner = Interpreter(
        model_path=str(converted / "counted" / report["variants"]["none"]["file"])
    ).get_signature_runner()
    ones = np.ones((2, 2), np.float32)

    assert report["stateful"]
    assert report["signatures"][0]["rows"] == 1
    assert [runner(x=ones)["total"].tolist() for _ in range(3)] == [[2, 2], [4, 4], [6, 6]]


def test_a_model_that_answers_by_chance_is_told_from_others(said: dict[str, Any]) -> None:
    random = {name for name, each in said.items() if each.get("report", {}).get("random")}

    assert random == {"shaken"}


@pytest.mark.parametrize("name", ["found", "counted_up"])
def test_where_the_shape_of_an_answer_depends_on_the_record_there_is_no_batch_and_only_those_alike_are_stored(
    converted: Path, said: dict[str, Any], name: str
) -> None:
    (signature,) = said[name]["report"]["signatures"]
    with np.load(converted / name / "parity.npz") as file:
        arrays = dict(file)

    assert signature["batching"] == "none"
    assert 1 <= signature["rows"] < 16
    assert len(arrays["in_0_0"]) == len(arrays["out_0_0"]) == signature["rows"]
    assert "alone_0_0" not in arrays


# Signatures


def test_all_signatures_that_convert_are_in_one_file_and_the_others_are_named_with_the_cause(
    said: dict[str, Any],
) -> None:
    report = said["several"]["report"]
    missing = "it needs operations that TFLite does not have, StringLower: use other layers"

    assert [each["name"] for each in report["signatures"]] == ["serving_default", "counted", "doubled"]
    assert report["variants"]["none"]["signatures"] == ["serving_default", "counted", "doubled"]
    assert report["signatures_left_out"] == {"lower": missing}
    assert report["inputs"] == ["x"]


def test_two_names_of_one_signature_are_converted_once(said: dict[str, Any]) -> None:
    assert said["several"]["report"]["aliases"] == {"again": "serving_default"}
    assert said["gru"]["report"]["aliases"] == {"serve": "serving_default"}


def test_the_references_of_a_signature_are_stored_by_its_number(converted: Path, said: dict[str, Any]) -> None:
    with np.load(converted / "several" / "parity.npz") as file:
        arrays = dict(file)
    doubled = next(each for each in said["several"]["report"]["signatures"] if each["name"] == "doubled")
    number = doubled["number"]

    assert (arrays[f"out_{number}_0"] == 2 * arrays[f"in_{number}_0"]).all()
    alone = arrays[f"alone_{number}_0"]
    assert len(alone) >= 4
    assert (alone == arrays[f"out_{number}_0"][: len(alone)]).all()


def test_without_serving_default_a_signature_keeps_its_own_name(said: dict[str, Any]) -> None:
    assert said["v1_tagged"]["report"]["signatures"][0]["name"] == "to_score"


# Variants


def test_every_variant_is_made_and_smaller_the_fewer_its_bits(said: dict[str, Any]) -> None:
    variants = said["squared"]["report"]["variants"]
    sizes = [variants[name]["bytes"] for name in ("none", "float16", "dynamic")]

    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[2]
    assert variants["int8"]["bytes"] < sizes[0] / 1.7


def test_int8_is_calibrated_by_the_users_data_and_keeps_floats_at_its_ends(
    converted: Path, said: dict[str, Any]
) -> None:
    report = said["squared"]["report"]
    interpreter = Interpreter(model_path=str(converted / "squared" / report["variants"]["int8"]["file"]))
    scales = [each["quantization"][0] for each in interpreter.get_tensor_details() if each["dtype"] == np.int8]
    details = interpreter.get_input_details() + interpreter.get_output_details()

    assert report["calibrated_with"] == "calibration"
    assert all(detail["dtype"] == np.float32 for detail in details)
    # The calibration data lie between 50 and 60, the noise within 4 of 0: a scale tells by which it was found.
    assert any(scale == pytest.approx(climb.REAL.max() / 255, rel=0.01) for scale in scales)


def test_a_variant_begins_with_the_rung_that_did_for_the_one_before(said: dict[str, Any]) -> None:
    candidates = said["lstm.keras"]["candidates"]

    assert [(each["variant"], each["rung"]) for each in candidates] == [
        ("none", "fixed"),
        ("float16", "fixed"),
        ("dynamic", "fixed"),
    ]


def test_int8_is_not_tried_where_the_converter_would_die_of_it(said: dict[str, Any]) -> None:
    assert said["lstm.keras"]["report"]["variants"]["int8"] == {"error": child_ladder._LOOPS}


@pytest.mark.parametrize("name", list(climb.CASES))
def test_nothing_of_the_work_is_left(converted: Path, name: str) -> None:
    kept = {path.name for path in (converted / name).iterdir() if path.suffix not in (".tflite", ".npz")}

    assert kept <= {"engine"}


# The way of talking


@contextmanager
def child(source: Path, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """The conversion child, which has been sent its request."""
    request = {
        "source": str(source),
        "kind": "saved_model",
        "variants": ["none"],
        "out": str(folder),
        "memory": 16 << 30,
        "parent": os.getpid(),
        "calibration": None,
        "samples": None,
    }
    with subprocess.Popen(
        [sys.executable, "-I", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=convert._environment(folder),
        text=True,
    ) as process:
        assert process.stdin
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        yield process


def test_the_child_waits_for_a_word_about_each_candidate_and_goes_on_if_it_is_no(
    workshop: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    with child(workshop / "ladder" / "squared", tmp_path) as process:
        assert process.stdin
        assert process.stdout
        for line in process.stdout:
            message = json.loads(line)
            if "candidate" not in message:
                continue
            candidate = message["candidate"]
            told.append(candidate["rung"])
            assert (tmp_path / candidate["file"]).is_file()
            assert (tmp_path / "parity.npz").is_file()
            ok = len(told) == 2
            process.stdin.write(json.dumps({"ok": ok} if ok else {"ok": ok, "reason": "for the test's sake"}) + "\n")
            process.stdin.flush()

    report = message["report"]
    assert told == ["plain", "concrete"]
    assert report["rungs_failed"] == [{"variant": "none", "rung": "plain", "reason": "for the test's sake"}]
    assert [path.name for path in tmp_path.glob("*.tflite")] == [report["variants"]["none"]["file"]]


def test_the_child_ends_when_nobody_is_left_to_ask(workshop: Path, tmp_path: Path) -> None:
    with child(workshop / "ladder" / "squared", tmp_path) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        messages = [json.loads(line) for line in process.stdout]

    assert process.returncode == 1
    assert "candidate" in messages[-1]
