"""model.toml."""

from pathlib import Path

import numpy as np
import pytest

from app.errors import ModelError
from app.repository.model_config import DEFAULT_TOLERANCE, LaneConfig, ModelConfig, Quantization, read_config
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


def test_an_empty_file_is_no_file(tmp_path: Path) -> None:
    assert read(tmp_path, "") == ModelConfig()


def test_every_key_is_read(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        'description = "reads grüße"\nclass_labels = ["a", "b"]\nquantization = "float16"\ntolerance = 0.25\n'
        "[lane]\ninline_rows = 0\nmerge_rows = 4096\nthreads = 2\n",
    )

    assert config.description == "reads grüße"
    assert config.class_labels == ["a", "b"]
    assert config.quantization == "float16"
    assert config.tolerance == config.allowed_difference == 0.25
    assert config.lane.wishes() == Wishes(inline_rows=0, merge_rows=4096, threads=2)
    assert config.lane.model_fields_set == set(LaneConfig.model_fields)
    assert config.model_fields_set == set(ModelConfig.model_fields)


def test_labels_may_be_given_for_each_output(tmp_path: Path) -> None:
    assert read(tmp_path, '[class_labels]\nrisk = ["low", "high"]').class_labels == {"risk": ["low", "high"]}


@pytest.mark.parametrize("quantization", ["none", "float16", "dynamic"])
def test_the_tolerance_follows_from_the_quantization(tmp_path: Path, quantization: Quantization) -> None:
    config = read(tmp_path, f'quantization = "{quantization}"')

    assert config.allowed_difference == DEFAULT_TOLERANCE[quantization]
    assert DEFAULT_TOLERANCE["none"] < DEFAULT_TOLERANCE["float16"] < DEFAULT_TOLERANCE["dynamic"]


def test_a_whole_number_is_a_tolerance_too(tmp_path: Path) -> None:
    assert read(tmp_path, "tolerance = 1").allowed_difference == 1.0


def test_an_unknown_key_is_refused_with_the_keys_that_there_are(tmp_path: Path) -> None:
    message = refusal(tmp_path, "quantisation = 'dynamic'")

    assert message == (
        "model.toml: quantisation = 'dynamic': Extra inputs are not permitted; the keys are "
        "description, class_labels, quantization, tolerance, lane"
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
        ("quantization = 'int8'", "quantization = 'int8'"),
        ("quantization = 8", "quantization = 8"),
        ("class_labels = 'cat'", "class_labels = 'cat'"),
        ("class_labels = ['cat', 5]", "class_labels = ['cat', 5]"),
        ("class_labels = {risk = 'low'}", "class_labels = {'risk': 'low'}"),
    ],
)
def test_a_value_of_another_type_or_size_is_refused_by_its_key_and_value(tmp_path: Path, text: str, found: str) -> None:
    assert refusal(tmp_path, text).startswith(f"model.toml: {found}: Input should be ")


def test_what_is_allowed_is_in_the_refusal(tmp_path: Path) -> None:
    message = refusal(tmp_path, "quantization = 'int4'\ntolerance = -1")

    assert "quantization = 'int4': Input should be 'none', 'float16' or 'dynamic'; tolerance = -1: " in message
    assert message.endswith("greater than 0")


def test_a_long_value_is_not_repeated_in_full(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, f"quantization = '{'x' * 10_000}'")) < 300


@pytest.mark.parametrize("content", [b"quantization =", b"[", b"\xff\xfe", b"a = 1\na = 2", b"a = " + b"[" * 5000])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.toml").write_bytes(content)

    with pytest.raises(ModelError, match=r"^model\.toml is not TOML: "):
        read_config(tmp_path)


def test_a_file_that_cannot_be_read_is_not_called_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(path: Path, encoding: str) -> str:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "model.toml").touch()
    monkeypatch.setattr(Path, "read_text", read_text)

    with pytest.raises(ModelError, match=r"^model\.toml cannot be read: Permission denied$"):
        read_config(tmp_path)


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
