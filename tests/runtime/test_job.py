import pytest

from app.errors import DeadlineExceeded
from app.runtime import job as job_module
from app.runtime.job import Abandoned, Job

NOW = 5_000_000_000


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "perf_counter_ns", lambda: NOW)


def waiting(since_ns: int, deadline: int) -> Job:
    job = Job()
    job.queued_at = NOW - since_ns
    job.deadline = deadline
    return job


def test_a_job_that_never_waited_is_wanted_whatever_the_clock_says() -> None:
    job = Job()

    job.check_wanted()

    assert job.queue_ns == 0


def test_a_job_in_time_is_wanted_and_knows_how_long_it_waited() -> None:
    job = waiting(1_500_000, deadline=NOW)

    job.check_wanted()

    assert job.queue_ns == 1_500_000


def test_a_job_that_waited_too_long_is_refused_with_how_long() -> None:
    job = waiting(2_000_000_000, deadline=NOW - 1)

    with pytest.raises(DeadlineExceeded, match=r"waited 2000 ms for the model, longer than it may"):
        job.check_wanted()
    assert job.queue_ns == 2_000_000_000


def test_a_job_that_nobody_waits_for_is_abandoned_even_when_it_is_late_too() -> None:
    job = waiting(10, deadline=0)
    job.abandoned = True

    with pytest.raises(Abandoned):
        job.check_wanted()


def test_what_a_wire_format_must_say_is_left_to_it() -> None:
    job = Job()

    for step in (job.prepare, lambda: job.accept([]), lambda: job.finish(None)):
        with pytest.raises(NotImplementedError):
            step()
