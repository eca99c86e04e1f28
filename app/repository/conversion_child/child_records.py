"""Records to ask TensorFlow about: the user's own first, then seeded ones that are unlike each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from child_reasons import Refused
from child_signature import Signature, Tensors

SEED = 20240229
ROWS = 16
_LOUD_ROWS, _LOUD = 2, 100
"""Of the seeded records of floats, the last are so many of so large a scale."""

_REAL = 16
_FREE_SIZES = (16, 8, 32, 64, 96, 128, 160, 224, 256, 1, 512, 1280, 4096, 16000)
"""Sizes tried for free inner dimensions, all alike, until TensorFlow runs the model."""

_UNEVEN_SIZES = ((32, 1), (128, 8), (512, 32))
"""Then, of several free dimensions, each in its turn is of the first size, and the others are of the second."""

_MOST_VALUES = 1 << 20
"""In one record that is only tried."""

_WORDS = ("a", "b", "the", "cat", "sat", "", "two words", "Cafe", "7", "caf\u00e9")

WIDE, USUAL, NARROW = "wide", "usual", "narrow"
_INTEGERS = {WIDE: 100, USUAL: 10, NARROW: 2}
"""How large integers may be. As indices, all but 0 and 1 may be too large: then TensorFlow says so."""


@dataclass(frozen=True, eq=False)
class Records:
    """Records for all inputs.

    Attributes:
        tensors: `{name: [rows, *record]}`.
        real: how many of them, the first, are the user's.
        loud: how many, the last, are of large scale, beyond what real ones are like.
    """

    tensors: Tensors
    real: int = 0
    loud: int = 0

    @property
    def rows(self) -> int:
        return min((len(value) for value in self.tensors.values()), default=0)


def attempts(signature: Signature, real: Tensors | None) -> Iterator[Records]:
    """Each time other records, until TensorFlow takes them.

    Args:
        real: the user's, fitting. They show the sizes of free dimensions, and come first.
    """
    if real is None:
        for shapes in _likely_shapes(signature):
            yield from _seeded(signature, shapes)
        return
    real = {name: value[:_REAL] for name, value in real.items()}
    rows = min(len(value) for value in real.values())
    for seeded in _seeded(signature, [list(value.shape[1:]) for value in real.values()]):
        yield Records({name: _join(real[name], value) for name, value in seeded.tensors.items()}, rows, seeded.loud)
    yield Records(real, rows)


def _likely_shapes(signature: Signature) -> Iterator[list[list[int]]]:
    """Shapes of a record of each input, one set after the other; the server's tries go the same way."""
    records = [signature.record_shape(name) for name in signature.inputs]
    free = sum(shape.count(None) for shape in records)
    sizes = [(size,) * free for size in _FREE_SIZES] if free else [()]
    if free > 1:
        for large, small in _UNEVEN_SIZES:
            sizes += [tuple(large if place == other else small for other in range(free)) for place in range(free)]
    for each in sizes:
        left = iter(each)
        shapes = [[next(left) if part is None else part for part in shape] for shape in records]
        if not free or sum(prod(shape) for shape in shapes) <= _MOST_VALUES:
            yield shapes


def fitting(signature: Signature, given: Tensors, what: str) -> Tensors:
    """A user's records, as the signature's inputs have them.

    Raises:
        Refused: an input is missing, or has another shape.
    """
    if len(signature.inputs) == 1 and "" in given:
        # Records of an only input need not name it.
        given = dict.fromkeys(signature.inputs, given[""])
    missing = [name for name in signature.inputs if name not in given]
    if missing:
        raise Refused(f"the {what} hold no input {missing[0]!r}: expected {', '.join(signature.inputs)}")
    for name in signature.inputs:
        have, want = list(given[name].shape[1:]), signature.record_shape(name)
        is_known = signature.inputs[name].shape.rank is not None
        fits = len(have) == len(want) and all(b in (None, a) for a, b in zip(have, want, strict=True))
        if is_known and not fits:
            raise Refused(f"the {what} give input {name!r} records of shape {have}, and the model takes {want}")
    return {name: as_dtype(given[name], spec.dtype) for name, spec in signature.inputs.items()}


def as_dtype(values: Any, dtype: Any) -> Any:
    import numpy as np

    if dtype.name == "string":
        return np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
    return values.astype(dtype.as_numpy_dtype)


def together(samples: Tensors | None, calibration: Tensors | None) -> Tensors | None:
    """All real records that there are; of calibration data only where samples are of the same shapes."""
    if not samples or not calibration:
        return samples or calibration
    if any(samples[name].shape[1:] != calibration[name].shape[1:] for name in samples):
        return samples
    return {name: _join(value, calibration[name]) for name, value in samples.items()}


def _seeded(signature: Signature, shapes: list[list[int]]) -> Iterator[Records]:
    import numpy as np

    for manner in (WIDE, USUAL, NARROW):
        tensors = {}
        for index, (name, shape) in enumerate(zip(signature.inputs, shapes, strict=True)):
            generator = np.random.default_rng([SEED, index])
            tensors[name] = _values(generator, signature.inputs[name].dtype, (ROWS, *shape), manner)
        yield Records(tensors, loud=_LOUD_ROWS if manner == WIDE else 0)


def _values(generator: Any, dtype: Any, shape: tuple[int, ...], manner: str) -> Any:
    """For floats noise with a record of zeros, one of ones, and loud ones; or, narrow, what is between 0 and 1."""
    import numpy as np

    if dtype.name == "string":
        return np.array([word.encode() for word in _WORDS])[generator.integers(0, len(_WORDS), shape)]
    kind = np.dtype(dtype.as_numpy_dtype)
    if kind.kind in "iub":
        return generator.integers(0, min(_INTEGERS[manner], 2 if kind.kind == "b" else 1 << 7), shape).astype(kind)
    if manner == NARROW:
        return generator.random(shape).astype(kind)
    values = generator.standard_normal(shape)
    if kind.kind == "c":
        values = values + 1j * generator.standard_normal(shape)
    values[0], values[1] = 0, 1
    if manner == WIDE:
        values[-_LOUD_ROWS:] *= _LOUD
    return values.astype(kind)


def _join(first: Any, second: Any) -> Any:
    import numpy as np

    return np.concatenate([first, second])
