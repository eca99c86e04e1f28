"""What a servable costs, measured when it is loaded; lanes follow from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from statistics import median
from time import perf_counter_ns, thread_time_ns

import numpy as np

from app.errors import LitepoolError, ModelError
from app.runtime import batching
from app.runtime.runners import AnyRunner
from app.tensors import FREE, STRING, Array, Batching, Shape, Signature

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TILE = 7
_BETWEEN = (3, 5, 6, _TILE, *range(9, 16))
"""Kernels work in tiles of several rows, 7 of them for one: a batch of 8 may cost twice one of 7, and 7 and 1 less."""

_REPEATS = 9
_ENOUGH_NS = 10_000_000
"""Time for one batch size, after which it is not repeated and no larger one is tried: nothing hangs on the last digits
of what is dear, and a model of 100 MB is loaded in 400 ms."""

_DEAR_NS = 5_000_000
"""Time of one invoke above which it is not repeated at all: it is not measured by a few microseconds."""

_BUDGET_NS = 40_000_000
"""Time for all the sizes between."""

_OF_OURS = 0.8
"""Share of an invoke's time that its thread had a processor, below which the clock says too little."""

_PAYS = 0.9
"""Share of the cost of single invokes below which sharing one is worth the waiting for each other."""

_EXTRA_US = 12.0
"""What an invoke costs beside itself when its batch is of another size than the last: the interpreter's resizing."""

_ABOUT = 1.05
_LEAST_ROWS = 32

_WORTH_A_THREAD_US = 250.0
"""Work that is worth another thread; waking one costs a fifth of it."""

_FREE_SIZES = (1, 8, 16, 32, 64, 96, 128, 160, 224, 256, 512, 1280, 4096, 16000)
"""Sizes tried for free inner dimensions, all alike, when nobody says what the model likes: those of texts, pictures,
frames of sound, and a second of it."""

_UNEVEN_SIZES = ((32, 1), (128, 8), (512, 32))
"""Then, of several free dimensions, each in its turn is of the first size, and the others are of the second."""

_MOST_VALUES = 1 << 20
"""In one record that is only tried."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Median cost of an invoke in microseconds, for each batch size measured, in ascending order."""

    invoke_us: dict[int, float]

    def inline_rows(self, limit_us: float) -> int:
        """The most records whose invoke is expected to cost no more than `limit_us`; 0 when not even one does.

        Between two measured sizes a record is taken to cost as much as at the dearer, beyond the largest as there.
        """
        measured = best = 0
        for rows, cost in self.invoke_us.items():
            expected = int(rows * limit_us / cost) if cost else rows
            if cost > limit_us:
                return max(measured, min(best, expected))
            measured, best = rows, max(rows, expected)
        return best

    def helpings(self) -> tuple[int, ...]:
        """For each number of waiting records, from 0, how many of them the next invoke takes for all to cost least.

        Only where sharing is clearly cheaper than an invoke each; else it takes one.
        """
        sizes = list(self.invoke_us)
        best, helpings = [0.0], [0]
        alone = self.invoke_us[1] + _EXTRA_US
        at = 0
        for waiting in range(1, sizes[-1] + 1):
            at += sizes[at] < waiting
            # A size that was not measured is taken to cost as much as the next larger one.
            together = self.invoke_us[sizes[at]] + _EXTRA_US
            ways = [(self.invoke_us[size] + _EXTRA_US + best[waiting - size], -size) for size in sizes[:at]]
            cost, helping = min([(together, -waiting), *ways])
            best.append(cost)
            helpings.append(-helping if cost < _PAYS * waiting * alone else 1)
        return tuple(helpings)

    def enough_rows(self) -> int:
        """The fewest records in one invoke at which a record costs about as little as it ever does.

        Larger batches only make the interpreter's buffers larger.
        """
        best = min(cost / rows for rows, cost in self.invoke_us.items())
        return max(_LEAST_ROWS, min(rows for rows, cost in self.invoke_us.items() if cost / rows <= _ABOUT * best))

    def split_rows(self) -> int:
        """The fewest records at which a batch is worth two threads, if there are two."""
        largest, cost = max(self.invoke_us.items())
        return max(2, ceil(2 * _WORTH_A_THREAD_US * largest / cost)) if cost else 2

    def parts(self, rows: int, threads: int) -> int:
        """In how many parts a batch is best run by `threads` threads: 1 when it is too cheap to be split."""
        largest, cost = max(self.invoke_us.items())
        expected = cost * rows / largest
        return max(1, min(threads, int(expected / _WORTH_A_THREAD_US), rows))


