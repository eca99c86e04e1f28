"""From a model on disk to a servable."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.errors import ModelError
from app.repository import report
from app.repository.layout import Kind, Source, source_of
from app.repository.loader import Loaded, load, open_model, plans_of, show_us, summary
from app.repository.manager import State
from app.repository.model_config import ModelConfig
from app.repository.trial import Findings, Question, Trial
from app.runtime.interpreter import Model, Runner
from app.runtime.pool import Pool
from app.runtime.servable import Lanes
from app.tensors import Batching
from tests import tflite
from tests.loops import Loop
from tests.repository import stand_in
from tests.repository.conftest import Outcome
from tests.repository.test_manager import load_all, watch

Outcomes = Callable[[str], Outcome]

STAGES = [
    "importing TensorFlow",
    "loading {}",
    "computing reference answers",
    "converting",
    "checking the converted model",
    "comparing with TensorFlow",
]


def put(folder: Path, content: bytes) -> Source:
    path = folder / "m.tflite"
    path.write_bytes(content)
    return Source("m", 1, Kind.TFLITE, path, folder)


# .tflite files


def test_a_tflite_file_is_opened_as_it_is(tmp_path: Path) -> None:
    source = put(tmp_path, tflite.affine())
    stages: list[str] = []

    opened = open_model(source, stand_in.converter(tmp_path), stages.append)

    assert stages == ["loading m.tflite"]
    assert isinstance(opened.model, Path)
    assert opened.model != source.path
    assert opened.model.read_bytes() == source.path.read_bytes()
    assert opened.size == source.path.stat().st_size
    assert opened.conversion is None
    assert opened.parity is None
    assert [array.shape for array in opened.default.example] == [(1, 4)]


def test_a_served_tflite_file_may_be_overwritten_in_place(tmp_path: Path) -> None:
    source = put(tmp_path, tflite.affine())
    opened = open_model(source, stand_in.converter(tmp_path), lambda stage: None)
    runner = opened.make_runner()

    source.path.write_bytes(b"")

    assert runner.invoke([np.ones((1, 4), np.float32)])[0].tolist() == [[3.0] * 4]
    assert opened.make_runner().signature() == opened.signature


def test_a_tflite_file_is_held_in_memory_where_the_cache_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    source = put(tmp_path, tflite.affine())

    opened = open_model(source, stand_in.converter(tmp_path), lambda stage: None)

    assert opened.model == source.path.read_bytes()


def test_what_lies_beside_a_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text('description = "doubles"')
    (tmp_path / "samples.json").write_text('[{"request": {"instance": [1, 2, 3, 4]}}]')

    opened = open_model(put(tmp_path, tflite.affine()), stand_in.converter(tmp_path), lambda stage: None)

    assert opened.config == ModelConfig(description="doubles")
    assert opened.samples[0].request == opened.example_request() == {"instance": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (tflite.affine(shape=(-1, 4)), "merged"),
        (tflite.maximum_over_batch(), "batched"),
        (tflite.fixed_one(), "looped"),
        (tflite.whole(), "whole"),
        (tflite.running_sum(), "stateful"),
    ],
)
def test_the_class_of_batches_is_found(tmp_path: Path, content: bytes, word: str) -> None:
    opened = open_model(put(tmp_path, content), stand_in.converter(tmp_path), lambda stage: None)

    assert opened.default.contract.batch_class.value == word


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (tflite.truncated(tflite.affine()), "the file is damaged: "),
        (b"", "m.tflite is no TFLite model: found an empty file, "),
        (tflite.never_runs(), "it does not run: "),
        (tflite.identity("resource"), ""),
    ],
)
def test_a_tflite_file_that_cannot_be_served_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(put(tmp_path, content), stand_in.converter(tmp_path), lambda stage: None)

    assert caught.value.message.startswith(sentence)
    assert "\n" not in caught.value.message


def test_a_summary_without_conversion_has_the_interpreters_time_only(tmp_path: Path) -> None:
    opened = open_model(put(tmp_path, tflite.affine()), stand_in.converter(tmp_path), lambda stage: None)

    assert re.fullmatch(r"one record: interpreter [\d.]+ us", summary(opened))


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [(0.25, "0.25 us"), (17.04, "17 us"), (999, "999 us"), (1800, "1.8 ms"), (46_000, "46 ms"), (2.5e6, "2.5 s")],
)
def test_times_are_shown_in_the_unit_that_people_use(microseconds: float, shown: str) -> None:
    assert show_us(microseconds) == shown


# What the owner has fixed


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    pool, loop = Pool(1), Loop()
    yield Lanes(pool, loop.call, loop.later, loop.call, inline_us=300.0, queue_size=8)
    pool.close()


def load_with(folder: Path, content: bytes, lane: str, lanes: Lanes) -> Loaded:
    (folder / "model.toml").write_text(f"[lane]\n{lane}")
    return load(put(folder, content), stand_in.converter(folder), lanes, lambda stage: None)


def test_a_model_is_served_by_its_profile_where_its_owner_says_nothing(tmp_path: Path, lanes: Lanes) -> None:
    loaded = load(put(tmp_path, tflite.affine()), stand_in.converter(tmp_path), lanes, lambda stage: None)

    plan, profile = loaded.servable.plan, loaded.opened.profile
    assert plan.profile is profile
    assert plan.inline_rows == profile.inline_rows(300.0)
    assert plan.helpings == profile.helpings()[: plan.most_rows + 1]
    assert plan.threads == 1


def test_a_model_is_served_as_its_owner_has_fixed(tmp_path: Path, lanes: Lanes) -> None:
    loaded = load_with(tmp_path, tflite.affine(), "inline_rows = 3\nmerge_rows = 2\nthreads = 2", lanes)

    plan = loaded.servable.plan
    assert (plan.inline_rows, plan.merge_rows, plan.threads) == (3, 2, 2)


def test_a_model_is_measured_with_the_threads_that_serve_it(
    tmp_path: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    original = Runner.__init__

    def counted(runner: Runner, model: Model, threads: int = 1) -> None:
        made.append(threads)
        original(runner, model, threads)

    monkeypatch.setattr(Runner, "__init__", counted)
    load_with(tmp_path, tflite.affine(), "threads = 3", lanes)

    assert set(made) == {3}


def test_a_stateful_model_is_granted_that_it_keeps_off_the_loop(tmp_path: Path, lanes: Lanes) -> None:
    plan = load_with(tmp_path, tflite.running_sum(), "inline_rows = 0\nmerge_rows = 1", lanes).servable.plan

    assert plan.stateful
    assert (plan.inline_rows, plan.merge_rows) == (0, 1)


REFUSED_WISHES = [
    (
        tflite.running_sum(),
        "inline_rows = 1",
        "model.toml: lane.inline_rows = 1: this model keeps variables between invokes: each request gets an "
        "interpreter of its own, which cannot run on the event loop: expected 0",
    ),
    (
        tflite.running_sum(),
        "merge_rows = 2",
        "model.toml: lane.merge_rows = 2: requests to this model cannot share an invoke, because it keeps variables "
        "between invokes: expected 1",
    ),
    (
        tflite.maximum_over_batch(),
        "merge_rows = 8",
        "model.toml: lane.merge_rows = 8: requests to this model cannot share an invoke, because its graph "
        "mixes rows: REDUCE_MAX over the batch axis at 'largest': expected 1",
    ),
    (
        tflite.fixed_one(),
        "merge_rows = 8",
        "model.toml: lane.merge_rows = 8: requests to this model cannot share an invoke, because its leading "
        "dimension is fixed at 1: expected 1",
    ),
    (
        tflite.affine(),
        "inline_rows = -1",
        "model.toml: lane.inline_rows = -1: Input should be greater than or equal to 0",
    ),
]


@pytest.mark.parametrize(("content", "lane", "reason"), REFUSED_WISHES)
def test_a_wish_that_cannot_be_granted_is_why_the_model_is_not_served(
    tmp_path: Path, lanes: Lanes, content: bytes, lane: str, reason: str
) -> None:
    with pytest.raises(ModelError) as caught:
        load_with(tmp_path, content, lane, lanes)

    assert caught.value.message == reason


def test_a_model_whose_cost_depends_on_its_input_is_not_served_on_the_loop(
    tmp_path: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = stand_in.trial().of(tflite.affine(), Question())
    unpredictable = [replace(found, unpredictable=True) for found in findings.signatures]
    monkeypatch.setattr(Trial, "of", lambda *_: Findings(unpredictable, {}))

    with pytest.raises(ModelError, match=r"^model\.toml: lane\.inline_rows = 4: what an invoke of this model costs de"):
        load_with(tmp_path, tflite.affine(), "inline_rows = 4", lanes)


@pytest.mark.parametrize(("content", "lane", "reason"), REFUSED_WISHES)
def test_a_wish_that_cannot_be_granted_is_told_as_the_reason_of_a_failed_model(
    tmp_path: Path, content: bytes, lane: str, reason: str
) -> None:
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    put(folder, content)
    (folder / "model.toml").write_text(f"[lane]\n{lane}")

    watched = watch(folder.parent, load_all)

    assert watched.history[-1] == ("m", State.FAILED, reason)


# Conversion, with TensorFlow


SAME_NAMES = {
    "sequential.keras": ["scores"],
    "conv.KERAS": ["sides"],
    "embedding.keras": ["topic"],
    "free_inner.keras": ["kind"],
    "old.HDF5": ["difference", "total"],
    "exported": ["output_0"],
    "module": ["scaled"],
    "several_list.keras": ["difference", "total"],
    "several_dict.keras": ["difference", "total"],
    "aliases.keras": ["minus", "sum"],
    "shared.keras": ["output_0", "output_1"],
    "lstm_of_one.keras": ["next"],
    "lstm.keras": ["last"],
    "undecided": ["negated"],
    "strings.keras": ["meaning"],
    "other_ops": ["y"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME_NAMES)
def test_litert_answers_what_tensorflow_answers_under_the_same_names(outcome: Outcomes, name: str) -> None:
    found, wanted = outcome(f"good/{name}").answers()

    assert sorted(found) == sorted(wanted) == SAME_NAMES[name]
    for output, values in wanted.items():
        assert found[output].shape == values.shape
        assert np.abs(found[output] - values).max() <= 1e-5 * np.abs(values).max(), output
    assert np.ptp(np.concatenate([values.ravel() for values in wanted.values()])) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), [("float16", 1e-2), ("dynamic", 0.1)])
def test_quantized_weights_answer_nearly_the_same_and_take_less_room(
    outcome: Outcomes, name: str, tolerance: float
) -> None:
    one = outcome(f"good/{name}")
    found, wanted = one.answers()

    relative = np.abs(found["y"] - wanted["y"]).max() / np.abs(wanted["y"]).max()
    assert 1e-7 < relative < tolerance
    assert one.opened is not None
    assert one.opened.config.quantization == name
    assert one.opened.size < 0.75 * 4 * 64 * 64
    assert one.opened.parity is not None
    assert one.opened.parity.tolerance == tolerance


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sequential.keras", "old.HDF5", "module"])
def test_stages_are_told_in_order(outcome: Outcomes, name: str) -> None:
    assert outcome(f"good/{name}").stages == [stage.format(name) for stage in STAGES]


@pytest.mark.slow
def test_the_report_has_times_versions_and_names(outcome: Outcomes) -> None:
    opened = outcome("good/several_list.keras").opened
    assert opened is not None
    assert opened.conversion is not None

    told = opened.conversion
    versions, names = {"tensorflow", "keras"}, {"inputs", "outputs", "aliases", "signatures", "signatures_left_out"}
    result = {"variants", "rungs_failed", "calibrated_with", "rung", "quantization"}
    assert set(told) == versions | names | result | {"stateful", "random", "seconds", "timings_us", "trained_in"}
    assert told["variants"]["none"]["bytes"] == opened.size
    assert (told["rung"], told["quantization"]) == ("plain", "none")
    assert sorted(told["inputs"]) == ["left", "right"]
    assert list(told["seconds"]) == ["importing", "loading", "computing", "converting"]
    assert set(told["timings_us"]) == {"call", "predict"}
    assert all(took > 0 for took in told["timings_us"].values())
    assert opened.parity is not None
    assert opened.parity.records == 16
    assert set(opened.parity.differences) == {"total", "difference"}


@pytest.mark.slow
def test_a_saved_model_has_no_predict_to_time(outcome: Outcomes) -> None:
    opened = outcome("good/module").opened
    assert opened is not None
    assert opened.conversion is not None

    assert set(opened.conversion["timings_us"]) == {"call"}
    assert opened.conversion["keras"] is None


@pytest.mark.slow
def test_the_summary_is_the_table_that_the_project_began_with(outcome: Outcomes) -> None:
    opened = outcome("good/conv.KERAS").opened
    assert opened is not None

    time = r"[\d.]+ (us|ms|s)"
    assert re.fullmatch(
        rf"one record: model\.predict {time}, model\(x\) {time}, interpreter {time}; "
        r"largest difference from TensorFlow \S+ \(\S+ of the scale\)",
        summary(opened),
    )


@pytest.mark.slow
def test_a_free_inner_dimension_stays_free(outcome: Outcomes) -> None:
    opened = outcome("good/free_inner.keras").opened
    assert opened is not None
    signature = opened.signature

    assert signature.batching is Batching.FREE
    assert signature.record_shape(signature.inputs[0]) == (-1, -1, 3)


@pytest.mark.slow
def test_a_recurrent_layer_keeps_the_model_s_own_batch_of_1(outcome: Outcomes) -> None:
    opened = outcome("good/lstm_of_one.keras").opened
    assert opened is not None

    assert opened.signature.batching is Batching.ONE


@pytest.mark.slow
def test_a_recurrent_layer_over_a_free_batch_keeps_it_and_its_steps_free(outcome: Outcomes) -> None:
    opened = outcome("good/lstm.keras").opened
    assert opened is not None
    assert opened.conversion is not None

    assert (opened.engine, opened.conversion["rung"]) == ("litert", "fixed")
    assert opened.signature.tensor_shape(opened.signature.inputs[0]) == (-1, -1, 2)


@pytest.mark.slow
def test_of_signatures_none_of_which_is_the_default_the_first_by_name_is(outcome: Outcomes) -> None:
    opened = outcome("good/undecided").opened
    assert opened is not None

    assert list(opened.signatures) == ["negate", "scale"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("strings.keras", "output 'meaning' has shape [16, 2] in LiteRT and [16, 1, 2] in TensorFlow"),
        ("other_ops", "it needs operations that TFLite does not have, Erfinv, MatrixInverse: use other layers"),
    ],
)
def test_what_tflite_cannot_express_is_run_by_tensorflow_and_the_reason_is_told(
    outcome: Outcomes, name: str, reason: str
) -> None:
    one = outcome(f"good/{name}")
    assert one.opened is not None

    assert (one.opened.engine, one.opened.slow_because, one.opened.size) == ("tensorflow", reason, 0)
    assert "starting TensorFlow, because TFLite cannot express it" in one.stages
    assert report.of_opened(one.opened, plans_of(one.opened, 300.0))["conversion"] is None
    assert re.match(r"one record: .*TensorFlow [\d.]+ (us|ms)", summary(one.opened))


@pytest.mark.slow
def test_integer_inputs_stay_integers(outcome: Outcomes) -> None:
    opened = outcome("good/embedding.keras").opened
    assert opened is not None

    assert opened.signature.inputs[0].dtype == np.int32
    assert opened.default.example[0].dtype == np.int32


# Refusals, with TensorFlow


REFUSALS = {
    "good/strict": (
        r"output 'y' differs from TensorFlow's by \S+ of its scale \(\S+\), more than the tolerance of 1e-12; "
        r"model\.toml can set another"
    ),
    "bad/lambda.keras": "it holds a Lambda layer, which is arbitrary Python code and is not loaded: .*",
    "bad/lambda.h5": "it holds a Lambda layer, which is arbitrary Python code and is not loaded: .*",
    "bad/custom.keras": "it needs the custom object 'Doubled', whose code the file does not hold: .*",
    "bad/custom.h5": "it needs the custom object 'Ours>Doubled', whose code the file does not hold: .*",
    "bad/odd_layer.keras": "ValueError: 'out a' is not a valid scope name.*",
    "bad/touches_files": (
        "the SavedModel is not loaded: its graph holds PrintV2, ReadFile, WriteFile, which reach beyond tensors"
    ),
    "bad/runs_python": "the SavedModel is not loaded: its graph holds PyFunc, which reach beyond tensors",
    "bad/no_signature": "the SavedModel has no signature: export it with one that is named serving_default",
    "bad/damaged": r"saved_model\.pb is damaged: it is no SavedModel protocol buffer",
    "bad/odd_names.keras": "Keras cannot export the names of its inputs: use letters, digits and '_' in them",
}


@pytest.mark.slow
@pytest.mark.parametrize("place", REFUSALS)
def test_a_model_that_is_not_served_is_refused_in_one_clear_sentence(outcome: Outcomes, place: str) -> None:
    one = outcome(place)

    assert one.opened is None
    assert re.fullmatch(REFUSALS[place], one.error), one.error


@pytest.mark.slow
def test_every_model_of_the_workshop_is_looked_at(workshop: Path) -> None:
    made = {f"{path.parent.name}/{path.name}" for part in ("good", "bad") for path in (workshop / part).iterdir()}

    expected = {f"good/{name}" for name in (*SAME_NAMES, "float16", "dynamic")} | set(REFUSALS)
    assert {place for place in made if not place.endswith(".npz")} == expected


@pytest.mark.slow
def test_no_code_and_no_file_op_of_a_model_was_run(outcome: Outcomes, workshop: Path) -> None:
    # keras_models.py has seen that the lambdas leave their marks where they are let.
    assert outcome("bad/lambda.h5").error
    assert list((workshop / "marks").iterdir()) == []
    assert not (workshop / "written").exists()
    assert not (workshop / "printed").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lambda.keras", "lambda.h5"])
def test_safe_mode_holds_where_our_own_check_does_not(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stand_in.alter(monkeypatch, tmp_path, {'    check_file(source, request["kind"])\n': ""})
    path = workshop / "bad" / name

    with pytest.raises(ModelError, match=r"^Keras does not load it in safe mode: Requested the deserialization of a "):
        open_model(source_of(path), stand_in.converter(tmp_path), lambda stage: None)

    assert not (workshop / "marks" / name).exists()


@pytest.mark.slow
def test_two_processes_that_start_at_once_convert_a_model_once(workshop: Path, tmp_path: Path) -> None:
    model = workshop / "good" / "sequential.keras"
    command = [sys.executable, "-m", "app.cli", "convert", str(model), "--cache-dir", str(tmp_path / "cache"), "-o"]

    rivals = [
        subprocess.Popen([*command, str(tmp_path / name)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for name in "ab"
    ]
    told = [rival.communicate(timeout=600)[1] for rival in rivals]

    assert [rival.returncode for rival in rivals] == [0, 0]
    assert "".join(told).count("importing TensorFlow") == 1
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.slow
def test_too_little_memory_is_told_as_such(workshop: Path, tmp_path: Path) -> None:
    source = Source("m", 1, Kind.KERAS, workshop / "good" / "conv.KERAS", None)

    with pytest.raises(ModelError, match=r"^the conversion needs more than the 512 MiB that it may use: give it "):
        open_model(source, stand_in.converter(tmp_path, memory=512 << 20), lambda stage: None)


@pytest.mark.slow
def test_tensorflow_is_not_in_this_process(outcome: Outcomes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        outcome("good/conv.KERAS").answers()

    assert not {"tensorflow", "keras"} & set(sys.modules)
