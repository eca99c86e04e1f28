import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import DeadlineExceeded, Internal, InvalidArgument, QueueFull
from app.runtime.interpreter import Model, Runner
from app.runtime.job import Abandoned, Step
from app.runtime.plan import Wishes
from app.runtime.pool import Pool
from app.runtime.servable import Servable
from app.tensors import Array
from tests import tflite
from tests.loops import PATIENCE, Loop
from tests.servables import SHARING_PAYS, Recorded, make_servable, make_servables, rows

Make = Callable[..., Servable]


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(1)
    yield pool
    pool.close()


@pytest.fixture
def make(tmp_path: Path, loop: Loop, pool: Pool) -> Make:
    def made(model: bytes, **options: Any) -> Servable:
        return make_servable(tmp_path, model, loop, pool, **options)

    return made


class Held(Recorded):
    """A job that holds the pool's thread until it is let go, so that others wait."""

    def __init__(self, given: Array) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        super().__init__(given, decoded=False, prepare=self.hold)

    def hold(self) -> None:
        self.entered.set()
        assert self.opened.wait(PATIENCE)


def hold(servable: Servable, given: Array | None = None) -> Held:
    held = Held(rows(0) if given is None else given)
    servable.submit(held, inline=False)
    assert held.entered.wait(PATIENCE)
    return held


def finish_all(loop: Loop, *jobs: Recorded) -> None:
    loop.run_until(lambda: all(job.done for job in jobs))


# Lanes


def test_a_cheap_call_runs_on_the_loop_s_own_thread(make: Make, loop: Loop) -> None:
    job = Recorded(rows(1))

    make(tflite.affine()).submit(job)
    loop.settle()

    assert job.answer == [[3] * 4]
    assert job.ran_on == ["MainThread"]
    assert job.queue_ns == 0
    assert job.invoke_ns > 0


def test_a_dear_model_runs_on_a_pool_thread_and_ends_on_the_loop(make: Make, loop: Loop) -> None:
    job = Recorded(rows(1))

    make(tflite.affine(), invoke_us={1: 301.0}).submit(job)
    finish_all(loop, job)

    assert job.answer == [[3] * 4]
    assert job.ran_on == ["pool-0"]
    assert job.queue_ns > 0


def test_a_batch_too_large_for_the_loop_runs_on_a_pool_thread(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine(), invoke_us={1: 100.0})
    small, large = Recorded(rows(1, 2, 3)), Recorded(rows(1, 2, 3, 4))

    servable.submit(small)
    servable.submit(large)
    finish_all(loop, small, large)

    assert servable.plan.inline_rows == 3
    assert small.ran_on == ["MainThread"]
    assert large.ran_on == ["pool-0"]
    assert large.answer == [[3] * 4, [5] * 4, [7] * 4, [9] * 4]


def test_nothing_runs_on_the_loop_when_that_is_turned_off(make: Make, loop: Loop) -> None:
    job = Recorded(rows(1))

    make(tflite.affine(), inline_us=0.0).submit(job)
    finish_all(loop, job)

    assert job.ran_on == ["pool-0"]


def test_a_call_kept_off_the_loop_is_decoded_off_it_too(make: Make, loop: Loop) -> None:
    job = Recorded(rows(1), decoded=False)

    make(tflite.affine()).submit(job, inline=False)
    finish_all(loop, job)

    assert job.prepared_on == job.ran_on == ["pool-0"]
    assert job.answer == [[3] * 4]


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        (tflite.fixed_one(), rows(1, 2), [[3] * 4, [5] * 4]),
        (tflite.whole(), np.ones((2, 3, 2), np.float32), [[[3, 3]] * 3] * 2),
        (tflite.scalar_records(), np.array([1, 2], np.float32), [3, 5]),
        (tflite.free_inner(), np.ones((2, 5, 3), np.float32), [[[3] * 3] * 5] * 2),
        (tflite.maximum_over_batch(), rows(1, 5), [[-4] * 4, [0] * 4]),
    ],
)
def test_a_client_s_own_batch_is_run_as_the_model_holds_it(
    make: Make, loop: Loop, model: bytes, given: Array, expected: object
) -> None:
    job = Recorded(given)

    make(model).submit(job)
    loop.settle()

    assert job.answer == expected


# Waiting


