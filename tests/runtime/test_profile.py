from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from app.errors import ModelError
from app.runtime import profile as profile_module
from app.runtime.interpreter import Runner
from app.runtime.profile import Profile, example_inputs, measure, workable_inputs
from tests import tflite
from tests.signatures import one_in, two_in

Open = Callable[[bytes], Runner]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def make(model: bytes) -> Runner:
        path = tmp_path / "model.tflite"
        path.write_bytes(model)
        return Runner(path)

    return make


@pytest.mark.parametrize(
    ("invoke_us", "limit", "rows"),
    [
        ({1: 301.0}, 300, 0),
        ({1: 300.0}, 300, 1),
        ({1: 100.0}, 300, 3),
        ({1: 10.0}, 0, 0),
        ({1: 17.0, 8: 50.0, 32: 120.0, 256: 900.0}, 300, 80),
        ({1: 17.0, 8: 50.0, 32: 120.0, 256: 900.0}, 120, 32),
        ({1: 17.0, 8: 50.0, 32: 120.0, 256: 900.0}, 1800, 512),
        ({1: 10.0, 8: 40.0, 32: 400.0}, 300, 24),
        ({1: 10.0, 8: 40.0, 32: 9000.0}, 300, 8),
        ({1: 200.0, 8: 250.0, 32: 260.0}, 300, 36),
    ],
)
def test_a_batch_runs_inline_up_to_the_size_whose_cost_is_expected_within_the_limit(
    invoke_us: dict[int, float], limit: float, rows: int
) -> None:
    assert Profile(invoke_us).inline_rows(limit) == rows


@pytest.mark.parametrize("limit", [1, 50, 99, 100, 101, 250, 400, 1000, 5000])
def test_no_batch_is_inline_that_was_measured_to_cost_more_than_the_limit(limit: float) -> None:
    costs = {1: 20.0, 8: 30.0, 32: 100.0, 64: 101.0, 128: 1000.0}
    rows = Profile(costs).inline_rows(limit)

    assert all(measured > rows for measured, cost in costs.items() if cost > limit)
    assert all(measured <= rows for measured, cost in costs.items() if cost <= limit)


def test_sharing_an_invoke_pays_up_to_the_largest_batch_that_is_clearly_cheaper_than_one_each() -> None:
    assert Profile({1: 10.0, 8: 20.0, 32: 300.0}).merge_rows() == 8
    assert Profile({1: 10.0, 8: 80.0}).merge_rows() == 1
    assert Profile({1: 10.0}).merge_rows() == 1


def test_a_batch_is_split_over_no_more_threads_than_its_cost_and_its_rows_are_worth() -> None:
    dear, cheap = Profile({1: 10_000.0, 8: 80_000.0}), Profile({1: 0.1, 8: 0.2})

    assert dear.parts(8, 4) == 4
    assert dear.parts(2, 4) == 2
    assert dear.parts(8, 1) == 1
    assert cheap.parts(8, 4) == 1


def test_example_inputs_are_records_of_the_signature_with_free_sizes_as_wanted() -> None:
    (free,) = example_inputs(one_in(shape=(-1, -1, 3)), 16, 2)
    age, body = example_inputs(two_in(), 16, 5)

    assert free.shape == (2, 16, 3)
    assert (age.shape, age.dtype.name, body.shape, body.dtype.name) == ((5, 1), "int32", (5, 3), "float32")


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (tflite.affine(), (1, 4)),
        (tflite.fixed_one(), (1, 4)),
        (tflite.whole(), (1, 3, 2)),
        (tflite.affine(shape=()), (1,)),
        (tflite.free_inner(), (1, 1, 3)),
        (tflite.picky_inner(16), (1, 16)),
        (tflite.lookup(), (1, 1)),
    ],
)
def test_one_record_is_found_that_the_model_runs_on(opened: Open, model: bytes, shape: tuple[int, ...]) -> None:
    runner = opened(model)

    (example,) = workable_inputs(runner, runner.signature())

    assert example.shape == shape


@pytest.mark.parametrize("model", [tflite.never_runs(), tflite.picky_inner(17), tflite.doubles_rows()])
def test_a_model_that_runs_on_nothing_tried_is_refused_with_the_first_reason(opened: Open, model: bytes) -> None:
    runner = opened(model)

    with pytest.raises(ModelError, match=r"^it does not run: "):
        workable_inputs(runner, runner.signature())


def tick(monkeypatch: pytest.MonkeyPatch, step_ns: int) -> None:
    """Make every look at the clock `step_ns` later than the one before."""
    times = count(0, step_ns)
    monkeypatch.setattr(profile_module, "perf_counter_ns", lambda: next(times))


def test_a_free_batch_is_measured_in_growing_sizes(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    tick(monkeypatch, 20_000)
    runner = opened(tflite.affine())

    profile = measure(runner, runner.signature(), [np.ones((1, 4), np.float32)])

    sizes = list(profile.invoke_us)
    assert sizes[0] == 1
    assert sizes[-1] == 256
    assert sizes == sorted(sizes)
    assert set(profile.invoke_us.values()) == {20.0}


@pytest.mark.parametrize("model", [tflite.fixed_one(), tflite.whole()])
def test_a_model_that_takes_one_record_at_a_time_is_measured_with_one(opened: Open, model: bytes) -> None:
    runner = opened(model)
    signature = runner.signature()

    assert list(measure(runner, signature, example_inputs(signature, 1, 1)).invoke_us) == [1]


def test_a_slow_model_is_not_measured_with_larger_batches(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    tick(monkeypatch, 50_000_000)
    runner = opened(tflite.affine())

    profile = measure(runner, runner.signature(), [np.ones((1, 4), np.float32)])

    assert profile.invoke_us == {1: 50_000.0}
