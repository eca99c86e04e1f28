"""model.toml."""

import json
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from app.errors import ModelError
from app.repository.model_config import (
    DEFAULT_TOLERANCE,
    LaneConfig,
    ModelConfig,
    Quantization,
    StateConfig,
    read_config,
)
from app.runtime.plan import Wishes
from app.tensors import Shape, Signature, TensorSpec, make_signature


def read(folder: Path, text: str) -> ModelConfig:
    (folder / "model.toml").write_text(text, encoding="utf-8")
    return read_config(folder)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ModelError) as caught:
        read(folder, text)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_without_a_file_or_a_folder_everything_has_its_default(tmp_path: Path) -> None:
    assert read_config(None) == read_config(tmp_path) == ModelConfig()
    assert ModelConfig().quantization == "none"
    assert ModelConfig().class_labels == []
    assert ModelConfig().description == ""
    assert ModelConfig().lane.wishes() == Wishes()
    assert ModelConfig().batching.class_ is None
    assert not ModelConfig().batching.rows_independent
    assert ModelConfig().state == StateConfig(sequences=64, idle_seconds=300)
    assert ModelConfig().versions.words() == "versions.latest = 1"
    assert (ModelConfig().numbers, ModelConfig().engine, ModelConfig().signature) == ("raw", "auto", None)


def test_an_empty_file_is_no_file(tmp_path: Path) -> None:
    assert read(tmp_path, "") == ModelConfig()


def test_every_key_is_read(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        'calibration = "real.npz"\nnumbers = "real"\nsignature = "encode"\nengine = "litert"\n'
        'description = "reads grüße"\nclass_labels = ["a", "b"]\nquantization = "float16"\ntolerance = 0.25\n'
        "[lane]\ninline_rows = 0\nmerge_rows = 4096\nthreads = 2\n"
        '[batching]\nclass = "looped"\n[state]\nsequences = 0\nidle_seconds = 5\n'
        "[versions]\nspecific = [4, 3]\n[labels]\nstable = 3\ncanary = 4\n",
    )

    assert config.description == "reads grüße"
    assert config.class_labels == ["a", "b"]
    assert config.quantization == "float16"
    assert config.tolerance == config.allowed_difference == 0.25
    assert config.lane.wishes() == Wishes(inline_rows=0, merge_rows=4096, threads=2)
    assert config.lane.model_fields_set == set(LaneConfig.model_fields)
    assert (config.calibration, config.numbers) == ("real.npz", "real")
    assert (config.signature, config.engine) == ("encode", "litert")
    assert config.batching.class_ == "looped"
    assert config.state == StateConfig(sequences=0, idle_seconds=5.0)
    assert config.versions.specific == [4, 3]
    assert config.labels == {"stable": 3, "canary": 4}
    assert config.model_fields_set == set(ModelConfig.model_fields)


def test_labels_may_be_given_for_each_output(tmp_path: Path) -> None:
    assert read(tmp_path, '[class_labels]\nrisk = ["low", "high"]').class_labels == {"risk": ["low", "high"]}


@pytest.mark.parametrize("quantization", ["none", "float16", "dynamic", "int8", "auto"])
def test_the_tolerance_follows_from_the_quantization(tmp_path: Path, quantization: Quantization) -> None:
    config = read(tmp_path, f'quantization = "{quantization}"')

    assert config.allowed_difference == DEFAULT_TOLERANCE[quantization]
    assert DEFAULT_TOLERANCE["none"] < DEFAULT_TOLERANCE["float16"] < DEFAULT_TOLERANCE["dynamic"]


def test_where_the_server_chooses_answers_may_differ_less_than_where_someone_has_chosen() -> None:
    assert DEFAULT_TOLERANCE["float16"] < DEFAULT_TOLERANCE["auto"] < DEFAULT_TOLERANCE["int8"]


def test_a_whole_number_is_a_tolerance_too(tmp_path: Path) -> None:
    assert read(tmp_path, "tolerance = 1").allowed_difference == 1.0