def test_the_queue_is_bounded_and_says_when_to_come_back(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine(), queue_size=3)
    held = hold(servable)
    waiting = [Recorded(rows(number), decoded=False) for number in range(3)]
    for job in waiting:
        servable.submit(job, inline=False)
    refused = Recorded(rows(9))

    with pytest.raises(QueueFull, match=r"3 requests wait for model 'm' already") as full:
        servable.submit(refused, inline=False)
    held.opened.set()
    finish_all(loop, held, *waiting)

    assert full.value.retry_after == 1
    assert [job.answer for job in waiting] == [[[2 * number + 1] * 4] for number in range(3)]
    assert not refused.done


def test_there_is_room_again_once_the_queue_has_moved(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine(), queue_size=1)
    for value in (1.0, 2.0):
        held, job = hold(servable), Recorded(rows(value), decoded=False)
        servable.submit(job, inline=False)
        held.opened.set()
        finish_all(loop, held, job)
        assert job.answer == [[2 * value + 1] * 4]


def test_a_call_that_nobody_waits_for_any_more_is_not_run(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine())
    held = hold(servable)
    gone, next_one = Recorded(rows(1), decoded=False), Recorded(rows(2), decoded=False)
    servable.submit(gone, inline=False)
    servable.submit(next_one, inline=False)

    gone.abandoned = True
    held.opened.set()
    finish_all(loop, held, gone, next_one)

    assert isinstance(gone.error, Abandoned)
    assert gone.prepared_on == []
    assert gone.outputs == []
    assert next_one.answer == [[5] * 4]


def test_a_call_that_waited_past_its_deadline_is_not_run(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine())
    held = hold(servable)
    late, next_one = Recorded(rows(1), decoded=False), Recorded(rows(2), decoded=False)
    late.deadline = 0
    servable.submit(late, inline=False)
    servable.submit(next_one, inline=False)

    held.opened.set()
    finish_all(loop, held, late, next_one)

    assert isinstance(late.error, DeadlineExceeded)
    assert late.prepared_on == []
    assert next_one.answer == [[5] * 4]


# Faults


