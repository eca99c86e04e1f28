"""Records as unlike each other as clients are, the same in every process."""

import zlib
from typing import Any

import numpy as np

from app.tensors import Array
from tests.published.catalogue import FREE, Input, Published

_TEXTS = (
    "",
    "x",
    "def f(a, b):\n    return [each for each in a if each not in b]\n",
    '#include <stdio.h>\nint main(void) { printf("%d\\n", 42); return 0; }\n',
    "SELECT name, count(*) FROM people WHERE age > 30 GROUP BY name;",
    "größer → 数学 🙂",
    '{"key": [1, 2, 3]}',
)


def records(model: Published, size: int) -> dict[str, Array]:
    """`model.rows` records, `[rows, *record]` by input, with `size` for each free dimension."""
    seed = zlib.crc32(f"{model.name} {size}".encode())
    return {name: _draw(given, model.rows, size, np.random.default_rng(seed)) for name, given in model.inputs}


def record(inputs: dict[str, Array], row: int) -> Any:
    """One record as `/predict` takes it: bare for a model with one input."""
    values = {name: _plain(array[row]) for name, array in inputs.items()}
    return next(iter(values.values())) if len(values) == 1 else values


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _draw(given: Input, rows: int, size: int, draw: np.random.Generator) -> Array:
    shape = tuple(size if length == FREE else length for length in given.shape)
    made = [_MAKERS[given.values](given, shape, row, draw) for row in range(rows)]
    if given.values == "text":
        return np.array(made, object)
    return np.stack(made).astype(given.dtype)


def _real(given: Input, shape: tuple[int, ...], row: int, draw: np.random.Generator) -> Array:
    """By turns noise, zeros, huge, tiny, one value, one-hot, and noise that ends half-way in the mask's usual -1."""
    noise = draw.standard_normal(shape, np.float32)
    kind = row % 7
    if kind == 1:
        return np.zeros(shape, np.float32)
    if kind == 2:
        return noise * 1000
    if kind == 3:
        return noise * np.float32(1e-6)
    if kind == 4:
        return np.full(shape, draw.choice([-1.0, 0.5, 3.0]), np.float32)
    if kind == 5:
        hot = np.zeros(shape, np.float32)
        hot.flat[draw.integers(hot.size)] = 1
        return hot
    if kind == 6:
        noise[shape[0] // 2 :] = -1
    return noise


def _sound(given: Input, shape: tuple[int, ...], row: int, draw: np.random.Generator) -> Array:
    """As real numbers, but tones for what is the same everywhere.

    Silence has no loudest moment: a model that scales by it magnifies rounding, and TensorFlow itself answers the same
    silence differently alone and in a batch.
    """
    if row % 7 in (1, 4):
        tone: Array = np.sin(np.arange(np.prod(shape)) * draw.uniform(0.01, 0.3)).reshape(shape)
        return tone
    return _real(given, shape, row, draw)


def _index(given: Input, shape: tuple[int, ...], row: int, draw: np.random.Generator) -> Array:
    """By turns anything, the least, the greatest, and anything padded with the least."""
    found = draw.integers(0, given.below, shape)
    kind = row % 4
    if kind == 1:
        return np.zeros_like(found)
    if kind == 2:
        return np.full_like(found, given.below - 1)
    if kind == 3:
        found[shape[0] // 3 :] = 0
    return found


def _int8(given: Input, shape: tuple[int, ...], row: int, draw: np.random.Generator) -> Array:
    found = draw.integers(-128, 128, shape)
    return np.full_like(found, (0, -128, 127)[row % 3]) if row % 4 == 3 else found


def _text(given: Input, shape: tuple[int, ...], row: int, draw: np.random.Generator) -> Any:
    if row < len(_TEXTS):
        return _TEXTS[row].encode()
    return "\n".join(_TEXTS[i] for i in draw.integers(0, len(_TEXTS), 1 + row)).encode()


_MAKERS = {"real": _real, "sound": _sound, "index": _index, "int8": _int8, "text": _text}