def example_inputs(signature: Signature, free: int | tuple[int, ...], rows: int, fill: int = 0) -> list[Array]:
    """Inputs of `rows` records, `[rows, *record]`, all of `fill`, with free inner dimensions of the sizes `free`."""
    shapes = _record_shapes(signature, free if isinstance(free, tuple) else (free,) * _count_free(signature))
    return [
        np.full((rows, *shape), b"a" * fill if spec.dtype == STRING else fill, spec.dtype)
        for spec, shape in zip(signature.inputs, shapes, strict=True)
    ]


def workable_inputs(runner: AnyRunner, signature: Signature) -> list[Array]:
    """One record that the model really runs on. This is also the first invoke, which is where some models fail.

    Raises:
        ModelError: no size of the free dimensions tried works.
    """
    first: LitepoolError | None = None
    # LiteRT cannot give an empty answer, which zeros get from some models.
    for fill, sizes in product((0, 1), _likely_sizes(signature)):
        inputs = example_inputs(signature, sizes, 1, fill)
        try:
            batching.run(runner, signature.batching, inputs, 1)
        except LitepoolError as error:
            first = first or error
        else:
            return inputs
    why = first.message if first is not None else f"a record has more than {_MOST_VALUES:,} values"
    if not _count_free(signature):
        raise ModelError(f"it does not run: {why}")
    raise ModelError(
        f"it runs on no size tried of its free dimensions, which were {', '.join(map(str, _FREE_SIZES))}: put a "
        f"samples.json beside it, of which one real record tells the size ({why})"
    )


def _likely_sizes(signature: Signature) -> Iterator[tuple[int, ...]]:
    """Sizes of the free dimensions, one after the other; without those by which a record would be too large."""
    free = _count_free(signature)
    if not free:
        yield ()
        return
    sizes = [(size,) * free for size in _FREE_SIZES]
    if free > 1:
        for large, small in _UNEVEN_SIZES:
            sizes += [tuple(large if place == other else small for other in range(free)) for place in range(free)]
    for each in sizes:
        if sum(prod(shape) for shape in _record_shapes(signature, each)) <= _MOST_VALUES:
            yield each


def _count_free(signature: Signature) -> int:
    """How many inner dimensions are free, over all inputs."""
    return sum(signature.record_shape(spec).count(FREE) for spec in signature.inputs)


def _record_shapes(signature: Signature, sizes: tuple[int, ...]) -> list[Shape]:
    left = iter(sizes)
    return [
        tuple(next(left) if size == FREE else size for size in signature.record_shape(spec))
        for spec in signature.inputs
    ]


def measure(runner: AnyRunner, how: Batching, example: list[Array], alone: bool = False) -> Profile:
    """Time `runner` on `example`, inputs of at least one record, repeated to each batch size.

    Only when `how` is FREE does an invoke take more than one record. Takes less than a tenth of a second, but for a
    model of which one invoke takes longer: then that one.

    Args:
        alone: whether the calling thread does all the work of an invoke.
    """
    costs: dict[int, float] = {}
    for rows in _BATCHES if how is Batching.FREE else (1,):
        costs[rows] = _time(runner, how, example, rows, alone)
        if costs[rows] * 1000 * _REPEATS > _ENOUGH_NS:
            break
    if list(costs) == [1] and how is Batching.FREE and costs[1] * 1000 < _ENOUGH_NS:
        # Too dear to look at every size; yet large dense layers wait for memory, and seven records cost what one does.
        for rows in (2, _TILE):
            costs[rows] = _time(runner, how, example, rows, alone)
            if costs[rows] > _PAYS * rows * costs[1]:
                break
    spent = 0.0
    for rows in _BETWEEN:
        above = next((size for size in sorted(costs) if size > rows), None)
        if above is None or (spent + costs[above]) * 1000 * _REPEATS > _BUDGET_NS:
            break
        costs[rows] = _time(runner, how, example, rows, alone)
        spent += costs[rows]
    return Profile(dict(sorted(costs.items())))


def _time(runner: AnyRunner, how: Batching, example: list[Array], rows: int, alone: bool) -> float:
    """The median in microseconds. The first invoke, which is slower, counts only when there is time for no other."""
    inputs = [np.resize(array, (rows, *array.shape[1:])) for array in example]
    took: list[int] = []
    while len(took) <= _REPEATS and sum(took) < (_ENOUGH_NS if len(took) > 1 else _DEAR_NS):
        start, worked = perf_counter_ns(), thread_time_ns()
        batching.run(runner, how, inputs, rows)
        worked, passed = thread_time_ns() - worked, perf_counter_ns() - start
        # What others have taken of the processor meanwhile is not the model's cost; waiting for its own threads is.
        took.append(worked if alone and worked < _OF_OURS * passed else passed)
    return median(took[1:] or took) / 1000
