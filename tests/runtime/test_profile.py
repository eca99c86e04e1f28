from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import ModelError
from app.runtime import profile as profile_module
from app.runtime.interpreter import Runner
from app.runtime.profile import Profile, example_inputs, measure, workable_inputs
from app.tensors import Array, Batching
from tests import tflite
from tests.examples import many
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


EXTRA = 12.0
"""Microseconds that an invoke is taken to cost beside itself."""


@pytest.mark.parametrize(
    ("invoke_us", "waiting", "helping"),
    [
        ({1: 10.0, 8: 20.0, 32: 300.0}, 8, 8),
        ({1: 10.0, 8: 20.0, 32: 300.0}, 32, 8),
        ({1: 10.0, 8: 20.0, 32: 60.0}, 32, 32),
        ({1: 10.0, 8: 20.0, 32: 60.0}, 20, 20),
        ({1: 10.0, 7: 14.0, 8: 40.0}, 8, 7),
        ({1: 10.0, 7: 14.0, 8: 28.0}, 8, 8),
        ({1: 10.0, 2: 12.0, 4: 100.0}, 3, 2),
        ({1: 10.0, 2: 32.0}, 2, 1),
        ({1: 10.0, 2: 27.5}, 2, 2),
        ({1: 10.0, 2: 27.7}, 2, 1),
    ],
    ids=[
        "all",
        "in eights",
        "all of many",
        "a size between",
        "a tile",
        "no tile",
        "a pair",
        "dearer",
        "pays",
        "hardly",
    ],
)
def test_the_next_invoke_takes_what_makes_all_that_wait_cost_least(
    invoke_us: dict[int, float], waiting: int, helping: int
) -> None:
    assert Profile(invoke_us).helpings()[waiting] == helping


@pytest.mark.parametrize("invoke_us", [{1: 10.0}, {1: 100.0, 8: 800.0}, {1: 1000.0, 2: 1990.0, 4: 3990.0}])
def test_each_takes_an_invoke_of_its_own_where_sharing_one_is_hardly_cheaper(invoke_us: dict[int, float]) -> None:
    assert set(Profile(invoke_us).helpings()[1:]) == {1}


def together(invoke_us: dict[int, float], rows: int) -> float:
    """What one invoke of so many rows is taken to cost."""
    return min((size, cost) for size, cost in invoke_us.items() if size >= rows)[1] + EXTRA


def cuts(rows: int) -> Iterator[tuple[int, ...]]:
    """Every way to cut so many rows into invokes, but for their order."""

    def smaller(left: int, most: int) -> Iterator[tuple[int, ...]]:
        if not left:
            yield ()
        for part in range(min(left, most), 0, -1):
            for rest in smaller(left - part, part):
                yield (part, *rest)

    return smaller(rows, rows)


@st.composite
def growing_costs(draw: st.DrawFn) -> dict[int, float]:
    """Of a profile in which a larger batch never costs less, in whole microseconds, so that sums are exact."""
    sizes = sorted({1, *draw(st.sets(st.integers(2, 12), max_size=6))})
    steps = draw(st.lists(st.integers(0, 60), min_size=len(sizes), max_size=len(sizes)))
    return {size: float(1 + sum(steps[: index + 1])) for index, size in enumerate(sizes)}


@settings(max_examples=many(200))
@given(growing_costs())
@example({1: 10.0, 7: 14.0, 8: 40.0, 12: 60.0})
@example({1: 1.0, 12: 1.0})
def test_no_way_to_cut_what_waits_is_cheaper_than_the_helpings(invoke_us: dict[int, float]) -> None:
    helpings = Profile(invoke_us).helpings()
    best = [min(sum(together(invoke_us, part) for part in cut) for cut in cuts(rows)) for rows in range(len(helpings))]

    assert len(helpings) == max(invoke_us) + 1
    for waiting in range(1, len(helpings)):
        one_each = waiting * together(invoke_us, 1)
        if best[waiting] < 0.9 * one_each:
            cost = together(invoke_us, helpings[waiting]) + best[waiting - helpings[waiting]]
            assert cost == best[waiting], f"{helpings[waiting]} of {waiting}"
        else:
            assert helpings[waiting] == 1


