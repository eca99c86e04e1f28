"""What is found of a model by running it. These models harm nobody, so that they run in the process of the tests."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import ModelError
from app.repository import examine as examination
from app.repository.arrays import load_arrays, save_arrays
from app.repository.examine import examine
from app.runtime.rows import Rows
from tests import tflite

PLAIN: dict[str, Any] = {
    "threads": 1,
    "rows_independent": False,
    "tolerance": 1e-4,
    "quantized": False,
    "reference": None,
    "references": None,
    "records": None,
}


def found_of(folder: Path, content: bytes, **request: Any) -> dict[str, Any]:
    (folder / "m.tflite").write_bytes(content)
    return examine(folder / "m.tflite", PLAIN | request, folder)


def contract_of(folder: Path, content: bytes, **request: Any) -> tuple[str, str]:
    """The default signature's class, and why."""
    found = found_of(folder, content, **request)["signatures"][0]
    return found["class"], found["reason"]


PROVEN = "proven: every operation of its graph treats rows alone"
LOOPED = "its leading dimension is fixed at 1"
IN_LITERT = "though its graph treats rows alone, in LiteRT output 'y' of a record depends on the records beside"
WHOLE = "its inputs and outputs have no common leading dimension for records"


@pytest.mark.parametrize(
    ("content", "batch_class", "reason"),
    [
        (tflite.affine(), "merged", PROVEN),
        (tflite.free_inner(), "merged", PROVEN),
        (tflite.scalar_records(), "merged", PROVEN),
        (tflite.two_in_two_out(), "merged", PROVEN),
        (tflite.lookup(), "merged", PROVEN),
        (tflite.quantized(), "merged", PROVEN),
        (tflite.maximum_over_batch(), "batched", "its graph mixes rows: REDUCE_MAX over the batch axis at 'largest'"),
        (tflite.first_row_taken(), "batched", "its graph mixes rows: SLICE takes"),
        (tflite.noisy(), "batched", "its answers are drawn at random"),
        (tflite.fixed_one(), "looped", LOOPED),
        (tflite.reshaped((1, -1)), "looped", "it runs no batch: "),
        (tflite.reshaped((1, 4)), "looped", "it runs no batch: "),
        (tflite.whole(), "whole", WHOLE),
        (tflite.running_sum(), "stateful", "it keeps variables between invokes"),
    ],
)
def test_each_class_is_found_with_a_reason_for_people(
    tmp_path: Path, content: bytes, batch_class: str, reason: str
) -> None:
    found, why = contract_of(tmp_path, content)

    assert (found, why[: len(reason)]) == (batch_class, reason)
    assert "\n" not in why


@pytest.mark.parametrize("dtype", ["string", "complex64", "bool", "int64", "uint8", "float64"])
def test_a_model_of_any_dtype_is_classed(tmp_path: Path, dtype: str) -> None:
    batch_class, _ = contract_of(tmp_path, tflite.identity(dtype))

    assert batch_class in ("merged", "looped")
    (example,) = load_arrays(tmp_path / "example.npz").values()
    assert example.shape == (1, 4)


def test_a_model_that_does_not_run_in_its_default_shape_is_tried_in_others(tmp_path: Path) -> None:
    found_of(tmp_path, tflite.picky_inner(16))

    assert load_arrays(tmp_path / "example.npz")["in_0_0"].shape == (1, 16)


def test_the_owners_word_that_rows_are_independent_is_taken(tmp_path: Path) -> None:
    assert contract_of(tmp_path, tflite.maximum_over_batch(), rows_independent=True) == (
        "merged",
        "model.toml says that its rows are independent",
    )


def test_the_owners_word_makes_no_batch_of_what_runs_none(tmp_path: Path) -> None:
    assert contract_of(tmp_path, tflite.reshaped((1, -1)), rows_independent=True)[0] == "looped"


@pytest.mark.parametrize(
    ("verdict", "content", "batch_class", "reason"),
    [
        ("unknown", tflite.affine(), "merged", "a probe of unlike records found rows independent; not proven: X"),
        ("unknown", tflite.maximum_over_batch(), "batched", "output 'y' of a record depends on the records beside it"),
        ("independent", tflite.maximum_over_batch(), "looped", IN_LITERT),
        ("independent", tflite.first_row_taken(), "looped", IN_LITERT),
        ("mixing", tflite.affine(), "batched", "its graph mixes rows: X"),
    ],
)
def test_the_stricter_of_graph_and_probe_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: Any, content: bytes, batch_class: str, reason: str
) -> None:
    monkeypatch.setattr(examination, "row_verdict", lambda *_: Rows(verdict, "X"))

    found, why = contract_of(tmp_path, content)

    assert (found, why[: len(reason)]) == (batch_class, reason)


def test_what_takes_long_is_not_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "_PROBED_US", 0.0)

    assert contract_of(tmp_path, tflite.affine()) == (
        "batched",
        "one record takes so long that merging would not help",
    )


def test_a_stateful_model_leaves_its_first_state_to_nobody(tmp_path: Path) -> None:
    inputs = np.ones((1, 4), np.float32)
    request = reference(tmp_path, inputs, inputs)

    (found,) = found_of(tmp_path, tflite.running_sum(), **request)["signatures"]

    assert found["parity"]["differences"]["y"]["absolute"] == 0.0


# Signatures


