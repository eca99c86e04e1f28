"""One loaded, warmed version of a model."""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter_ns

from app.errors import Internal, InvalidArgument, LitepoolError, ModelError, QueueFull
from app.runtime import batching
from app.runtime.interpreter import Runner
from app.runtime.job import Abandoned, Job
from app.runtime.pool import Pool, Queue
from app.runtime.profile import Profile
from app.tensors import FREE, Signature

log = logging.getLogger(__name__)

Post = Callable[..., object]
"""`loop.call_soon_threadsafe`: how a pool thread hands a result to the event loop."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """Where a servable's invokes run, and how many may wait."""

    pool: Pool
    post: Post
    inline_us: float
    queue_size: int


class Servable:
    """Runs jobs: on the caller's thread, the loop, when they are cheap enough, else on a pool thread.

    `submit` is for the loop's thread only. Interpreters are made when first needed by the thread that keeps them; the
    loader's `first` serves the lane that this model will use most.
    """

    def __init__(self, name: str, version: int, path: Path, first: Runner, profile: Profile, lanes: Lanes) -> None:
        self.name = name
        self.version = version
        self.path = path
        self.signature: Signature = first.signature()
        self.stateful = first.stateful()
        self.profile = profile
        self.inline_rows = 0 if self.stateful else profile.inline_rows(lanes.inline_us)
        self._lanes = lanes
        self._queue = Queue()
        self._inline = first
        self._pooled: list[Runner | None] = [None] * lanes.pool.size
        if not self.inline_rows:
            self._pooled = [first, *(Runner(path) for _ in range(lanes.pool.size - 1))]
        self._free_inner = any(FREE in self.signature.record_shape(spec) for spec in self.signature.inputs)

    def submit(self, job: Job, inline: bool = True) -> None:
        """Run a job now, or when a pool thread is free; `job.finish` is called on the loop either way.

        Args:
            inline: False keeps the whole job, its decoding too, off the loop.

        Raises:
            QueueFull: as many calls wait for this model as may.
        """
        if inline and job.rows <= self.inline_rows:
            job.finish(self._execute(job, self._inline))
            return
        job.queued_at = perf_counter_ns()
        if not self._lanes.pool.submit(self._queue, partial(self._run_pooled, job), self._lanes.queue_size):
            raise QueueFull(
                f"{self._lanes.queue_size} requests wait for model {self.name!r} already: try again later",
                retry_after=1,
            )

    def _run_pooled(self, job: Job, thread: int) -> None:
        self._lanes.post(job.finish, self._execute(job, thread))

    def _execute(self, job: Job, where: Runner | int) -> Exception | None:
        """Take a job through decode, invoke and encode; what went wrong, if anything."""
        try:
            job.check_wanted()
            job.prepare()
            runner = self._runner(where)
            start = perf_counter_ns()
            outputs = batching.run(runner, self.signature.batching, job.inputs, job.rows)
            job.invoke_ns = perf_counter_ns() - start
            job.accept(outputs)
        except ModelError as error:
            if self._free_inner:
                return InvalidArgument(f"model {self.name!r} does not run on inputs of these shapes: {error.message}")
            return self._internal(error)
        except (LitepoolError, Abandoned) as error:
            return error
        except Exception as error:  # noqa: BLE001  It is logged, and the caller is told.
            return self._internal(error)
        return None

    def _runner(self, where: Runner | int) -> Runner:
        if self.stateful:
            # Resetting variables does not bring back a model's first state; only a new interpreter has it.
            return Runner(self.path)
        if isinstance(where, Runner):
            return where
        runner = self._pooled[where]
        if runner is None:
            runner = self._pooled[where] = Runner(self.path)
        return runner

    def _internal(self, error: Exception) -> Internal:
        """A fault for the log, and for the caller an error that names the log line only."""
        request = secrets.token_hex(8)
        log.error("request %s to model %s failed", request, self.name, exc_info=error)
        return Internal(f"model {self.name!r} failed on this request; the server's log has it as request {request}")
