"""Sequences: each client's requests run in order on a state of their own, which nobody else sees and which ends."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import DeadlineExceeded, Internal, InvalidArgument, ModelError, QueueFull, Unavailable
from app.runtime.job import Abandoned, Step
from app.runtime.pool import Pool
from app.runtime.runners import Runners
from app.runtime.sequences import Sequences
from app.runtime.servable import Servable
from tests import tflite
from tests.loops import PATIENCE, Loop
from tests.servables import Recorded, make_servable, make_servables, rows

Make = Callable[..., Servable]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.close()


@pytest.fixture
def make(tmp_path: Path, loop: Loop, pool: Pool, clock: Clock) -> Make:
    def made(model: bytes, **options: Any) -> Servable:
        return make_servable(tmp_path, model, loop, pool, now=clock, **options)

    return made


def start(value: float, name: str = "a", **options: Any) -> Recorded:
    return Recorded(rows(value), step=Step(name, start=True), **options)


def more(value: float, name: str = "a", **options: Any) -> Recorded:
    return Recorded(rows(value), step=Step(name), **options)


def last(value: float, name: str = "a") -> Recorded:
    return Recorded(rows(value), step=Step(name, end=True))


def both(value: float, name: str = "a") -> Recorded:
    return Recorded(rows(value), step=Step(name, start=True, end=True))


def run(servable: Servable, loop: Loop, *jobs: Recorded) -> list[object]:
    """Submit them all at once and wait for them; of each the sum so far, in the order given."""
    for job in jobs:
        servable.submit(job)
    loop.run_until(lambda: all(job.done for job in jobs))
    loop.settle()
    return [sum_of(job) for job in jobs]


def sum_of(job: Recorded) -> object:
    (row,) = job.answer
    assert isinstance(row, list)
    assert len(set(row)) == 1
    return row[0]


def sequences_of(servable: Servable) -> Sequences:
    assert servable.sequences is not None
    return servable.sequences


class Held(Recorded):
    """A first request that stays in its thread until it is let go."""

    def __init__(self, value: float, step: Step) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        super().__init__(rows(value), decoded=False, prepare=self.hold, step=step)

    def hold(self) -> None:
        self.entered.set()
        assert self.opened.wait(PATIENCE)


def hold(servable: Servable, value: float, step: Step) -> Held:
    held = Held(value, step)
    servable.submit(held, inline=False)
    assert held.entered.wait(PATIENCE)
    return held


# State


def test_the_requests_of_a_sequence_share_a_state_from_its_start_to_its_end(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum())

    assert run(servable, loop, start(1)) == [1]
    assert run(servable, loop, more(2), more(3)) == [3, 6]
    assert run(servable, loop, last(4)) == [10]
    assert len(sequences_of(servable)) == 0


def test_requests_run_in_the_order_in_which_they_came_however_many_threads_there_are(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum(), queue_size=64)
    jobs = [start(0), *(more(value) for value in range(1, 40)), last(0)]

    assert run(servable, loop, *jobs) == [value * (value + 1) // 2 for value in range(40)] + [780]


def test_two_clients_see_nothing_of_each_other_nor_does_a_request_by_itself(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum(), queue_size=64)
    jobs = [start(1, "a"), start(1000, "b")]
    for _ in range(10):
        jobs += [more(1, "a"), Recorded(rows(7)), more(1000, "b")]

    found = run(servable, loop, *jobs)

    assert found[:2] == [1, 1000]
    assert found[2::3] == [value + 2 for value in range(10)]
    assert found[3::3] == [7] * 10
    assert found[4::3] == [1000 * (value + 2) for value in range(10)]


def test_a_start_under_a_name_in_use_begins_anew_and_what_waited_is_still_run_on_the_old(
    make: Make, loop: Loop
) -> None:
    servable = make(tflite.running_sum())
    held = hold(servable, 1, Step("a", start=True))
    waiting, again, further = more(10), start(100), more(1000)
    for job in (waiting, again, further):
        servable.submit(job)
    held.opened.set()
    loop.run_until(lambda: all(job.done for job in (held, waiting, again, further)))

    assert [sum_of(job) for job in (held, waiting, again, further)] == [1, 11, 100, 1100]
    assert len(sequences_of(servable)) == 1


def test_after_the_end_a_name_is_free_and_unknown(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum())
    assert run(servable, loop, start(1), last(1)) == [1, 2]

    with pytest.raises(InvalidArgument, match=r"^there is no sequence 'a': it was not started, has ended, or had no "):
        servable.submit(more(1))
    with pytest.raises(InvalidArgument):
        servable.submit(last(1))
    assert run(servable, loop, start(5)) == [5]


def test_what_waits_when_the_end_comes_is_run_before_it(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum())
    held = hold(servable, 1, Step("a", start=True))
    jobs = [more(1), last(1), start(50), more(1)]
    for job in jobs:
        servable.submit(job)
    held.opened.set()
    loop.run_until(lambda: all(job.done for job in jobs))

    assert [sum_of(job) for job in jobs] == [2, 3, 50, 51]


def test_a_request_that_is_both_start_and_end_keeps_nothing(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum(), most_sequences=1)

    assert run(servable, loop, both(1), both(2), both(3)) == [1, 2, 3]
    assert len(sequences_of(servable)) == 0


def test_a_batch_of_a_sequence_runs_record_by_record_on_its_state(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum())
    job = Recorded(rows(1, 2, 3), step=Step("a"))
    run(servable, loop, start(10))
    servable.submit(job)
    loop.run_until(lambda: job.done)

    assert job.answer == [[11] * 4, [13] * 4, [16] * 4]


def test_a_request_still_to_be_decoded_is_decoded_off_the_loop(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum())
    job = start(3, decoded=False)

    servable.submit(job, inline=False)
    loop.run_until(lambda: job.done)

    assert sum_of(job) == 3
    assert job.prepared_on[0].startswith("pool-")


def test_all_signatures_of_a_model_share_the_sequence_and_each_runs_its_own_requests(
    tmp_path: Path, loop: Loop, pool: Pool
) -> None:
    servables = make_servables(tmp_path, tflite.account(), loop, pool)
    adds, peeks = servables["serving_default"], servables["peek"]
    held = hold(adds, 1, Step("a", start=True))
    jobs = [(adds, more(2)), (peeks, more(100)), (adds, more(3)), (peeks, more(0)), (peeks, more(7, "b"))]
    peeks.submit(start(7, "b"))
    for servable, job in jobs:
        servable.submit(job)
    held.opened.set()
    loop.run_until(lambda: all(job.done for _, job in jobs))

    assert [sum_of(job) for _, job in jobs] == [3, 103, 6, 6, 7], "peek keeps nothing"
    assert run(peeks, loop, last(0)) == [6]
    with pytest.raises(InvalidArgument):
        adds.submit(more(1))


# Limits


def test_there_are_no_more_sequences_than_may_be_and_an_end_makes_room(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum(), most_sequences=2)
    run(servable, loop, start(1, "a"), start(1, "b"))

    with pytest.raises(Unavailable, match=r"^2 sequences are under way, as many as may be: end one, or try") as full:
        servable.submit(start(1, "c"))
    assert full.value.retry_after == 1
    assert run(servable, loop, start(7, "a")) == [7], "one that is there may begin anew"
    run(servable, loop, last(1, "b"))
    assert run(servable, loop, start(1, "c")) == [1]


def test_where_the_owner_wants_no_sequences_the_message_says_so(make: Make) -> None:
    with pytest.raises(InvalidArgument, match=r"model\.toml: state\.sequences = 0"):
        make(tflite.running_sum(), most_sequences=0).submit(start(1))


def test_a_model_without_state_takes_no_sequence_id(make: Make) -> None:
    with pytest.raises(InvalidArgument, match=r"^model 'm' keeps no state between requests: send it no sequence id$"):
        make(tflite.affine()).submit(start(1))


def test_requests_that_wait_are_bounded_over_all_sequences_and_one_refused_changes_none(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum(), queue_size=2)
    held = hold(servable, 1, Step("a", start=True))
    waiting = [more(1), more(1)]
    for job in waiting:
        servable.submit(job)

    for refused in (last(1), start(1), start(1, "b"), both(1, "c")):
        with pytest.raises(QueueFull, match=r"^2 requests of sequences wait for model 'm' already") as full:
            servable.submit(refused)
        assert full.value.retry_after == 1
    held.opened.set()
    loop.run_until(lambda: all(job.done for job in waiting))
    loop.settle()

    assert run(servable, loop, last(1)) == [4]


# Time


def test_a_sequence_that_is_idle_too_long_is_dropped_and_one_that_is_used_is_not(
    make: Make, loop: Loop, clock: Clock
) -> None:
    servable = make(tflite.running_sum(), idle_seconds=60.0)
    run(servable, loop, start(1, "a"), start(1, "b"))
    (sweep,) = sweeps(loop)
    clock.now += 30
    run(servable, loop, more(1, "a"))
    clock.now += 31
    sweep()

    assert len(sequences_of(servable)) == 1
    assert run(servable, loop, more(1, "a")) == [3]
    with pytest.raises(InvalidArgument, match=r"'b': .* had no request for 60 s; start it with the first request$"):
        servable.submit(more(1, "b"))
    assert len(sweeps(loop)) == 2, "what is left is watched"
    clock.now += 61
    sweeps(loop)[-1]()
    assert len(sequences_of(servable)) == 0
    assert len(sweeps(loop)) == 2, "nothing is left to be watched"


def sweeps(loop: Loop) -> list[Callable[[], None]]:
    """What was asked for to be done after the idle time, 60 s."""
    return [call for seconds, call in loop.timers if seconds == 60.0]


def test_a_sequence_with_a_request_under_way_is_not_idle_however_long_that_takes(
    make: Make, loop: Loop, clock: Clock
) -> None:
    servable = make(tflite.running_sum(), idle_seconds=60.0)
    held = hold(servable, 1, Step("a", start=True))
    clock.now += 1000
    sequences_of(servable).sweep()
    held.opened.set()
    loop.run_until(lambda: held.done)
    loop.settle()

    clock.now += 59
    sequences_of(servable).sweep()
    assert run(servable, loop, more(1)) == [2], "it is idle only since its last request was answered"


def test_those_that_are_idle_too_long_make_room_before_they_are_swept(make: Make, loop: Loop, clock: Clock) -> None:
    servable = make(tflite.running_sum(), most_sequences=1, idle_seconds=60.0)
    run(servable, loop, start(1, "a"))
    clock.now += 61

    assert run(servable, loop, start(1, "b")) == [1]


def test_a_request_that_waits_too_long_is_answered_then_and_the_state_goes_on_without_it(
    make: Make, loop: Loop
) -> None:
    servable = make(tflite.running_sum())
    held = hold(servable, 1, Step("a", start=True))
    late, patient = more(10), more(100)
    late.deadline = 1
    for job in (late, patient):
        servable.submit(job)

    servable.expire()

    assert isinstance(late.error, DeadlineExceeded)
    assert patient.ends == []
    held.opened.set()
    loop.run_until(lambda: patient.done)
    loop.settle()
    assert sum_of(patient) == 101
    assert late.ends == [late.error], "it is answered once"


def test_requests_of_sequences_that_wait_are_watched_as_others_are(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum(), idle_seconds=60.0)
    held = hold(servable, 1, Step("a", start=True))
    late = more(10)
    late.deadline = 1
    servable.submit(late)

    for look in [look for seconds, look in loop.timers if seconds != 60.0]:
        look()

    assert isinstance(late.error, DeadlineExceeded)
    held.opened.set()
    loop.run_until(lambda: held.done)


# Faults


def test_a_request_that_nobody_waits_for_is_not_run_and_the_next_is(make: Make, loop: Loop) -> None:
    servable = make(tflite.running_sum())
    held = hold(servable, 1, Step("a", start=True))
    gone, further = more(10), more(100)
    for job in (gone, further):
        servable.submit(job)
    gone.abandoned = True
    held.opened.set()
    loop.run_until(lambda: further.done)

    assert isinstance(gone.error, Abandoned)
    assert sum_of(further) == 101


def test_a_request_that_the_model_does_not_run_leaves_the_state_as_it_was(make: Make, loop: Loop) -> None:
    servable = make(tflite.counted_lookup())

    def job(index: int, **step: bool) -> Recorded:
        return Recorded(rows(index, width=1, dtype="int32"), step=Step("a", **step))

    jobs = [job(0, start=True), job(9), job(0)]
    for each in jobs:
        servable.submit(each)
    loop.run_until(lambda: all(each.done for each in jobs))

    assert isinstance(jobs[1].error, InvalidArgument)
    assert [jobs[0].answer, jobs[2].answer] == [[[11]], [[12]]], "the example that was tried has left no trace"


def test_an_interpreter_that_cannot_be_made_is_an_error_and_the_next_request_tries_again(
    make: Make, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ModelError("there is no memory")

    servable = make(tflite.running_sum())
    runners: Runners = servable._runners
    jobs = [start(1), more(2)]
    with monkeypatch.context() as short:
        short.setattr(runners, "new", fail)
        servable.submit(jobs[0])
        loop.run_until(lambda: jobs[0].done)
        loop.settle()
    servable.submit(jobs[1])
    loop.run_until(lambda: jobs[1].done)

    assert isinstance(jobs[0].error, Internal)
    assert sum_of(jobs[1]) == 2