@pytest.mark.parametrize("inline", [True, False])
def test_a_fault_in_one_call_is_logged_and_its_caller_is_told_no_more_than_where(
    make: Make, loop: Loop, caplog: pytest.LogCaptureFixture, inline: bool
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a secret")

    servable = make(tflite.affine())
    jobs = [Recorded(rows(1)), Recorded(rows(2), decoded=False, prepare=fail), Recorded(rows(3))]
    with caplog.at_level(logging.ERROR):
        for job in jobs:
            servable.submit(job, inline)
        finish_all(loop, *jobs) if not inline else loop.settle()

    error = jobs[1].error
    assert isinstance(error, Internal)
    assert "a secret" not in error.message
    (record,) = caplog.records
    assert record.args is not None
    assert str(next(iter(record.args))) in error.message
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert [jobs[0].answer, jobs[2].answer] == [[[3] * 4], [[7] * 4]]


@pytest.mark.parametrize("mixing", [None, "it mixes rows"])
@pytest.mark.parametrize("inline", [True, False])
def test_an_input_that_makes_the_interpreter_fail_harms_no_other_call(
    make: Make, loop: Loop, mixing: str | None, inline: bool
) -> None:
    servable = make(tflite.lookup((10.0, 20.0, 30.0)), mixing=mixing, invoke_us=SHARING_PAYS)
    held = None if inline else hold(servable, rows(0, width=1, dtype="int32"))
    jobs = [Recorded(rows(index, width=1, dtype="int32")) for index in (0, 7, 2, 1)]
    for job in jobs:
        servable.submit(job, inline)
    if held is not None:
        held.opened.set()
        finish_all(loop, held, *jobs)
    loop.settle()

    assert [jobs[number].answer for number in (0, 2, 3)] == [[[10]], [[30]], [[20]]]
    assert isinstance(jobs[1].error, InvalidArgument)
    assert jobs[1].error.message.startswith("model 'm' does not run on these shapes and values: ")
    assert jobs[1].error.message.count("gather index out of bounds") == 1


def test_shapes_that_a_free_model_does_not_run_on_are_the_caller_s_fault(make: Make, loop: Loop) -> None:
    servable = make(tflite.picky_inner(16))
    bad, good = Recorded(rows(1, width=5)), Recorded(rows(1, width=16))

    servable.submit(bad)
    servable.submit(good)
    loop.settle()

    assert isinstance(bad.error, InvalidArgument)
    assert "model 'm' does not run on these shapes and values: " in bad.error.message
    assert good.answer == [[16]]


def test_a_model_that_answers_another_number_of_rows_is_at_fault(make: Make, loop: Loop) -> None:
    job = Recorded(rows(1))

    make(tflite.doubles_rows()).submit(job)
    loop.settle()

    assert isinstance(job.error, Internal)
    assert job.outputs == []


def test_a_fault_in_taking_the_outputs_is_that_call_s_own(make: Make, loop: Loop) -> None:
    class Unwilling(Recorded):
        def accept(self, outputs: object) -> None:
            raise InvalidArgument("no form for this")

    servable = make(tflite.affine(), mixing=None, invoke_us=SHARING_PAYS)
    bad, good = Unwilling(rows(1)), Recorded(rows(2))
    servable.submit(bad)
    servable.submit(good)
    loop.settle()

    assert str(bad.error) == "no form for this"
    assert good.answer == [[5] * 4]


# Sharing an invoke


class CountedRunner:
    """Counts the rows of each invoke of a servable's inline interpreter."""

    def __init__(self, servable: Servable, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        original = type(servable._inline).invoke

        def counted(runner: object, inputs: list[Array]) -> object:
            self.rows.append(len(inputs[0]))
            return original(runner, inputs)  # type: ignore[arg-type]

        monkeypatch.setattr(type(servable._inline), "invoke", counted)


def test_calls_of_one_turn_of_the_loop_share_an_invoke_and_each_gets_its_own_rows(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us=SHARING_PAYS)
    counted = CountedRunner(servable, monkeypatch)
    jobs = [Recorded(rows(1)), Recorded(rows(2, 3)), Recorded(rows(4))]
    for job in jobs:
        servable.submit(job)
    loop.settle()

    assert counted.rows == [4]
    assert [job.batch for job in jobs] == [4, -4, -4]
    assert [job.answer for job in jobs] == [[[3] * 4], [[5] * 4, [7] * 4], [[9] * 4]]


SEVENS = {1: 10.0, 7: 14.0, 8: 40.0, 16: 100.0}
"""An invoke of 7 is cheap and one of 8 is not, as with kernels that work in tiles of 7 rows."""


@pytest.mark.parametrize(
    ("waiting", "invokes"), [(1, [1]), (7, [7]), (8, [7, 1]), (9, [7, 2]), (14, [7, 7]), (16, [7, 7, 2])]
)
def test_the_calls_of_one_turn_are_cut_as_the_profile_says_is_cheapest(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch, waiting: int, invokes: list[int]
) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us=SEVENS)
    counted = CountedRunner(servable, monkeypatch)
    jobs = [Recorded(rows(number)) for number in range(waiting)]
    for job in jobs:
        servable.submit(job)
    loop.settle()

    assert counted.rows == invokes
    assert [job.answer for job in jobs] == [[[2 * number + 1] * 4] for number in range(waiting)]


def test_several_calls_wait_one_more_turn_for_what_came_while_they_were_decoded(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us=SEVENS)
    counted = CountedRunner(servable, monkeypatch)
    jobs = [Recorded(rows(number)) for number in range(3)]
    for job in jobs[:2]:
        servable.submit(job)
    loop.turn()
    servable.submit(jobs[2])
    loop.turn()
    assert counted.rows == [], "the third came in the second turn, so that there is a third"

    loop.turn()

    assert counted.rows == [3]
    assert all(job.done for job in jobs)


def test_a_call_alone_waits_for_no_other_unless_the_last_was_not_alone(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us=SEVENS)

    def turns(*jobs: Recorded) -> int:
        """After how many turns of the loop these are answered."""
        for job in jobs:
            servable.submit(job)
        count = 0
        while not all(job.done for job in jobs):
            loop.turn()
            count += 1
        return count

    def lone() -> Recorded:
        return Recorded(rows(1))

    assert [turns(lone()), turns(lone())] == [1, 1]
    assert turns(lone(), lone()) == 2
    assert [turns(lone()), turns(lone())] == [2, 1]


def test_as_many_calls_as_may_run_on_the_loop_do_not_wait_for_more(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us={1: 10.0, 4: 20.0})
    jobs = [Recorded(rows(number)) for number in range(4)]
    for job in jobs:
        servable.submit(job)

    loop.turn()

    assert all(job.done for job in jobs)


def test_a_call_that_does_not_fit_into_what_an_invoke_takes_begins_the_next(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us=SEVENS)
    counted = CountedRunner(servable, monkeypatch)
    jobs = [Recorded(rows(*range(size))) for size in (3, 3, 3, 9, 1)]
    for job in jobs:
        servable.submit(job)
    loop.settle()

    assert counted.rows == [6, 3, 9, 1]
    assert [len(job.answer) for job in jobs] == [3, 3, 3, 9, 1]


@pytest.mark.parametrize(
    ("wishes", "invokes"),
    [
        (Wishes(merge_rows=1), [1] * 5),
        (Wishes(merge_rows=2), [2, 2, 1]),
        (Wishes(merge_rows=3), [3, 2]),
        (Wishes(merge_rows=64), [5]),
        (Wishes(inline_rows=4), [4, 1]),
        (Wishes(inline_rows=4, merge_rows=64), [4, 1]),
    ],
)
def test_an_invoke_takes_no_more_records_than_its_owner_wants(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch, wishes: Wishes, invokes: list[int]
) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us={1: 10.0, 64: 20.0}, wishes=wishes)
    counted = CountedRunner(servable, monkeypatch)
    jobs = [Recorded(rows(number)) for number in range(5)]
    for job in jobs:
        servable.submit(job)
    loop.settle()

    assert counted.rows == invokes
    assert [job.answer for job in jobs] == [[[2 * number + 1] * 4] for number in range(5)]
    assert {job.ran_on[0] for job in jobs} == {"MainThread"}


