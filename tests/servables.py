"""Servables of small models, with a measured profile's place taken by what a test wants, and jobs to run on them."""

import threading
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from app.runtime.contract import BatchClass, Contract
from app.runtime.interpreter import Runner
from app.runtime.job import Job, Step
from app.runtime.plan import Wishes, make_plan
from app.runtime.pool import Pool
from app.runtime.profile import Profile, example_inputs
from app.runtime.runners import Runners
from app.runtime.sequences import Sequences
from app.runtime.servable import Lanes, Servable
from app.tensors import Array, Batching, Signature
from tests.loops import Loop

FAR = 2**62
"""A deadline that no test reaches."""

_numbers = count()

NOTHING_FIXED = Wishes()

SHARING_PAYS = {1: 10.0, 8: 20.0}
"""An invoke of 8 costs twice one of 1, so that waiting calls share one."""


def contract_of(signature: Signature, mixing: str | None, stateful: bool) -> Contract:
    """As it is found at load; `mixing` is why requests share no invoke, None where they may."""
    if stateful:
        return Contract(BatchClass.STATEFUL, "it keeps variables between invokes", signature.batching)
    if signature.batching is Batching.FREE:
        free = BatchClass.MERGED if mixing is None else BatchClass.BATCHED
        return Contract(free, mixing or "no probe has found otherwise", signature.batching)
    found = BatchClass.LOOPED if signature.batching is Batching.ONE else BatchClass.WHOLE
    return Contract(found, "the leading dimension is not free", signature.batching)


def make_servables(
    folder: Path,
    model: bytes,
    loop: Loop,
    pool: Pool,
    *,
    invoke_us: dict[int, float] | None = None,
    mixing: str | None = "nobody has looked",
    inline_us: float = 300.0,
    queue_size: int = 16,
    wishes: Wishes = NOTHING_FIXED,
    most_sequences: int = 8,
    idle_seconds: float = 60.0,
    now: Callable[[], float] = monotonic,
) -> dict[str, Servable]:
    """Those of all signatures of a model named `m`, version 1. Requests share no invoke unless `mixing` is None.

    Args:
        now: the clock by which sequences are idle.
    """
    # LiteRT maps the file: a model written over another would change that one too.
    path = folder / f"m{next(_numbers)}.tflite"
    path.write_bytes(model)
    lanes = Lanes(
        pool=pool, soon=loop.call, later=loop.later, post=loop.call, inline_us=inline_us, queue_size=queue_size
    )

    def new() -> Runner:
        return Runner(path, wishes.threads)

    first = new()
    own = [first.of(name) for name in first.names]
    signatures = [runner.signature() for runner in own]
    stateful = first.stateful()
    profile = Profile(invoke_us or {1: 10.0})
    plans = [
        make_plan(profile, contract_of(signature, mixing, stateful), first.unpredictable(), inline_us, wishes)
        for signature in signatures
    ]
    runners = Runners(new, first, pool.size, any(plan.inline_rows for plan in plans))
    sequences = Sequences(most_sequences, idle_seconds, loop.later, now) if stateful else None
    return {
        signature.name: Servable(
            "m", 1, signature, runners, plan, example_inputs(signature, free=16, rows=1), lanes, sequences
        )
        for signature, plan in zip(signatures, plans, strict=True)
    }


def make_servable(folder: Path, model: bytes, loop: Loop, pool: Pool, **options: Any) -> Servable:
    """The default signature's; the options are those of `make_servables`."""
    return next(iter(make_servables(folder, model, loop, pool, **options).values()))


class Recorded(Job):
    """A job of given inputs that keeps what became of it.

    Args:
        prepare: called first by `prepare`, for a test to hold or to fail it there.
        step: its place in a sequence.
    """

    def __init__(
        self,
        *inputs: Array,
        decoded: bool = True,
        prepare: Callable[[], object] | None = None,
        step: Step | None = None,
    ) -> None:
        super().__init__()
        self.deadline = FAR
        self.sequence = step
        self.ends: list[Exception | None] = []
        self.outputs: list[Array] = []
        self.prepared_on: list[str] = []
        self.ran_on: list[str] = []
        self._given = inputs
        self._prepare = prepare
        if decoded:
            self.inputs, self.rows = inputs, len(inputs[0])

    def prepare(self) -> None:
        self.prepared_on.append(threading.current_thread().name)
        if self._prepare is not None:
            self._prepare()
        self.inputs, self.rows = self._given, len(self._given[0])

    def accept(self, outputs: Sequence[Array]) -> None:
        self.ran_on.append(threading.current_thread().name)
        self.outputs = [output.copy() for output in outputs]

    def finish(self, error: Exception | None) -> None:
        assert threading.current_thread() is threading.main_thread(), "finish is for the loop's thread"
        self.ends.append(error)

    @property
    def done(self) -> bool:
        return bool(self.ends)

    @property
    def answer(self) -> list[object]:
        """The first output's rows, of a job that ended well, once."""
        assert self.ends == [None]
        rows: list[object] = self.outputs[0].tolist()
        return rows

    @property
    def error(self) -> Exception:
        """Why the job failed, once."""
        (error,) = self.ends
        assert error is not None
        return error


def rows(*values: float, width: int = 4, dtype: str = "float32") -> Array:
    """One record for each value, filled with it."""
    return np.repeat(np.array(values, dtype)[:, np.newaxis], width, axis=1)