def test_an_unknown_key_is_refused_with_the_keys_that_there_are(tmp_path: Path) -> None:
    message = refusal(tmp_path, "quantisation = 'dynamic'")

    assert message == (
        "model.toml: quantisation = 'dynamic': Extra inputs are not permitted; the keys are "
        "description, class_labels, quantization, tolerance, calibration, numbers, signature, engine, labels, "
        "versions, batching, state, lane"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("description = 5", "description = 5"),
        ("tolerance = '0.1'", "tolerance = '0.1'"),
        ("tolerance = true", "tolerance = True"),
        ("tolerance = 0", "tolerance = 0"),
        ("tolerance = -0.5", "tolerance = -0.5"),
        ("tolerance = nan", "tolerance = nan"),
        ("tolerance = inf", "tolerance = inf"),
        ("quantization = 'int4'", "quantization = 'int4'"),
        ("quantization = 8", "quantization = 8"),
        ("numbers = 'float'", "numbers = 'float'"),
        ("engine = 'torch'", "engine = 'torch'"),
        ("signature = 5", "signature = 5"),
        ("labels = 3", "labels = 3"),
        ("labels = {stable = '3'}", "labels.stable = '3'"),
        ("labels.stable = 0", "labels.stable = 0"),
        ("[versions]\nlatest = 0", "versions.latest = 0"),
        ("versions.latest = true", "versions.latest = True"),
        ("versions.all = false", "versions.all = False"),
        ("versions.specific = [1, -1]", "versions.specific = [1, -1]"),
        ("versions.specific = [9223372036854775808]", "versions.specific = [9223372036854775808]"),
        ("versions = 'latest'", "versions = 'latest'"),
        ("[batching]\nclass = 'merged'", "batching.class = 'merged'"),
        ("batching.rows_independent = 'yes'", "batching.rows_independent = 'yes'"),
        ("[state]\nsequences = -1", "state.sequences = -1"),
        ("state.idle_seconds = 0", "state.idle_seconds = 0"),
        ("state.idle_seconds = inf", "state.idle_seconds = inf"),
        ("class_labels = 'cat'", "class_labels = 'cat'"),
        ("class_labels = ['cat', 5]", "class_labels = ['cat', 5]"),
        ("class_labels = {risk = 'low'}", "class_labels = {'risk': 'low'}"),
    ],
)
def test_a_value_of_another_type_or_size_is_refused_by_its_key_and_value(tmp_path: Path, text: str, found: str) -> None:
    assert refusal(tmp_path, text).startswith(f"model.toml: {found}: Input should be ")


def test_what_is_allowed_is_in_the_refusal(tmp_path: Path) -> None:
    message = refusal(tmp_path, "quantization = 'int4'\ntolerance = -1")

    assert (
        "quantization = 'int4': Input should be 'none', 'float16', 'dynamic', 'int8' or 'auto'; tolerance = -1: "
        in message
    )
    assert message.endswith("greater than 0")


def test_a_long_value_is_not_repeated_in_full(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, f"quantization = '{'x' * 10_000}'")) < 300


@pytest.mark.parametrize(
    "content", [b"quantization =", b"[", b"\xff\xfe", b"a = 1\na = 2", b"a = " + b"[" * 5000, b"a = " + b"9" * 5000]
)
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.toml").write_bytes(content)

    with pytest.raises(ModelError, match=r"^model\.toml is not TOML: "):
        read_config(tmp_path)


def test_a_file_that_cannot_be_read_is_not_called_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> IO[bytes]:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "model.toml").touch()
    monkeypatch.setattr(Path, "open", refuse)

    with pytest.raises(ModelError, match=r"^model\.toml cannot be read: Permission denied$"):
        read_config(tmp_path)


def test_a_file_too_large_to_be_one_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "model.toml").open("wb") as stream:
        stream.truncate(1 << 40)

    with pytest.raises(ModelError, match=r"^model\.toml is larger than 4 MiB$"):
        read_config(tmp_path)


def test_a_number_that_cannot_be_shown_is_refused_all_the_same(tmp_path: Path) -> None:
    message = refusal(tmp_path, f"quantization = 0x{'f' * 5000}")

    assert message.startswith("model.toml: quantization = a number of thousands of digits: Input should be ")


