import threading
from collections.abc import Iterator
from functools import partial

import pytest

from app.runtime.pool import Pool, Queue
from tests.loops import PATIENCE


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(1)
    yield pool
    pool.close()


class Gate:
    """A task that holds its thread until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, index: int) -> None:
        self.entered.set()
        assert self.opened.wait(PATIENCE)


def held(pool: Pool) -> Gate:
    """Hold the thread of a pool of one."""
    gate = Gate()
    pool.submit(Queue(), gate)
    assert gate.entered.wait(PATIENCE)
    return gate


def test_the_tasks_of_one_queue_run_in_the_order_they_came() -> None:
    pool, queue, ran = Pool(1), Queue(), list[int]()

    for number in range(20):
        pool.submit(queue, lambda _, number=number: ran.append(number))  # type: ignore[misc]
    pool.close()

    assert ran == list(range(20))


def test_a_long_queue_does_not_hold_up_a_short_one(pool: Pool) -> None:
    gate, ran = held(pool), list[str]()
    slow, quick = Queue(), Queue()

    for name in ("slow 1", "slow 2", "slow 3"):
        pool.submit(slow, lambda _, name=name: ran.append(name))  # type: ignore[misc]
    for name in ("quick 1", "quick 2"):
        pool.submit(quick, lambda _, name=name: ran.append(name))  # type: ignore[misc]
    gate.opened.set()
    pool.close()

    assert ran == ["slow 1", "quick 1", "slow 2", "quick 2", "slow 3"]


def test_a_queue_that_ran_dry_is_served_again(pool: Pool) -> None:
    queue = Queue()

    for _ in range(3):
        done = threading.Event()
        pool.submit(queue, lambda _, done=done: done.set())  # type: ignore[misc]
        assert done.wait(PATIENCE)


def test_a_task_that_waits_is_counted_in_its_queue_until_a_thread_takes_it(pool: Pool) -> None:
    gate, queue = held(pool), Queue()

    pool.submit(queue, lambda _: None)
    pool.submit(queue, lambda _: None)
    waiting = len(queue.tasks)
    gate.opened.set()
    pool.close()

    assert waiting == 2
    assert not queue.tasks


def test_tasks_run_on_as_many_threads_as_the_pool_has_each_with_its_own_index() -> None:
    pool, meeting, seen = Pool(3), threading.Barrier(3, timeout=PATIENCE), list[tuple[int, str]]()

    def meet(index: int) -> None:
        meeting.wait()
        seen.append((index, threading.current_thread().name))

    for queue in (Queue(), Queue()):
        for _ in range(3):
            pool.submit(queue, meet)
    pool.close()

    assert {index for index, _ in seen} == {0, 1, 2}
    assert set(seen) == {(index, f"pool-{index}") for index in range(3)}


def test_one_queue_may_use_every_thread() -> None:
    pool, meeting, queue = Pool(2), threading.Barrier(2, timeout=PATIENCE), Queue()

    def meet(_: int) -> None:
        meeting.wait()

    for _ in range(2):
        pool.submit(queue, meet)
    pool.close()

    assert not meeting.broken


def test_closing_runs_what_waits_and_ends_the_threads() -> None:
    pool, queue, ran = Pool(2), Queue(), list[int]()

    for _ in range(50):
        pool.submit(queue, ran.append)
    pool.close()

    assert len(ran) == 50
    assert not [thread for thread in threading.enumerate() if thread in pool._threads]


def test_tasks_come_from_many_threads_and_none_is_lost_or_run_twice() -> None:
    pool, ran = Pool(3), list[int]()

    def bring(first: int) -> None:
        queue = Queue()
        for number in range(first, first + 200):
            pool.submit(queue, partial(lambda number, _: ran.append(number), number))

    threads = [threading.Thread(target=bring, args=(first,)) for first in (0, 200, 400, 600)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    pool.close()

    assert sorted(ran) == list(range(800))


def wait_for(event: threading.Event) -> None:
    event.wait(PATIENCE)


def test_a_task_that_does_not_end_is_not_waited_for_beyond_the_limit() -> None:
    pool, release = Pool(2), threading.Event()
    pool.submit(Queue(), lambda _: wait_for(release))

    assert not pool.close(0.01)

    release.set()
    assert pool.close(PATIENCE)