def test_every_signature_is_classed_for_itself(tmp_path: Path) -> None:
    found = found_of(tmp_path, tflite.several_signatures())

    assert [(one["name"], one["class"]) for one in found["signatures"]] == [
        ("serving_default", "merged"),
        ("less", "batched"),
    ]
    assert found["left_out"] == {}
    assert set(load_arrays(tmp_path / "example.npz")) == {"in_0_0", "in_1_0"}


def test_a_signature_that_does_not_run_is_left_out_and_the_others_are_served(tmp_path: Path) -> None:
    found = found_of(tmp_path, tflite.several_signatures(second_runs=False))

    assert [one["name"] for one in found["signatures"]] == ["serving_default"]
    assert found["left_out"]["less"].startswith("it does not run: ")


# Refusals


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (tflite.never_runs(), "it does not run: "),
        (tflite.doubles_rows(), "it does not run: the model answered shape [2, 4] to a batch of 1"),
        (tflite.foreign("Ours"), "it needs the custom operations Ours, whose code is no part of LiteRT: build it "),
        (tflite.foreign("FlexErf"), "it needs operations of TensorFlow that LiteRT does not have, FlexErf: serve the "),
        (tflite.identity("resource"), ""),
        (tflite.truncated(tflite.affine()), ""),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_cause(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(ModelError) as caught:
        found_of(tmp_path, content)

    assert caught.value.message.startswith(sentence)
    assert "\n" not in caught.value.message


# TensorFlow's answers, and records of the owner


def reference(
    folder: Path, inputs: Any, outputs: Any, number: int = 0, name: str = "serving_default", **more: Any
) -> dict[str, Any]:
    """What a request has of TensorFlow's answers; `more` is what the conversion says of it beside."""
    arrays = {f"in_{number}_0": np.asarray(inputs, np.float32), f"out_{number}_0": np.asarray(outputs, np.float32)}
    save_arrays(folder / "parity.npz", arrays)
    told = {
        "name": name,
        "number": number,
        "inputs": ["x"],
        "outputs": ["y" if name != "less" else "z"],
        "random": False,
        "rows": len(inputs),
        "samples": 0,
        "loud": 0,
    }
    return {"reference": str(folder / "parity.npz"), "references": [told | more]}


SOME = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_a_model_is_compared_with_the_answers_there_are(tmp_path: Path) -> None:
    (found,) = found_of(tmp_path, tflite.affine(), **reference(tmp_path, SOME, 2 * SOME + 1))["signatures"]

    assert (found["parity"]["records"], found["parity"]["differences"]["y"]["absolute"]) == (3, 0.0)
    assert load_arrays(tmp_path / "example.npz")["in_0_0"].tolist() == SOME[:1].tolist()


def test_a_model_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^output 'y' differs from TensorFlow's by "):
        found_of(tmp_path, tflite.affine(), **reference(tmp_path, SOME, 2 * SOME))


def test_a_model_that_is_right_only_record_by_record_is_looped(tmp_path: Path) -> None:
    found = found_of(tmp_path, tflite.maximum_over_batch(), **reference(tmp_path, SOME, 0 * SOME))["signatures"][0]

    assert found["class"] == "looped"
    assert found["reason"].startswith("in a batch, output 'y' differs from TensorFlow's by ")


def test_what_chance_decides_is_not_compared(tmp_path: Path) -> None:
    request = reference(tmp_path, SOME, 0 * SOME, random=True)

    (found,) = found_of(tmp_path, tflite.affine(), **request)["signatures"]

    assert found["parity"] is None
    assert load_arrays(tmp_path / "example.npz")["in_0_0"].tolist() == SOME[:1].tolist()


@pytest.mark.parametrize(
    ("told", "records"),
    [({"samples": 1, "loud": 1}, 1), ({"loud": 1}, 2), ({"loud": 3}, 1), ({"samples": 2}, 2)],
    ids=["the owner's", "all but the loud", "one at least", "the owner's where none is loud"],
)
def test_of_smaller_weights_only_usual_records_are_compared(tmp_path: Path, told: dict[str, Any], records: int) -> None:
    wanted = 2 * SOME + 1
    wanted[records:] = 1e9
    request = reference(tmp_path, SOME, wanted, **told)

    (found,) = found_of(tmp_path, tflite.affine(), quantized=True, **request)["signatures"]

    assert found["parity"]["records"] == records
    with pytest.raises(ModelError, match=r"^output 'y' differs from TensorFlow's by "):
        found_of(tmp_path, tflite.affine(), quantized=False, **request)


def test_the_answers_go_by_the_number_of_the_signature(tmp_path: Path) -> None:
    request = reference(tmp_path, SOME, SOME - SOME.max(axis=0), number=5, name="less")

    plain, less = found_of(tmp_path, tflite.several_signatures(), **request)["signatures"]

    assert plain["parity"] is None
    assert less["parity"]["records"] == 3


@pytest.mark.parametrize(
    ("records", "first"),
    [
        ({"": SOME}, SOME[0]),
        ({"x": SOME}, SOME[0]),
        ({"x": SOME[:, :2]}, np.zeros(4)),
        ({"other": SOME}, np.zeros(4)),
        ({"x": np.array([["a"] * 4])}, np.zeros(4)),
    ],
)
def test_the_owners_records_are_the_example_as_far_as_they_fit(
    tmp_path: Path, records: dict[str, Any], first: Any
) -> None:
    save_arrays(tmp_path / "records.npz", records)

    found_of(tmp_path, tflite.affine(), records=str(tmp_path / "records.npz"))

    assert load_arrays(tmp_path / "example.npz")["in_0_0"].tolist() == [list(first)]