@pytest.mark.parametrize(("wanted", "invokes"), [(None, [1, 7, 1]), (3, [1, 3, 3, 2])])
def test_calls_that_waited_for_a_thread_are_cut_like_those_of_a_turn(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch, wanted: int | None, invokes: list[int]
) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us=SEVENS, wishes=Wishes(inline_rows=0, merge_rows=wanted))
    counted = CountedRunner(servable, monkeypatch)
    held = hold(servable)
    jobs = [Recorded(rows(number)) for number in range(8)]
    for job in jobs:
        servable.submit(job)
    held.opened.set()
    finish_all(loop, held, *jobs)

    assert counted.rows == invokes
    assert [job.answer for job in jobs] == [[[2 * number + 1] * 4] for number in range(8)]
    assert {job.ran_on[0] for job in jobs} == {"pool-0"}


def test_a_batch_of_as_many_records_as_the_owner_wants_inline_runs_there_and_one_more_does_not(
    make: Make, loop: Loop
) -> None:
    servable = make(tflite.affine(), invoke_us={1: 10_000.0}, wishes=Wishes(inline_rows=2))
    small, large = Recorded(rows(1, 2)), Recorded(rows(1, 2, 3))
    for job in (small, large):
        servable.submit(job)
    finish_all(loop, small, large)

    assert (small.ran_on, large.ran_on) == (["MainThread"], ["pool-0"])
    assert [small.answer, large.answer] == [[[3] * 4, [5] * 4], [[3] * 4, [5] * 4, [7] * 4]]