# Tables


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[versions]\nlatest = 2\nall = true",
            "versions = {'latest': 2, 'all': True}: latest and all are given: expected one of them",
        ),
        ("versions.specific = []", "versions.specific = []: List should have at least 1 item after validation, not 0"),
        (
            "batching = {class = 'looped', rows_independent = true}",
            "batching = {'class': 'looped', 'rows_independent': True}: class keeps requests apart and "
            "rows_independent lets them share: expected one of them",
        ),
        (
            "batching.class_ = 'looped'",
            "batching.class_ = 'looped': Extra inputs are not permitted; the keys are class, rows_independent",
        ),
        (
            "[versions]\nnewest = 1",
            "versions.newest = 1: Extra inputs are not permitted; the keys are latest, all, specific",
        ),
        ("[labels]\n'a b' = 1", "labels.a b = 1: String should match pattern '^[A-Za-z0-9_.-]+$'"),
        ('[labels]\n"a\\n" = 1', r"labels.a\n = 1: String should match pattern '^[A-Za-z0-9_.-]+$'"),
        ("signature = ''", "signature = '': String should have at least 1 character"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_the_full_key(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text) == f"model.toml: {message}"


def test_a_key_that_a_terminal_would_obey_is_escaped(tmp_path: Path) -> None:
    assert refusal(tmp_path, '"\\u001b[31m\\n" = 1').startswith(r"model.toml: \x1b[31m\n = 1: Extra inputs")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("versions.latest = 3", "versions.latest = 3"),
        ("versions.all = true", "versions.all = true"),
        ("versions.specific = [3, 1, 3]", "versions.specific = [1, 3]"),
        ("[versions]", "versions.latest = 1"),
    ],
)
def test_a_policy_is_shown_as_it_is_written(tmp_path: Path, text: str, words: str) -> None:
    assert read(tmp_path, text).versions.words() == words


@pytest.mark.parametrize(
    "name", ["../a.npz", "a/b.npz", "/etc/a.npz", "a.npy", ".npz", ".a.npz", "a\\b.npz", "a\n.npz", ""]
)
def test_calibration_data_lie_beside_the_model_and_nowhere_else(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, f"calibration = {json.dumps(name)}")

    assert message.endswith(": expected the name of an .npz file that lies beside model.toml")


def test_calibration_data_are_found_beside_model_toml(tmp_path: Path) -> None:
    config = read(tmp_path, "calibration = 'real records.npz'")

    with pytest.raises(ModelError) as caught:
        config.calibration_file(tmp_path)
    assert caught.value.message == ("model.toml: calibration = 'real records.npz': no such file lies beside model.toml")

    (tmp_path / "real records.npz").touch()
    assert config.calibration_file(tmp_path) == tmp_path / "real records.npz"
    assert ModelConfig().calibration_file(tmp_path) is None


def test_what_does_not_shape_a_loaded_version_is_not_in_its_key(tmp_path: Path) -> None:
    plain = ModelConfig().load_key()

    assert read(tmp_path, "description = 'x'\nversions.all = true\nlabels.a = 1").load_key() == plain
    for text in ("quantization = 'int8'", "class_labels = ['a']", "lane.threads = 2", "batching.class = 'looped'"):
        assert read(tmp_path, text).load_key() != plain


# The lane


@pytest.mark.parametrize(
    ("text", "wishes"),
    [
        ("[lane]", Wishes()),
        ("[lane]\ninline_rows = 12", Wishes(inline_rows=12)),
        ("lane.merge_rows = 1", Wishes(merge_rows=1)),
        ("lane = {threads = 256}", Wishes(threads=256)),
    ],
)
def test_what_of_the_lane_is_not_fixed_is_left_to_what_is_measured(tmp_path: Path, text: str, wishes: Wishes) -> None:
    assert read(tmp_path, text).lane.wishes() == wishes


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("inline_rows", "-1", "Input should be greater than or equal to 0"),
        ("inline_rows", "true", "Input should be a valid integer"),
        ("inline_rows", "1.0", "Input should be a valid integer"),
        ("inline_rows", "'8'", "Input should be a valid integer"),
        ("merge_rows", "0", "Input should be greater than or equal to 1"),
        ("merge_rows", "-3", "Input should be greater than or equal to 1"),
        ("merge_rows", "4097", "Input should be less than or equal to 4096"),
        ("merge_rows", "[8]", "Input should be a valid integer"),
        ("threads", "0", "Input should be greater than or equal to 1"),
        ("threads", "257", "Input should be less than or equal to 256"),
        ("threads", "nan", "Input should be a valid integer"),
    ],
)
@pytest.mark.parametrize("form", ["[lane]\n{} = {}", "lane.{} = {}"])
def test_a_value_in_the_lane_is_refused_by_its_full_key_and_value(
    tmp_path: Path, form: str, key: str, value: str, fault: str
) -> None:
    shown = {"true": "True"}.get(value, value)
    assert refusal(tmp_path, form.format(key, value)) == f"model.toml: lane.{key} = {shown}: {fault}"


