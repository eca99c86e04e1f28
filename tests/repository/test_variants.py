"""The forms of one model: which are made, judged, chosen and shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from app.errors import ModelError
from app.repository.model_config import ModelConfig
from app.repository.parity import Difference, Parity
from app.repository.trial import Examined, Findings, Question, Trial
from app.repository.variants import ALL, Variants
from app.runtime.contract import BatchClass, Contract
from app.runtime.profile import Profile
from app.tensors import Batching

MERGED = Contract(BatchClass.MERGED, "proven", Batching.FREE)


class Trials:
    """Finds of each file what a test wants, and remembers what it was asked."""

    def __init__(self) -> None:
        self.found: dict[str, Findings | ModelError] = {}
        self.asked: dict[str, Question] = {}

    def of(self, model: Path, question: Question, keep: bool = True) -> Findings:
        assert not keep, "candidates come and go"
        self.asked[model.name] = question
        found = self.found[model.name]
        if isinstance(found, ModelError):
            raise found
        return found


def findings(invoke_us: dict[int, float], *differences: Difference) -> Findings:
    parity = Parity(16, 1.0, {f"y{number}": difference for number, difference in enumerate(differences)})
    examined = Examined("serving_default", MERGED, False, Profile(invoke_us), 1.0, parity, [])
    return Findings([examined], {})


Make = Callable[..., tuple[Variants, Trials]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(**config: Any) -> tuple[Variants, Trials]:
        trials = Trials()
        return Variants(cast("Trial", trials), tmp_path, ModelConfig(**config)), trials

    return make


def offer(folder: Path, variants: Variants, trials: Trials, name: str, found: Findings | ModelError) -> dict[str, Any]:
    file = f"{name}-1.tflite"
    (folder / file).write_bytes(b"1" * len(name))
    trials.found[file] = found
    return variants.judge({"variant": name, "file": file, "rung": "plain", "signatures": [{"name": "s"}]})


NONE = findings({1: 10.0, 8: 40.0, 32: 100.0}, Difference(1e-7, 1e-7, 1.0))
FLOAT16 = findings({1: 12.0, 8: 44.0, 32: 110.0}, Difference(1e-3, 1e-3, 1.0))
DYNAMIC = findings({1: 3.0, 8: 9.0, 32: 40.0}, Difference(0.01, 0.01, 0.99), Difference(0.3, 0.015))
INT8 = findings({1: 1.0, 8: 4.0, 32: 10.0}, Difference(0.5, 0.05, 0.8))


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, ["none"]),
        ({"quantization": "dynamic"}, ["dynamic"]),
        ({"quantization": "auto"}, list(ALL)),
        ({"engine": "tensorflow"}, []),
        ({"engine": "tensorflow", "quantization": "auto"}, []),
    ],
)
def test_what_is_made_is_what_model_toml_wants(make: Make, config: dict[str, Any], wanted: list[str]) -> None:
    assert make(**config)[0].wanted == wanted


def test_a_candidate_is_opened_with_what_serves_it(tmp_path: Path, make: Make) -> None:
    variants, trials = make(quantization="float16", lane={"threads": 3})

    assert offer(tmp_path, variants, trials, "float16", FLOAT16) == {"ok": True}

    assert trials.asked["float16-1.tflite"] == Question(
        threads=3, tolerance=1e-2, quantized=True, reference=tmp_path / "parity.npz", references=[{"name": "s"}]
    )


def test_a_candidate_that_is_refused_is_told_why(tmp_path: Path, make: Make) -> None:
    variants, trials = make()

    reply = offer(tmp_path, variants, trials, "none", ModelError("it crashes"))

    assert reply == {"ok": False, "reason": "it crashes"}
    with pytest.raises(ModelError, match=r"^it crashes$"):
        variants.choose({"none": "it crashes"})


def test_of_several_the_difference_is_measured_and_not_judged_at_once(tmp_path: Path, make: Make) -> None:
    variants, trials = make(quantization="auto")

    offer(tmp_path, variants, trials, "none", NONE)
    offer(tmp_path, variants, trials, "int8", INT8)

    assert trials.asked["int8-1.tflite"].tolerance == float("inf")
    assert trials.asked["none-1.tflite"].tolerance == 0.02, "what is not even right unquantized is wrongly converted"


def auto(folder: Path, make: Make, **config: Any) -> Variants:
    variants, trials = make(quantization="auto", **config)
    for name, found in zip(ALL, (NONE, FLOAT16, DYNAMIC, INT8), strict=True):
        offer(folder, variants, trials, name, found)
    return variants


@pytest.mark.parametrize(
    ("tolerance", "chosen"), [(None, "dynamic"), (0.014, "none"), (0.05, "int8"), (0.049, "dynamic"), (1e-7, "none")]
)
def test_the_fastest_within_the_tolerance_is_chosen(
    tmp_path: Path, make: Make, tolerance: float | None, chosen: str
) -> None:
    assert auto(tmp_path, make, tolerance=tolerance).choose({}).name == chosen


def test_speed_is_that_at_all_sizes_which_all_were_measured_at(tmp_path: Path, make: Make) -> None:
    variants, trials = make(quantization="auto", tolerance=1.0)
    offer(tmp_path, variants, trials, "none", findings({1: 10.0, 8: 20.0, 32: 30.0}, Difference(0, 0)))
    offer(tmp_path, variants, trials, "dynamic", findings({1: 9.0, 8: 80.0, 32: 900.0}, Difference(0, 0)))
    assert variants.choose({}).name == "none"

    offer(tmp_path, variants, trials, "int8", findings({1: 8.0}, Difference(0, 0)))

    assert variants.choose({}).name == "int8"


@pytest.mark.parametrize(("microseconds", "chosen"), [(10.9, "none"), (11.1, "dynamic"), (9.2, "none")])
def test_of_several_about_as_fast_the_closest_is_chosen(
    tmp_path: Path, make: Make, microseconds: float, chosen: str
) -> None:
    variants, trials = make(quantization="auto", tolerance=1.0)
    offer(tmp_path, variants, trials, "none", findings({1: microseconds}, Difference(0, 1e-7)))
    offer(tmp_path, variants, trials, "dynamic", findings({1: 10.0}, Difference(0, 1e-2)))

    assert variants.choose({}).name == chosen


def test_where_none_is_within_the_tolerance_each_is_told_with_its_reason(tmp_path: Path, make: Make) -> None:
    variants, trials = make(quantization="auto", tolerance=1e-9)
    offer(tmp_path, variants, trials, "dynamic", DYNAMIC)

    with pytest.raises(ModelError) as caught:
        variants.choose({"int8": "no calibration data"})

    assert caught.value.message == (
        "int8: no calibration data; dynamic: it differs from TensorFlow by 0.015 of the scale, more than 1e-09"
    )


def test_the_table_has_size_speed_difference_and_agreement_of_each(tmp_path: Path, make: Make) -> None:
    variants = auto(tmp_path, make)

    table = variants.table(variants.choose({}), {"int8": "it was refused"})

    assert list(table) == list(ALL)
    assert table["dynamic"] == {
        "rung": "plain",
        "bytes": 7,
        "invoke_us": {"1": 3.0, "8": 9.0, "32": 40.0},
        "difference": 0.015,
        "top_class": 0.99,
        "served": True,
    }
    assert [name for name, row in table.items() if row["served"]] == ["dynamic"]


def test_one_that_failed_is_in_the_table_with_its_reason(tmp_path: Path, make: Make) -> None:
    variants, trials = make(quantization="auto")
    offer(tmp_path, variants, trials, "none", NONE)

    table = variants.table(variants.choose({}), {"int8": "no calibration data"})

    assert table["int8"] == {"served": False, "error": "no calibration data"}
