"""The models that ship: their folders, their samples, and what TensorFlow says of them.

TensorFlow stays out of the pytest process. Run as a program, this file measures the models with Keras and prints what
it found as JSON; the slow tests run it once and read that.
"""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
FILES = {
    "mlp": MODELS / "mlp.keras",
    "digits": MODELS / "digits" / "digits.keras",
    "diabetes": MODELS / "diabetes" / "diabetes.keras",
}
TRAINED = ("digits", "diabetes")
RISKS = ["low", "medium", "high"]
MLP_KERNELS = [[256, 384], [384, 384], [384, 256], [256, 128], [128, 32]]


def toml(name: str) -> dict[str, Any]:
    return tomllib.loads((MODELS / name / "model.toml").read_text(encoding="utf-8"))


def samples(name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((MODELS / name / "samples.json").read_text(encoding="utf-8"))
    return entries


def training(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((MODELS / name / "training.json").read_text(encoding="utf-8"))
    return facts


def best(scores: list[float]) -> int:
    return scores.index(max(scores))


def significant(number: float) -> float:
    return float(f"{number:.6g}")


# The folders


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_model_is_one_model_file_with_its_settings_samples_and_training_record(name: str) -> None:
    found = sorted(path.name for path in (MODELS / name).iterdir())

    assert found == sorted([f"{name}.keras", "model.toml", "samples.json", "training.json"])


def test_mlp_is_in_its_short_form() -> None:
    assert FILES["mlp"].is_file()
    assert not (MODELS / "mlp").exists()


@pytest.mark.parametrize(("name", "limit"), [("mlp", 1_600_000), ("digits", 300_000), ("diabetes", 100_000)])
def test_a_model_file_is_small(name: str, limit: int) -> None:
    assert FILES[name].stat().st_size < limit


@pytest.mark.parametrize("name", FILES)
def test_a_model_file_holds_no_clock_and_no_memory_address(name: str) -> None:
    with zipfile.ZipFile(FILES[name]) as archive:
        dates = {member.date_time for member in archive.infolist()}
        metadata = json.loads(archive.read("metadata.json"))
        shared = re.findall(rb'"shared_object_id": (\d+)', archive.read("config.json"))

    assert dates == {(1980, 1, 1, 0, 0, 0)}
    assert list(metadata) == ["keras_version"]
    assert all(int(number) < 1000 for number in shared)


@pytest.mark.parametrize("name", FILES)
def test_a_model_file_says_nothing_of_how_it_was_trained(name: str) -> None:
    with zipfile.ZipFile(FILES[name]) as archive:
        config = json.loads(archive.read("config.json"))

    assert config["class_name"] == "Functional"
    assert config["compile_config"] == {}


# Settings


def test_digits_labels_its_ten_scores() -> None:
    settings = toml("digits")

    assert settings.keys() == {"description", "class_labels"}
    assert settings["class_labels"] == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert settings["description"].strip()


def test_diabetes_labels_the_three_scores_of_risk_and_no_other_output() -> None:
    settings = toml("diabetes")

    assert settings.keys() == {"description", "class_labels"}
    assert settings["class_labels"] == {"risk": RISKS}
    assert settings["description"].strip()


# Samples


@pytest.mark.parametrize("name", TRAINED)
def test_a_sample_is_a_request_and_its_answer_in_the_simple_format(name: str) -> None:
    for entry in samples(name):
        assert list(entry) == ["about", "request", "answer"]
        assert list(entry["request"]) == ["instance"]
        assert list(entry["answer"]) == ["prediction"]


def test_digits_has_one_sample_of_each_digit_and_reads_it_right() -> None:
    entries = samples("digits")

    assert [best(entry["answer"]["prediction"]) for entry in entries] == list(range(10))
    for digit, entry in enumerate(entries):
        assert re.fullmatch(rf"held-out image \d+: a {digit}", entry["about"])


def test_digit_samples_are_eight_by_eight_integers_from_0_to_16() -> None:
    for entry in samples("digits"):
        image = entry["request"]["instance"]
        assert [len(row) for row in image] == [8] * 8
        assert all(type(pixel) is int and 0 <= pixel <= 16 for row in image for pixel in row)
        assert max(pixel for row in image for pixel in row) > 1, "raw values, not scaled ones"


def test_a_digit_sample_shows_each_row_of_its_image_on_one_line() -> None:
    text = (MODELS / "digits" / "samples.json").read_text(encoding="utf-8")

    rows = re.findall(r"^ +\[[ \d]\d(?:, [ \d]\d){7}\],?$", text, flags=re.MULTILINE)

    assert len(rows) == 10 * 8


def test_diabetes_samples_name_both_inputs_and_both_outputs() -> None:
    entries = samples("diabetes")

    assert len(entries) == 4
    for entry in entries:
        instance, prediction = entry["request"]["instance"], entry["answer"]["prediction"]
        assert {name: len(values) for name, values in instance.items()} == {"body": 4, "serum": 6}
        assert {name: len(values) for name, values in prediction.items()} == {"progression": 1, "risk": 3}
        assert 25 <= prediction["progression"][0] <= 346


def test_diabetes_samples_say_what_was_measured_and_what_the_model_answers() -> None:
    for entry in samples("diabetes"):
        said = re.fullmatch(
            r"held-out patient \d+: measured progression \d+, risk (?:low|medium|high); the model says (\w+)",
            entry["about"],
        )
        assert said
        assert said[1] == RISKS[best(entry["answer"]["prediction"]["risk"])]


@pytest.mark.parametrize("name", TRAINED)
def test_sample_answers_have_six_significant_digits_and_scores_sum_to_one(name: str) -> None:
    for entry in samples(name):
        prediction = entry["answer"]["prediction"]
        outputs = prediction if isinstance(prediction, dict) else {"scores": prediction}
        for output, values in outputs.items():
            assert values == [significant(value) for value in values]
            if output != "progression":
                assert sum(values) == pytest.approx(1, abs=1e-5)


# Training records


@pytest.mark.parametrize(("name", "records"), [("digits", 1797), ("diabetes", 442)])
def test_a_fifth_of_the_data_was_held_out(name: str, records: int) -> None:
    facts = training(name)

    assert facts["held_out"] + facts["train"] == records
    assert facts["held_out"] == -(-records // 5)
    assert facts["versions"].keys() == {"python", "tensorflow", "keras", "scikit-learn", "numpy"}


def test_digits_reads_98_of_100_held_out_images() -> None:
    assert training("digits")["accuracy"] >= 0.98


# What Keras says: slow, it starts TensorFlow


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    child = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=600, check=False)
    assert child.returncode == 0, child.stderr
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_mlp_has_the_layers_and_the_weights_of_the_benchmark_model(measured: dict[str, Any]) -> None:
    mlp = measured["mlp"]

    assert mlp["kernels"] == MLP_KERNELS
    assert mlp["kernel_weights"] == 380_928
    assert mlp["activations"] == ["elu", "elu", "elu", "elu", "tanh"]


@pytest.mark.slow
def test_mlp_answers_are_spread_out_and_not_saturated(measured: dict[str, Any]) -> None:
    assert 0.2 < measured["mlp"]["spread"] < 0.8
    assert measured["mlp"]["saturated"] < 0.01


@pytest.mark.slow
def test_mlp_is_what_its_script_makes(measured: dict[str, Any]) -> None:
    # Another processor may round the draws otherwise in the last place.
    assert measured["mlp"]["farthest_from_script"] < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("mlp", {"x": [None, 256]}, {"y": [None, 32]}),
        ("digits", {"image": [None, 8, 8]}, {"scores": [None, 10]}),
        (
            "diabetes",
            {"body": [None, 4], "serum": [None, 6]},
            {"progression": [None, 1], "risk": [None, 3]},
        ),
    ],
)
def test_a_model_has_the_named_inputs_and_outputs_that_its_users_rely_on(
    measured: dict[str, Any], name: str, inputs: dict[str, list[int]], outputs: dict[str, list[int]]
) -> None:
    assert measured[name]["inputs"] == inputs
    assert measured[name]["outputs"] == outputs


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_model_file_holds_no_optimizer_state(measured: dict[str, Any], name: str) -> None:
    assert "layers" in measured[name]["groups"]
    assert "optimizer" not in measured[name]["groups"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_the_training_record_counts_the_parameters_of_the_file(measured: dict[str, Any], name: str) -> None:
    assert training(name)["parameters"] == measured[name]["parameters"]


@pytest.mark.slow
def test_the_recorded_accuracy_of_digits_is_that_of_its_file_on_the_held_out_images(measured: dict[str, Any]) -> None:
    assert measured["digits"]["held_out"] == training("digits")["held_out"]
    assert measured["digits"]["accuracy"] == training("digits")["accuracy"]


@pytest.mark.slow
def test_the_recorded_quality_of_diabetes_is_that_of_its_file_on_the_held_out_patients(
    measured: dict[str, Any],
) -> None:
    assert measured["diabetes"]["held_out"] == training("diabetes")["held_out"]
    assert measured["diabetes"]["risk_accuracy"] == training("diabetes")["risk_accuracy"]
    # A sum of floats, so its last digits belong to the processor; counts are exact.
    assert measured["diabetes"]["r2"] == pytest.approx(training("diabetes")["r2"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_samples_are_held_out_records_with_their_true_answers(measured: dict[str, Any], name: str) -> None:
    for entry, true in zip(samples(name), measured[name]["samples"], strict=True):
        assert true["held_out"], entry["about"]
        assert true["instance"] == entry["request"]["instance"], entry["about"]
        assert true["truth"] in entry["about"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "unit"), [("digits", {"scores": 1}), ("diabetes", {"progression": 346, "risk": 1})])
def test_each_sample_answer_is_the_answer_of_keras(measured: dict[str, Any], name: str, unit: dict[str, float]) -> None:
    for entry, true in zip(samples(name), measured[name]["samples"], strict=True):
        prediction = entry["answer"]["prediction"]
        outputs = prediction if isinstance(prediction, dict) else {"scores": prediction}
        assert outputs.keys() == true["prediction"].keys() == unit.keys()
        for output, scale in unit.items():
            assert outputs[output] == pytest.approx(true["prediction"][output], rel=0, abs=1e-5 * scale)


# The program that measures, in a process of its own


def measure() -> dict[str, Any]:
    """What Keras finds in the model files, under their names."""
    import keras

    models = {name: keras.models.load_model(path) for name, path in FILES.items()}
    found = {name: signature(model) | {"groups": groups(FILES[name])} for name, model in models.items()}
    found["mlp"] |= measure_mlp(models["mlp"])
    found["digits"] |= measure_digits(models["digits"])
    found["diabetes"] |= measure_diabetes(models["diabetes"])
    return found


def signature(model: Any) -> dict[str, Any]:
    """Names and shapes of inputs and outputs, and the number of parameters."""
    inputs = {tensor.name: list(tensor.shape) for tensor in model.inputs}
    outputs = {name: list(tensor.shape) for name, tensor in zip(model.output_names, model.outputs, strict=True)}
    if isinstance(model.output, dict):
        outputs = {name: list(tensor.shape) for name, tensor in model.output.items()}
    return {"inputs": inputs, "outputs": outputs, "parameters": model.count_params()}


def groups(path: Path) -> list[str]:
    """The groups of the weights file in a .keras archive."""
    import h5py

    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member, h5py.File(member) as weights:
        return list(weights)


def measure_mlp(model: Any) -> dict[str, Any]:
    """Its layers, its answers to N(0, 1) inputs, and how far its weights are from those that the script makes."""
    import numpy as np

    dense = [layer for layer in model.layers if layer.weights]
    answers = np.asarray(model(np.random.default_rng(1).standard_normal((1000, 256), dtype=np.float32)))
    made = script().build_mlp().get_weights()
    pairs = zip(made, model.get_weights(), strict=True)
    return {
        "kernels": [list(layer.kernel.shape) for layer in dense],
        "kernel_weights": sum(int(np.prod(layer.kernel.shape)) for layer in dense),
        "activations": [layer.activation.__name__ for layer in dense],
        "spread": float(answers.std()),
        "saturated": float((np.abs(answers) > 0.99).mean()),
        "farthest_from_script": max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs),
    }


def script() -> Any:
    """scripts/make_models.py as a module."""
    spec = importlib.util.spec_from_file_location("make_models", ROOT / "scripts" / "make_models.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def held_out(name: str, strata: Any, records: int) -> list[int]:
    """The held-out rows, split again from the recorded seed and not by the script that it is to check."""
    from sklearn.model_selection import train_test_split

    _, rows = train_test_split(range(records), test_size=0.2, stratify=strata, random_state=training(name)["seed"])
    return sorted(rows)


def numbered(entry: dict[str, Any]) -> int:
    """The row of the data set that a sample says it is."""
    return int(re.findall(r"\d+", entry["about"])[0])


def measure_digits(model: Any) -> dict[str, Any]:
    """Accuracy on the held-out images, and for each sample the true record and the answer of Keras."""
    import numpy as np
    from sklearn.datasets import load_digits

    data = load_digits()
    rows = held_out("digits", data.target, len(data.target))
    right = np.asarray(model(data.images[rows])).argmax(axis=1) == data.target[rows]
    true = [
        {
            "held_out": row in rows,
            "instance": data.images[row].tolist(),
            "truth": f"a {data.target[row]}",
            "prediction": {"scores": np.asarray(model(np.array([entry["request"]["instance"]])))[0].tolist()},
        }
        for entry in samples("digits")
        for row in [numbered(entry)]
    ]
    return {"accuracy": float(right.mean()), "held_out": len(rows), "samples": true}


def measure_diabetes(model: Any) -> dict[str, Any]:
    """Quality on the held-out patients, and for each sample the true record and the answer of Keras."""
    import numpy as np
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    records, target = data.data, data.target
    rows = held_out("diabetes", None, len(target))
    low, high = np.quantile(np.delete(target, rows), [1 / 3, 2 / 3])
    risk = np.where(target < low, 0, np.where(target < high, 1, 2))
    answer = model({"body": records[rows, :4], "serum": records[rows, 4:]})
    misses = target[rows] - np.asarray(answer["progression"])[:, 0]
    variance = ((target[rows] - target[rows].mean()) ** 2).sum()
    true = []
    for entry in samples("diabetes"):
        row = numbered(entry)
        alone = model({name: np.array([values]) for name, values in entry["request"]["instance"].items()})
        true.append(
            {
                "held_out": row in rows,
                "instance": {"body": records[row, :4].tolist(), "serum": records[row, 4:].tolist()},
                "truth": f"measured progression {target[row]:g}, risk {RISKS[risk[row]]}",
                "prediction": {name: np.asarray(values)[0].tolist() for name, values in alone.items()},
            }
        )
    return {
        "r2": float(1 - (misses**2).sum() / variance),
        "risk_accuracy": float((np.asarray(answer["risk"]).argmax(axis=1) == risk[rows]).mean()),
        "held_out": len(rows),
        "samples": true,
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
