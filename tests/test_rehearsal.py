from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import ModelError
from app.rehearsal import try_samples
from app.repository.samples import Sample
from app.runtime.interpreter import Runner
from tests import tflite
from tests.servables import contract_of


def opened_with(model: bytes, *samples: Sample, numbers: str = "raw", tolerance: float = 1e-3) -> Any:
    """A model that has been opened, with as much of it as samples need; and what makes its runners."""
    runner = Runner(model)
    signature = runner.signature()
    contract = contract_of(signature, None, runner.stateful())
    config = SimpleNamespace(numbers=numbers, allowed_difference=tolerance, class_labels=[])
    default = SimpleNamespace(signature=signature, contract=contract)
    source = SimpleNamespace(name="m", version=1)
    return SimpleNamespace(source=source, config=config, default=default, samples=list(samples))


def sample(instance: object, prediction: object = None, **more: Any) -> Sample:
    answer = None if prediction is None else {"prediction": prediction}
    return Sample(request={"instance": instance}, answer=answer, **more)


def test_a_sample_that_the_model_does_not_take_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    opened = opened_with(tflite.affine(), *(sample(record) for record in ([1, 2], [1, 2, 3, 4], ["a"] * 4)))

    try_samples(opened, lambda: Runner(tflite.affine()))

    assert [kept.request["instance"] for kept in opened.samples] == [[1, 2, 3, 4]]
    assert "m: samples.json[0] is left out: instance: expected a list of 4 " in caplog.text
    assert "m: samples.json[2] is left out: instance[0]: expected one float32 number" in caplog.text


def test_a_sample_on_which_the_model_fails_is_left_out_too(caplog: pytest.LogCaptureFixture) -> None:
    opened = opened_with(tflite.lookup(), sample([1], [20]), sample([7]))

    try_samples(opened, lambda: Runner(tflite.lookup()))

    assert [kept.request["instance"] for kept in opened.samples] == [[1]]
    assert "m: samples.json[1] is left out: the interpreter failed: gather index out of bounds" in caplog.text


def test_samples_that_are_answered_as_they_say_are_kept() -> None:
    samples = [sample([1, 2, 3, 4], [3, 5, 7, 9]), sample([0, 0, 0, 0], [1.0004, 1, 1, 1]), sample([0, 0, 0, 0])]
    opened = opened_with(tflite.affine(), *samples)

    try_samples(opened, lambda: Runner(tflite.affine()))

    assert opened.samples == samples


@pytest.mark.parametrize(
    ("wanted", "place"), [([3, 5, 7, 9.1], r"prediction\[3\]"), ([3, 5, 7], "prediction has 4 values, and 3 were")]
)
def test_a_sample_that_is_answered_otherwise_refuses_the_model(wanted: list[float], place: str) -> None:
    opened = opened_with(tflite.affine(), sample([0, 0, 0, 0], [1, 1, 1, 1]), sample([1, 2, 3, 4], wanted))

    with pytest.raises(ModelError, match=rf"^samples\.json\[1\] is answered otherwise: {place}"):
        try_samples(opened, lambda: Runner(tflite.affine()))


def test_a_sample_s_own_tolerance_goes_before_the_model_s() -> None:
    loose = opened_with(tflite.affine(), sample([1, 2, 3, 4], [3, 5, 7, 9.1], tolerance=0.1))
    strict = opened_with(tflite.affine(), sample([1, 2, 3, 4], [3, 5, 7, 9.1], tolerance=1e-3), tolerance=0.1)

    try_samples(loose, lambda: Runner(tflite.affine()))
    with pytest.raises(ModelError):
        try_samples(strict, lambda: Runner(tflite.affine()))


def test_samples_of_a_quantized_model_are_in_the_numbers_of_its_model_toml() -> None:
    real = opened_with(tflite.quantized(), sample([0, 0.5, 1, 64], [0, 0.5, 1, 64]), numbers="real")
    raw = opened_with(tflite.quantized(), sample([-1, 0, 1, 127], [-1, 0, 1, 127]))
    for opened in (real, raw):
        try_samples(opened, lambda: Runner(tflite.quantized()))
        assert len(opened.samples) == 1


def test_each_sample_of_a_stateful_model_begins_with_its_first_state() -> None:
    opened = opened_with(tflite.running_sum(), *(sample([1, 1, 1, 1], [1, 1, 1, 1]) for _ in range(3)))

    try_samples(opened, lambda: Runner(tflite.running_sum()))

    assert len(opened.samples) == 3
