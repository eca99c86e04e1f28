"""One signature of a loaded, warmed version of a model."""

import logging
import math
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from time import perf_counter_ns

import numpy as np

from app.errors import (
    Internal,
    InvalidArgument,
    LitepoolError,
    ModelError,
    QueueFull,
    RunnerLost,
    Unavailable,
    without_trace,
)
from app.runtime import batching
from app.runtime.job import Abandoned, Job, Step
from app.runtime.plan import Plan
from app.runtime.pool import Pool, Queue
from app.runtime.runners import AnyRunner, Runners
from app.runtime.sequences import Kept, Sequences
from app.runtime.split import Outcome, Split, bounds, outputs_of
from app.tensors import FREE, Array, Signature

log = logging.getLogger(__name__)

_MOST_LOOKS = 4
"""How often a turn is put off for requests that came meanwhile: so often, it may become twice as large."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """Where a servable's invokes run, and how many may wait.

    Args:
        soon: `loop.call_soon`, to run what this turn of the loop has gathered.
        later: `loop.call_later`, to answer what has waited too long.
        post: `loop.call_soon_threadsafe`, by which a pool thread hands a result to the loop.
        inline_us: an invoke expected to be cheaper than this, in microseconds, runs on the loop.
    """

    pool: Pool
    soon: Callable[..., object]
    later: Callable[[float, Callable[[], None]], object]
    post: Callable[..., object]
    inline_us: float
    queue_size: int


Where = AnyRunner | int | Kept
"""What runs an invoke: an interpreter, that of a pool thread by the thread's index, or a sequence's."""


class Servable:
    """Runs jobs: on the loop when they are cheap enough, else on a pool thread.

    `submit` is for the loop's thread only. Jobs that one turn of the loop brings, or that wait for the same thread,
    share an invoke where the plan says so. Jobs of a sequence run one after another on the interpreter that is kept for
    it.

    Args:
        runners: of the version, shared with its other signatures.
        example: one record of each input, `[1, *record]`, that the model runs on.
        sequences: of the version; None for a model without state.
    """

    def __init__(
        self,
        name: str,
        version: int,
        signature: Signature,
        runners: Runners,
        plan: Plan,
        example: list[Array],
        lanes: Lanes,
        sequences: Sequences | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.signature = signature
        self.plan = plan
        self.sequences = sequences
        self._batching = plan.batching
        self._most_rows = plan.most_rows
        self._inline_rows = plan.inline_rows
        self._merges = plan.merge_rows > 1
        self._most_pooled = len(plan.helpings) - 1
        self._most_inline = min(self._most_pooled, plan.inline_rows)
        self._example = example
        self._lanes = lanes
        self._watched = math.inf
        """When waiting jobs are looked at next, in nanoseconds."""
        self._turn: list[Job] = []
        self._seen = 0
        """How many jobs the turn had when it was last looked at,"""
        self._looks = 0
        """and how often it has been."""
        self._crowded = False
        """Whether the last turn had several."""
        self._waiting: deque[Job] = deque()
        self._steps: dict[Job, None] = {}
        """Of sequences the jobs that wait, the oldest first; guarded by the lock, as those above are."""
        self._lock = threading.Lock()
        self._queue = Queue()
        self._runners = runners
        self._inline = self._own(runners.inline())
        self._pooled: list[AnyRunner | None] = [None] * lanes.pool.size
        self._free_inner = any(FREE in self.signature.record_shape(spec) for spec in self.signature.inputs)

    def submit(self, job: Job, inline: bool = True) -> None:
        """Run a job in this turn of the loop, or when a pool thread is free; `job.finish` is called on the loop.

        Args:
            inline: False keeps the whole job, its decoding too, off the loop.

        Raises:
            QueueFull: as many calls wait for this model as may.
        """
        if job.sequence is not None:
            self._submit_in_sequence(job, job.sequence)
            return
        if inline and job.rows <= self._inline_rows:
            if not self._merges:
                self._run_one(job, self._inline, _at_once)
                return
            self._turn.append(job)
            if len(self._turn) == 1:
                self._lanes.soon(self._run_turn)
            return
        if len(self._waiting) >= self._lanes.queue_size:
            raise QueueFull(
                f"{self._lanes.queue_size} requests wait for model {self.name!r} already: try again later",
                retry_after=1,
            )
        job.queued_at = perf_counter_ns()
        with self._lock:
            self._waiting.append(job)
        self._watch(job)
        self._lanes.pool.submit(self._queue, self._run_waiting)

    def _watch(self, job: Job) -> None:
        """Look at what waits when this job has waited too long, if that is not done earlier anyway."""
        if job.deadline < self._watched:
            self._watched = job.deadline
            # Not to be kept in memory by its timer when it has been unloaded.
            expire = partial(_expire_if_alive, weakref.ref(self))
            self._lanes.later(max(0.0, (job.deadline - perf_counter_ns()) / 1e9), expire)

    def expire(self) -> None:
        """Answer the jobs that have waited too long, also behind an invoke that never ends."""
        now = perf_counter_ns()
        with self._lock:
            waiting = [*self._waiting, *self._steps]
            expired = [job for job in waiting if job.deadline < now]
            if expired:
                self._waiting = deque(job for job in self._waiting if job.deadline >= now)
                for step in [job for job in self._steps if job.deadline < now]:
                    del self._steps[step]
        self._watched = math.inf
        left = [job for job in waiting if job.deadline >= now]
        if left:
            self._watch(min(left, key=attrgetter("deadline")))
        for job in expired:
            _at_once(job.finish, self._guarded(job.check_wanted))

    def _run_turn(self) -> None:
        """Run what one turn of the loop has brought, in as few invokes as its rows and shapes allow."""
        jobs = self._turn
        if (
            self._seen < len(jobs) < self._most_inline
            and self._looks < _MOST_LOOKS
            and (self._crowded or len(jobs) > 1)
        ):
            # More may have come while these were decoded. A request that is alone, as the last one was, does not wait.
            self._seen = len(jobs)
            self._looks += 1
            self._lanes.soon(self._run_turn)
            return
        self._turn, self._seen, self._looks = [], 0, 0
        self._crowded = len(jobs) > 1
        if len(jobs) == 1:
            self._run_one(jobs[0], self._inline, _at_once)
            return
        left = deque(jobs)
        while left:
            self._run(self._take(left, self._most_inline), self._inline, _at_once)

    def _run_waiting(self, thread: int) -> None:
        """On a pool thread: run the first job that waits, and with it what fits. An earlier call may have taken all."""
        with self._lock:
            jobs = self._take(self._waiting, self._most_pooled) if self._waiting else []
        if len(jobs) == 1 and self.plan.splits and self._lanes.pool.idle:
            self._run_split(jobs[0], thread)
            return
        if len(jobs) > 1 and not jobs[0].rows:
            jobs = [job for job in jobs if self._is_ready(job, self._lanes.post)]
        left = deque(jobs)
        while left:
            self._run(self._take(left, self._most_pooled), thread, self._lanes.post)

    def _run_split(self, job: Job, thread: int) -> None:
        """Run one job with the help of the threads that are idle, if it is large enough for that to be faster.

        Only for models whose rows are independent: for others the parts would be another batch.
        """
        refused = self._guarded(job.check_wanted) or self._guarded(job.prepare)
        if refused is not None:
            self._lanes.post(job.finish, refused)
            return
        parts = self.plan.profile.parts(job.rows, 1 + self._lanes.pool.idle)
        if parts == 1:
            self._run_one(job, thread, self._lanes.post)
            return
        start = perf_counter_ns()

        def done(outcome: Outcome) -> None:
            job.invoke_ns = perf_counter_ns() - start
            self._lanes.post(job.finish, self._guarded(lambda: job.accept(outputs_of(outcome))))

        split = Split(parts, done)
        pieces = bounds(job.rows, parts)
        for part in range(1, parts):
            self._lanes.pool.submit(self._queue, partial(self._run_part, split, part, job, pieces[part]))
        self._run_part(split, 0, job, pieces[0], thread)

    def _run_part(self, split: Split, part: int, job: Job, piece: tuple[int, int], thread: int) -> None:
        start, end = piece
        try:
            outcome: Outcome = self._invoke([array[start:end] for array in job.inputs], end - start, thread)[0]
        except Exception as error:  # noqa: BLE001  The job's end tells it.
            outcome = self._as_told(error)
        split.bring(part, outcome)

    def _take(self, jobs: deque[Job], most: int) -> list[Job]:
        """Take the jobs that share the next invoke, of `most` records if there are several."""
        first = jobs.popleft()
        rows = first.rows
        if not (self._merges and jobs):
            return [first]
        if not rows:
            # Still to be decoded, as those behind it may be: they are taken as if they had one record each.
            taken = [first]
            wanted = self.plan.helping(min(most, 1 + len(jobs)))
            while len(taken) < wanted and jobs and not jobs[0].rows:
                taken.append(jobs.popleft())
            return taken
        waiting = rows
        for job in jobs:
            waiting += job.rows
            if waiting >= most:
                break
        most = self.plan.helping(min(most, waiting))
        taken = [first]
        while jobs and jobs[0].rows and rows + jobs[0].rows <= most and self._fits(first, jobs[0]):
            rows += jobs[0].rows
            taken.append(jobs.popleft())
        return taken

    def _fits(self, one: Job, other: Job) -> bool:
        if not self._free_inner:
            return True
        return all(a.shape[1:] == b.shape[1:] for a, b in zip(one.inputs, other.inputs, strict=True))

    def _run(self, jobs: list[Job], where: Where, tell: Callable[..., object]) -> None:
        """Run jobs together, and tell each of its end by `tell(job.finish, error)`.

        When an invoke of several fails they are run again one by one, so that a bad neighbour harms only itself.
        """
        if len(jobs) > 1:
            jobs = self._run_merged(jobs, where, tell)
        for job in jobs:
            self._run_one(job, where, tell)

    def _run_merged(self, jobs: list[Job], where: Where, tell: Callable[..., object]) -> list[Job]:
        """Run jobs in one invoke; those that are still to be run, because that failed."""
        wanted = [job for job in jobs if not (job.queued_at or job.abandoned) or self._is_wanted(job, tell)]
        if len(wanted) < 2:
            return wanted
        try:
            inputs = [np.concatenate(column) for column in zip(*(job.inputs for job in wanted), strict=True)]
            rows = len(inputs[0])
            outputs, took = self._invoke(inputs, rows, where)
        except Exception as error:  # noqa: BLE001  Each is run alone, and is told what becomes of that.
            log.debug("an invoke of %d calls failed, which are run one by one: %s", len(wanted), error)
            return wanted
        end = 0
        only = outputs[0] if len(outputs) == 1 else None
        for job in wanted:
            start, end = end, end + job.rows
            job.invoke_ns = took
            job.batch = -rows if start else rows
            refused: Exception | None = None
            try:
                job.accept((only[start:end],) if only is not None else [output[start:end] for output in outputs])
            except Exception as error:  # noqa: BLE001  Its caller is told.
                refused = self._as_told(error)
            tell(job.finish, refused)
        return []

    def _is_wanted(self, job: Job, tell: Callable[..., object]) -> bool:
        refused = self._guarded(job.check_wanted)
        if refused is not None:
            tell(job.finish, refused)
        return refused is None

    def _is_ready(self, job: Job, tell: Callable[..., object]) -> bool:
        """Decode a job, if it is still wanted; one that is refused is told so."""
        refused = self._guarded(job.check_wanted) or self._guarded(job.prepare)
        if refused is not None:
            tell(job.finish, refused)
        return refused is None

    def _run_one(self, job: Job, where: Where, tell: Callable[..., object]) -> None:
        refused: Exception | None = None
        try:
            if job.queued_at or job.abandoned:
                job.check_wanted()
            if not job.rows:
                job.prepare()
            outputs, job.invoke_ns = self._invoke(job.inputs, job.rows, where)
            job.accept(outputs)
        except Exception as error:  # noqa: BLE001  Its caller is told.
            refused = self._as_told(error)
        tell(job.finish, refused)

    def _invoke(self, inputs: Sequence[Array], rows: int, where: Where) -> tuple[list[Array], int]:
        runner = self._runner(where) if isinstance(where, (int, Kept)) else where
        start = perf_counter_ns()
        try:
            if rows <= self._most_rows:
                outputs = batching.run(runner, self._batching, inputs, rows)
            else:
                outputs = self._run_in_helpings(runner, inputs, rows, where)
        except RunnerLost as error:
            raise Unavailable(f"model {self.name!r}: {error.message}: try again", retry_after=1) from error
        except ModelError as error:
            # Looking for it must leave no trace in a sequence's state.
            if self._runs(self._own(self._runners.new()) if self.plan.stateful else runner):
                message = f"model {self.name!r} does not run on these shapes and values: {error.message}"
                raise InvalidArgument(message) from error
            raise
        return outputs, perf_counter_ns() - start

    def _run_in_helpings(self, runner: AnyRunner, inputs: Sequence[Array], rows: int, where: Where) -> list[Array]:
        helpings = []
        for start in range(0, rows, self._most_rows):
            if start and self.plan.stateful and isinstance(where, int):
                runner = self._runner(where)
            part = [array[start : start + self._most_rows] for array in inputs]
            helpings.append(batching.run(runner, self._batching, part, len(part[0])))
        return [np.concatenate(column) for column in zip(*helpings, strict=True)]

    def _runs(self, runner: AnyRunner) -> bool:
        """Whether a runner that has failed runs on the example: then the inputs were at fault, not the model."""
        try:
            if self.plan.stateful:
                # The example would leave its trace in a sequence's state.
                runner = self._own(self._runners.new())
            batching.run(runner, self._batching, self._example, 1)
        except LitepoolError:
            return False
        return True

    def _guarded(self, step: Callable[[], None]) -> Exception | None:
        """Take a step for one job; what went wrong, if anything, as its caller is told."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  Its caller is told.
            return self._as_told(error)
        return None

    def _as_told(self, error: Exception) -> Exception:
        """An error as the job's caller is told of it; what is a fault of ours is logged."""
        if isinstance(error, (LitepoolError, Abandoned)) and not isinstance(error, ModelError):
            return without_trace(error)
        told = self._internal(error)
        without_trace(error)
        return told

    def _runner(self, where: int | Kept) -> AnyRunner:
        if isinstance(where, Kept):
            if where.runner is None:
                where.runner = self._runners.new()
            return self._own(where.runner)
        if self.plan.stateful:
            # Resetting variables does not bring back a model's first state; only a new interpreter has it.
            return self._own(self._runners.new())
        runner = self._pooled[where]
        if runner is None:
            runner = self._pooled[where] = self._own(self._runners.pooled(where))
        return runner

    def _own(self, runner: AnyRunner) -> AnyRunner:
        """This signature's of an interpreter."""
        own = runner.of(self.signature.name)
        own.hold_to(self.signature)
        return own

    # Sequences: of models that keep variables.

    def _submit_in_sequence(self, job: Job, step: Step) -> None:
        if self.sequences is None:
            raise InvalidArgument(f"model {self.name!r} keeps no state between requests: send it no sequence id")
        if len(self._steps) >= self._lanes.queue_size:
            raise QueueFull(
                f"{self._lanes.queue_size} requests of sequences wait for model {self.name!r} already: try again later",
                retry_after=1,
            )
        kept = self.sequences.enter(step)
        job.queued_at = perf_counter_ns()
        with self._lock:
            self._steps[job] = None
        self._watch(job)
        # With what runs it: the next request of the sequence may be for another signature.
        kept.steps.append(partial(self._run_step, job, kept))
        if not kept.busy:
            self._go_on(kept)

    def _go_on(self, kept: Kept) -> None:
        """Run the first request of a sequence that waits, if one does. No two of a sequence run at once."""
        assert self.sequences is not None
        kept.busy = bool(kept.steps)
        if kept.busy:
            self._lanes.pool.submit(self._queue, kept.steps.popleft())
        else:
            self.sequences.leave(kept)

    def _run_step(self, job: Job, kept: Kept, _: int) -> None:
        """On a pool thread: run a request of a sequence, unless it has been answered for having waited too long."""
        with self._lock:
            waits = job in self._steps
            self._steps.pop(job, None)
        if waits:
            self._run_one(job, kept, self._lanes.post)
        self._lanes.post(self._go_on, kept)

    def _internal(self, error: Exception) -> Internal:
        """A fault for the log, and for the caller an error that names the log line only."""
        request = secrets.token_hex(8)
        log.error("request %s to model %s failed", request, self.name, exc_info=error)
        return Internal(f"model {self.name!r} failed on this request; the server's log has it as request {request}")


def _at_once(finish: Callable[[Exception | None], None], error: Exception | None) -> None:
    """On the loop: finish a job now; if that fails, the jobs after it are finished all the same."""
    try:
        finish(error)
    except Exception:
        log.exception("an answer could not be delivered")


def _expire_if_alive(servable: "weakref.ref[Servable]") -> None:
    found = servable()
    if found is not None:
        found.expire()