def test_every_interpreter_has_the_threads_that_the_plan_says(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    original = Runner.__init__

    def counted(runner: Runner, model: Model, threads: int = 1) -> None:
        made.append(threads)
        original(runner, model, threads)

    servable = make(tflite.running_sum(), wishes=Wishes(threads=3))
    monkeypatch.setattr(Runner, "__init__", counted)
    job = Recorded(rows(1))
    servable.submit(job)
    finish_all(loop, job)

    assert job.answer == [[1] * 4]
    assert made == [3]


def test_calls_never_share_an_invoke_of_a_model_that_mixes_rows(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    servable = make(tflite.maximum_over_batch(), mixing="it mixes rows", invoke_us=SHARING_PAYS)
    counted = CountedRunner(servable, monkeypatch)
    jobs = [Recorded(rows(1)), Recorded(rows(100))]
    for job in jobs:
        servable.submit(job)
    loop.settle()

    assert counted.rows == [1, 1]
    assert [job.answer for job in jobs] == [[[0] * 4], [[0] * 4]]


def test_calls_of_different_free_dimensions_share_no_invoke(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    servable = make(tflite.free_inner(), mixing=None, invoke_us=SHARING_PAYS)
    counted = CountedRunner(servable, monkeypatch)
    jobs = [Recorded(np.full((1, size, 3), size, np.float32)) for size in (2, 2, 5)]
    for job in jobs:
        servable.submit(job)
    loop.settle()

    assert counted.rows == [2, 1]
    assert [job.answer for job in jobs] == [[[[2 * size + 1] * 3] * size] for size in (2, 2, 5)]


def test_a_call_abandoned_among_those_that_share_an_invoke_leaves_the_others_theirs(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us=SHARING_PAYS)
    jobs = [Recorded(rows(number)) for number in (1, 2, 3)]
    for job in jobs:
        servable.submit(job)
    jobs[1].abandoned = True
    loop.settle()

    assert [jobs[0].answer, jobs[2].answer] == [[[3] * 4], [[7] * 4]]
    assert isinstance(jobs[1].error, Abandoned)
    assert jobs[1].outputs == []


def test_calls_that_waited_for_the_same_thread_each_get_their_own_answer(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us=SHARING_PAYS, queue_size=64)
    held = hold(servable)
    jobs = [Recorded(rows(*range(number, number + 1 + number % 3))) for number in range(40)]
    for job in jobs:
        servable.submit(job, inline=False)
    held.opened.set()
    finish_all(loop, held, *jobs)

    for number, job in enumerate(jobs):
        assert job.answer == [[2 * value + 1] * 4 for value in range(number, number + 1 + number % 3)]


# State


def test_each_record_of_a_stateful_model_begins_with_the_model_s_first_state(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum(), mixing=None, invoke_us={1: 1.0})
    jobs = [Recorded(rows(1)), Recorded(rows(1)), Recorded(rows(1, 1))]
    for job in jobs:
        servable.submit(job)
    finish_all(loop, *jobs)

    assert servable.plan.stateful
    assert servable.plan.inline_rows == 0
    assert [job.answer for job in jobs] == [[[1] * 4], [[1] * 4], [[1] * 4, [1] * 4]]


# Several signatures


def test_all_signatures_of_a_model_are_served_by_the_same_interpreters(
    tmp_path: Path, loop: Loop, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Model] = []
    original = Runner.__init__

    def counted(runner: Runner, model: Model, threads: int = 1) -> None:
        made.append(model)
        original(runner, model, threads)

    monkeypatch.setattr(Runner, "__init__", counted)
    servables = make_servables(tmp_path, tflite.two_signatures(), loop, pool)
    affine, add = servables["serving_default"], servables["add"]
    for inline in (True, False, True):
        for value in (1, 2):
            one, two = Recorded(rows(value)), Recorded(rows(value, value, width=2), rows(10, 20, width=2))
            for servable, job in ((add, two), (affine, one)):
                servable.submit(job, inline)
            finish_all(loop, one, two)
            assert one.answer == [[2 * value + 1] * 4]
            assert two.answer == [[value + 10] * 2, [value + 20] * 2]
            assert {one.ran_on[0], two.ran_on[0]} == {"MainThread" if inline else "pool-0"}

    assert len(made) == 2, "one for the loop, and one for the pool's thread"


def test_an_output_that_is_not_as_the_model_declares_it_is_the_model_s_fault(
    make: Make, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [Recorded(rows(1)), Recorded(rows(1, 2))]
    servable = make(tflite.misfit())
    for inline, job in zip((True, False), jobs, strict=True):
        servable.submit(job, inline)
        finish_all(loop, job)

    assert all(isinstance(job.error, Internal) for job in jobs)
    assert [job.outputs for job in jobs] == [[], []]
    assert "output 'y': the model declares shape [-1, 4] and gave [2, 1]" in caplog.text


# Leaving the memory. The server's collector does not look at what was there at its start, and so circles are bugs.


@pytest.fixture
def uncollected() -> Iterator[None]:
    # What pytest keeps of the log has the errors in it.
    logging.disable()
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


def _answered(loop: Loop, servable: Servable) -> None:
    jobs = [Recorded(rows(1)), Recorded(rows(2)), Recorded(rows(1, 2, 3), decoded=False)]
    for number, job in enumerate(jobs):
        servable.submit(job, inline=number < 2)
    finish_all(loop, *jobs)


def _refused(loop: Loop, servable: Servable) -> None:
    jobs = [Recorded(rows(1), decoded=False, prepare=_refuse) for _ in range(3)]
    for number, job in enumerate(jobs):
        servable.submit(job, inline=number < 1)
    finish_all(loop, *jobs)


def _at_fault(loop: Loop, servable: Servable) -> None:
    jobs = [Recorded(rows(1, width=3)) for _ in range(4)]
    for number, job in enumerate(jobs):
        servable.submit(job, inline=number < 2)
    finish_all(loop, *jobs)


def _late(loop: Loop, servable: Servable) -> None:
    held, late = hold(servable), Recorded(rows(1))
    late.deadline = 1
    servable.submit(late, inline=False)
    servable.expire()
    held.opened.set()
    finish_all(loop, held, late)


def _in_sequence(loop: Loop, servable: Servable) -> None:
    jobs = [Recorded(rows(1), step=Step("a", start=True)), Recorded(rows(1, width=3), step=Step("a"))]
    for job in jobs:
        servable.submit(job)
    finish_all(loop, *jobs)


@pytest.mark.parametrize(
    ("model", "options", "use"),
    [
        (tflite.affine(), {}, _answered),
        (tflite.affine(), {"mixing": None, "invoke_us": SHARING_PAYS}, _answered),
        (tflite.affine(), {"mixing": None, "invoke_us": {1: 1000.0, 8: 4000.0}}, _answered),
        (tflite.affine(), {}, _refused),
        (tflite.affine(), {"mixing": None, "invoke_us": SHARING_PAYS}, _refused),
        (tflite.two_in_two_out(), {}, _at_fault),
        (tflite.two_in_two_out(), {"mixing": None, "invoke_us": {1: 1000.0, 8: 4000.0}}, _at_fault),
        (tflite.misfit(), {}, _at_fault),
        (tflite.affine(), {}, _late),
        (tflite.running_sum(), {}, _answered),
        (tflite.running_sum(), {}, _in_sequence),
        (tflite.running_sum(), {}, _late),
    ],
)
@pytest.mark.usefixtures("uncollected")
def test_a_servable_leaves_the_memory_with_the_last_reference_to_it(
    make: Make, loop: Loop, model: bytes, options: dict[str, Any], use: Callable[[Loop, Servable], None]
) -> None:
    servable = make(model, **options)
    use(loop, servable)
    loop.settle()
    left: list[Any] = [weakref.ref(servable), weakref.ref(servable._runners), weakref.ref(servable._runners.inline())]

    del servable
    gone_from_threads(loop, left)

    assert [reference() for reference in left] == [None] * 3


def gone_from_threads(loop: Loop, left: list[Any]) -> None:
    """Wait a little for threads that have handed over their last result, and have not yet let go of what made it."""
    for _ in range(1000):
        loop.settle()
        if not any(reference() for reference in left):
            return
        threading.Event().wait(0.001)


def test_a_servable_stays_for_as_long_as_a_call_waits(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine())
    reference = weakref.ref(servable)
    held, waiting = hold(servable), Recorded(rows(1))
    servable.submit(waiting, inline=False)
    del servable

    assert reference() is not None
    held.opened.set()
    finish_all(loop, held, waiting)
    gone_from_threads(loop, [reference])

    assert waiting.answer == [[3] * 4]
    assert reference() is None


# Large batches, in parts


@pytest.fixture
def wide(tmp_path: Path, loop: Loop) -> Iterator[Make]:
    pool = Pool(3)
    while pool.idle < pool.size:
        threading.Event().wait(0)

    def made(model: bytes, **options: Any) -> Servable:
        return make_servable(tmp_path, model, loop, pool, mixing=None, **options)

    yield made
    pool.close()


DEAR = {1: 1000.0, 8: 4000.0}


@pytest.mark.parametrize("decoded", [True, False])
def test_a_large_batch_keeps_the_order_of_its_rows_on_however_many_threads_it_runs(
    wide: Make, loop: Loop, decoded: bool
) -> None:
    servable = wide(tflite.affine(), invoke_us=DEAR)
    for size in (1, 2, 7, 64, 257):
        job = Recorded(rows(*range(size)), decoded=decoded)
        servable.submit(job, inline=decoded)
        finish_all(loop, job)
        assert job.answer == [[2 * value + 1] * 4 for value in range(size)]


def test_a_large_batch_with_one_bad_row_fails_once_and_the_next_call_is_answered(wide: Make, loop: Loop) -> None:
    servable = wide(tflite.lookup((10.0, 20.0)), invoke_us=DEAR)
    bad, good = (Recorded(rows(*values, width=1, dtype="int32")) for values in ([0, 1] * 20 + [7], [0, 1] * 20))
    for job in (bad, good):
        servable.submit(job)
        finish_all(loop, job)

    assert isinstance(bad.error, InvalidArgument)
    assert good.answer == [[10], [20]] * 20


def test_a_large_batch_that_nobody_waits_for_is_not_run(wide: Make, loop: Loop) -> None:
    job = Recorded(rows(*range(64)), decoded=False)
    job.abandoned = True

    wide(tflite.affine(), invoke_us=DEAR).submit(job, inline=False)
    finish_all(loop, job)

    assert isinstance(job.error, Abandoned)
    assert job.prepared_on == []


def test_a_call_that_waits_too_long_is_answered_then_and_not_when_its_turn_comes(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine())
    held = hold(servable, rows(0))
    late, patient = Recorded(rows(1)), Recorded(rows(2))
    late.deadline = 1
    for job in (late, patient):
        servable.submit(job, inline=False)
    _, (_, look) = loop.timers

    look()

    assert isinstance(late.error, DeadlineExceeded)
    assert patient.ends == []
    assert len(loop.timers) == 3, "the one that still waits is watched"
    held.opened.set()
    finish_all(loop, held, patient)
    assert late.ends == [late.error], "it is answered once"


def test_a_graph_whose_cost_depends_on_its_values_never_runs_on_the_loop(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make(tflite.affine()).plan.inline_rows > 0
    monkeypatch.setattr("app.runtime.interpreter._CONTROL_OPS", frozenset({"MUL"}))
    assert make(tflite.affine()).plan.inline_rows == 0


def test_a_large_batch_of_independent_rows_is_run_in_helpings_and_answered_as_one(make: Make, loop: Loop) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us={1: 10.0, 32: 32.0, 64: 64.0})
    assert servable.plan.most_rows == 32
    job = Recorded(rows(*range(100)))

    servable.submit(job)
    loop.settle()

    assert job.answer == [[2 * value + 1] * 4 for value in range(100)]


def test_rows_that_mix_stay_in_one_invoke_however_many_they_are(make: Make, loop: Loop) -> None:
    servable = make(tflite.maximum_over_batch(), invoke_us={1: 10.0, 32: 32.0, 64: 64.0})
    job = Recorded(rows(*range(100)))

    servable.submit(job)
    loop.settle()

    assert servable.plan.most_rows > 100
    assert job.outputs[0].max() == 0.0, "each row less the largest of all, which is in the same invoke"


def test_a_turn_is_not_put_off_for_ever_by_requests_that_keep_coming(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us=SEVENS)
    jobs = [Recorded(rows(number)) for number in range(14)]
    for job in jobs[:2]:
        servable.submit(job)
    turns = 0
    while not jobs[0].done:
        turns += 1
        loop.turn()
        servable.submit(jobs[turns + 1])

    assert turns == 5


@pytest.mark.parametrize("given", [[1, 1, 1], [2, 1, 3]])
def test_calls_that_wait_for_a_thread_and_are_still_to_be_decoded_share_an_invoke(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch, given: list[int]
) -> None:
    servable = make(tflite.affine(), mixing=None, invoke_us=SEVENS)
    held = hold(servable)
    counted = CountedRunner(servable, monkeypatch)
    jobs = [Recorded(rows(*range(count)), decoded=False) for count in given]
    refused = Recorded(rows(0), decoded=False, prepare=_refuse)
    for job in (*jobs, refused):
        servable.submit(job, inline=False)
    held.opened.set()
    finish_all(loop, held, *jobs, refused)

    assert counted.rows == [1, sum(given)]
    assert [job.answer for job in jobs] == [[[2 * number + 1] * 4 for number in range(count)] for count in given]
    assert isinstance(refused.error, InvalidArgument)


def _refuse() -> None:
    raise InvalidArgument("this one is bad")