@given(st.dictionaries(st.integers(2, 64), st.floats(0.01, 1e6), max_size=8), st.floats(0.01, 1e6))
def test_helpings_are_of_one_record_at_least_and_of_no_more_than_wait_however_odd_the_measurements(
    others: dict[int, float], one: float
) -> None:
    invoke_us = {1: one, **dict(sorted(others.items()))}
    helpings = Profile(invoke_us).helpings()

    assert helpings[0] == 0
    assert all(1 <= helping <= waiting for waiting, helping in enumerate(helpings) if waiting)


def test_a_batch_is_split_over_no_more_threads_than_its_cost_and_its_rows_are_worth() -> None:
    dear, cheap = Profile({1: 10_000.0, 8: 80_000.0}), Profile({1: 0.1, 8: 0.2})

    assert dear.parts(8, 4) == 4
    assert dear.parts(2, 4) == 2
    assert dear.parts(8, 1) == 1
    assert cheap.parts(8, 4) == 1


@pytest.mark.parametrize(
    "invoke_us", [{1: 1000.0}, {1: 100.0, 8: 400.0}, {1: 10.0, 256: 900.0}, {1: 0.3}, {1: 30.0, 7: 33.0}]
)
def test_a_batch_is_worth_two_threads_from_the_size_on_that_the_profile_names(invoke_us: dict[int, float]) -> None:
    profile = Profile(invoke_us)
    rows = profile.split_rows()

    assert profile.parts(rows, 2) == 2
    assert profile.parts(rows - 1, 2) == 1


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


@pytest.mark.parametrize("model", [tflite.never_runs(), tflite.doubles_rows()])
def test_a_model_that_runs_on_nothing_tried_is_refused_with_the_first_reason(opened: Open, model: bytes) -> None:
    runner = opened(model)

    with pytest.raises(ModelError, match=r"^it does not run: "):
        workable_inputs(runner, runner.signature())


def test_when_no_size_does_the_sizes_and_the_cure_are_told(opened: Open) -> None:
    runner = opened(tflite.picky_inner(17))

    with pytest.raises(ModelError, match=r"^it runs on no size tried .* 1, 8, 16, .*samples\.json .*\(the interpreter"):
        workable_inputs(runner, runner.signature())


class Picky:
    """A runner that takes records of one kind only.

    Attributes:
        asked: the shapes of records, of all inputs, that it was asked to run.
    """

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        self.asked: list[tuple[tuple[int, ...], ...]] = []
        self._shapes = shapes

    def invoke(self, inputs: Sequence[Array]) -> list[Array]:
        self.asked.append(tuple(array.shape[1:] for array in inputs))
        if self.asked[-1] != self._shapes:
            raise ModelError(f"no {self.asked[-1]}")
        return [inputs[0]]


def test_free_dimensions_are_tried_alike_and_then_with_one_of_them_large() -> None:
    signature = one_in(shape=(-1, -1, 3, -1))
    picky = Picky((8, 3, 128))

    (example,) = workable_inputs(cast("Any", picky), signature)

    assert example.shape == (1, 8, 3, 128)
    assert picky.asked[:2] == [((1, 3, 1),), ((8, 3, 8),)]
    assert picky.asked[-4:-2] == [((32, 3, 1),), ((1, 3, 32),)]


def test_a_record_too_large_to_be_only_tried_is_not() -> None:
    picky = Picky()

    with pytest.raises(ModelError, match="it runs on no size tried"):
        workable_inputs(cast("Any", picky), one_in(shape=(-1, -1, -1, 3)))

    assert ((512, 512, 3),) in picky.asked
    assert max(np.prod(shape) for (shape,) in picky.asked) <= 1 << 20


def tick(monkeypatch: pytest.MonkeyPatch, step_ns: int, worked_ns: int | None = None) -> None:
    """Make every look at the clock `step_ns` later than the one before, of which the thread had a processor so long."""
    times, work = count(0, step_ns), count(0, step_ns if worked_ns is None else worked_ns)
    monkeypatch.setattr(profile_module, "perf_counter_ns", lambda: next(times))
    monkeypatch.setattr(profile_module, "thread_time_ns", lambda: next(work))