def test_an_unknown_key_in_the_lane_is_refused_with_the_keys_of_the_lane(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[lane]\ninline = 5") == (
        "model.toml: lane.inline = 5: Extra inputs are not permitted; the keys are inline_rows, merge_rows, threads"
    )


def test_several_faults_of_the_lane_and_of_other_keys_are_told_together(tmp_path: Path) -> None:
    message = refusal(tmp_path, "tolerance = -1\n[lane]\nthreads = 0\nmerge = 'much'\ninline_rows = -1")

    parts = message.removeprefix("model.toml: ").split("; ")
    assert [part.partition(": ")[0] for part in parts[:3]] == [
        "tolerance = -1",
        "lane.inline_rows = -1",
        "lane.threads = 0",
    ]
    assert parts[3].startswith("lane.merge = 'much': ")


@pytest.mark.parametrize(("text", "found"), [("lane = 5", "5"), ("lane = 'fast'", "'fast'"), ("[[lane]]", "[{}]")])
def test_a_lane_that_is_no_table_is_refused(tmp_path: Path, text: str, found: str) -> None:
    assert refusal(tmp_path, text).startswith(f"model.toml: lane = {found}: Input should be ")


# Labels and the model's outputs


def signature(**outputs: Shape) -> Signature:
    dtype = np.dtype("float32")
    specs = tuple(TensorSpec(name, dtype, shape) for name, shape in outputs.items())
    return make_signature("serving_default", (TensorSpec("x", dtype, (-1, 4)),), specs)


TWO = signature(risk=(-1, 3), score=(-1, 1))


@pytest.mark.parametrize(
    ("labels", "of"),
    [
        ([], TWO),
        (["a", "b", "c"], signature(y=(-1, 3))),
        (["a", "b", "c"], signature(y=(-1, -1))),
        (["a", "b", "c"], signature(y=(-1, 8, 8, 3))),
        (["a", "b", "c"], signature(y=(-1,))),
        ({"risk": ["a", "b", "c"]}, TWO),
        ({"y": ["a", "b"]}, signature(y=(-1, 2))),
    ],
)
def test_labels_of_the_model_s_outputs_are_taken(labels: list[str] | dict[str, list[str]], of: Signature) -> None:
    ModelConfig(class_labels=labels).check_labels(of)


@pytest.mark.parametrize(
    ("labels", "of", "reason"),
    [
        (
            ["a", "b", "c"],
            TWO,
            "class_labels is a list, and the model has the outputs 'risk', 'score': expected {output: [names]}",
        ),
        ({"rsk": ["a"]}, TWO, "class_labels names the output 'rsk', and the model has 'risk', 'score'"),
        (
            ["a", "b"],
            signature(y=(-1, 3)),
            "class_labels has 2 names for output 'y', whose shape is [-1, 3]: expected 3",
        ),
        (
            {"risk": ["a", "b", "c", "d"]},
            TWO,
            "class_labels has 4 names for output 'risk', whose shape is [-1, 3]: expected 3",
        ),
    ],
)
def test_labels_that_are_not_those_of_the_outputs_are_refused(
    labels: list[str] | dict[str, list[str]], of: Signature, reason: str
) -> None:
    with pytest.raises(ModelError) as caught:
        ModelConfig(class_labels=labels).check_labels(of)

    assert caught.value.message == f"model.toml: {reason}"


def test_what_is_no_regular_file_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "model.toml").symlink_to("/dev/zero")

    with pytest.raises(ModelError, match=r"^model\.toml is no regular file$"):
        read_config(tmp_path)