def test_a_free_batch_is_measured_in_growing_sizes(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    tick(monkeypatch, 20_000)
    runner = opened(tflite.affine())

    profile = measure(runner, Batching.FREE, [np.ones((1, 4), np.float32)])

    assert list(profile.invoke_us) == [*range(1, 17), 32, 64, 128, 256]
    assert set(profile.invoke_us.values()) == {20.0}


@pytest.mark.parametrize(
    ("worked_us", "alone", "cost"),
    [(70, True, 70.0), (79, True, 79.0), (80, True, 100.0), (100, True, 100.0), (70, False, 100.0)],
    ids=["preempted", "just so", "hardly", "never", "while its own threads work"],
)
def test_what_others_take_of_the_processor_is_no_cost_of_a_model_that_has_no_threads_of_its_own(
    opened: Open, monkeypatch: pytest.MonkeyPatch, worked_us: int, alone: bool, cost: float
) -> None:
    tick(monkeypatch, 100_000, worked_us * 1000)
    runner = opened(tflite.fixed_one())

    profile = measure(runner, Batching.ONE, [np.ones((1, 4), np.float32)], alone=alone)

    assert profile.invoke_us == {1: cost}


@pytest.mark.parametrize("model", [tflite.fixed_one(), tflite.whole()])
def test_a_model_that_takes_one_record_at_a_time_is_measured_with_one(opened: Open, model: bytes) -> None:
    runner = opened(model)
    signature = runner.signature()

    assert list(measure(runner, signature.batching, example_inputs(signature, 1, 1)).invoke_us) == [1]


def test_a_slow_model_is_not_measured_with_larger_batches(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    tick(monkeypatch, 50_000_000)
    runner = opened(tflite.affine())

    profile = measure(runner, Batching.FREE, [np.ones((1, 4), np.float32)])

    assert profile.invoke_us == {1: 50_000.0}


@pytest.mark.parametrize(
    ("step_us", "sizes"),
    [
        (399, [*range(1, 17), 32, 64, 128, 256]),
        (405, [*range(1, 15), 16, 32, 64, 128, 256]),
        (1000, [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256]),
    ],
)
def test_sizes_between_are_measured_while_there_is_time(
    opened: Open, monkeypatch: pytest.MonkeyPatch, step_us: int, sizes: list[int]
) -> None:
    tick(monkeypatch, step_us * 1000)
    runner = opened(tflite.affine())

    profile = measure(runner, Batching.FREE, [np.ones((1, 4), np.float32)])

    assert list(profile.invoke_us) == sizes


@pytest.mark.parametrize(
    ("invoke_us", "sizes"),
    [
        ({1: 1200.0, 2: 1250.0, 3: 1250.0, 5: 1250.0, 6: 1250.0, 7: 1300.0}, [1, 2, 3, 5, 6, 7]),
        ({1: 2000.0, 2: 2100.0, 3: 2200.0, 7: 2500.0}, [1, 2, 3, 7]),
        ({1: 9000.0, 2: 9100.0, 7: 9200.0}, [1, 2, 7]),
        ({1: 2000.0, 2: 3599.0, 7: 12601.0}, [1, 2, 7]),
        ({1: 2000.0, 2: 3601.0}, [1, 2]),
        ({1: 10_000.0}, [1]),
    ],
    ids=["cheap tile", "cheap tile of a dear model", "no time between", "to the tile", "not to the tile", "too dear"],
)
def test_a_dear_model_is_measured_with_two_and_with_seven_records_where_that_may_pay(
    opened: Open, monkeypatch: pytest.MonkeyPatch, invoke_us: dict[int, float], sizes: list[int]
) -> None:
    monkeypatch.setattr(profile_module, "_time", lambda runner, how, example, rows, *_: invoke_us[rows])
    runner = opened(tflite.affine())

    profile = measure(runner, Batching.FREE, [np.ones((1, 4), np.float32)])

    assert list(profile.invoke_us.items()) == [(size, invoke_us[size]) for size in sizes]


def test_a_dear_model_that_takes_one_record_at_a_time_is_measured_with_one(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_module, "_time", lambda runner, how, example, rows, *_: {1: 2000.0}[rows])
    runner = opened(tflite.fixed_one())

    assert measure(runner, Batching.ONE, [np.ones((1, 4), np.float32)]).invoke_us == {1: 2000.0}


def test_no_size_between_is_measured_above_the_largest(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    tick(monkeypatch, 100_000)
    monkeypatch.setattr(profile_module, "_BATCHES", (1, 2, 4, 8))
    runner = opened(tflite.affine())

    profile = measure(runner, Batching.FREE, [np.ones((1, 4), np.float32)])

    assert list(profile.invoke_us) == [1, 2, 3, 4, 5, 6, 7, 8]
