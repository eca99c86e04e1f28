"""Signatures of every kind that a codec can be made for, and tensors that fit them."""

from collections.abc import Sequence

import numpy as np

from app.tensors import FREE, STRING, Array, Batching, Signature, TensorSpec, make_signature
from tests.signatures import one_in, spec, two_in


def _of(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Signature:
    return make_signature("serving_default", tuple(inputs), tuple(outputs))


SIGNATURES = {
    "float32": one_in(),
    "float16": one_in("float16", (-1, 3)),
    "float64": one_in("float64", (-1, 2, 2)),
    "int8": one_in("int8", (-1, 3)),
    "int64": one_in("int64", (-1,)),
    "uint64": one_in("uint64", (-1, 2)),
    "bool": one_in("bool", (-1, 4)),
    "complex64": one_in("complex64", (-1, 2)),
    "string": one_in("string", (-1, 2)),
    "word": one_in("string", (-1,)),
    "two inputs": two_in(),
    "mixed": _of(
        [spec("word", "string", (-1, 1)), spec("b64", "float32", (-1, 2)), spec("on", "bool", (-1, 3))],
        [spec("text_bytes", "string", (-1, 2)), spec("count", "int64", (-1,)), spec("said", "string", (-1,))],
    ),
    "words": _of([spec("x", "int8", (-1,))], [spec("y_bytes", "string", (-1,)), spec("z", "complex64", (-1,))]),
    "scored": _of(
        [spec("word", "string", (-1, 1)), spec("x", "float32", (-1, 2)), spec("n", "int64", (-1,))],
        [
            spec("scores", "float32", (-1, 3)),
            spec("classes", "string", (-1, 3)),
            spec("outputs", "float32", (-1, 1)),
        ],
    ),
    "serialized": _of(
        [spec("examples", "string", (-1,))], [spec("scores", "float32", (-1, 2)), spec("outputs", "float32", (-1,))]
    ),
    "free inside": one_in("float32", (-1, -1, 2)),
    "one by one": one_in("int32", (1, 3)),
    "no batch": _of([spec("x", "float32", (2, 3))], [spec("y", "float32", (3,)), spec("z", "uint8", ())]),
    "no batch and free": _of([spec("x", "int16", (-1, 2)), spec("n", "int32", ())], [spec("y", "float32", (-1,))]),
    "one string": _of([spec("x", "string", (1,))], [spec("y", "string", ())]),
}

TAKE_EXAMPLES = ("float32", "two inputs", "scored", "serialized")
"""Those that `classify` or `regress` has something to do with."""

_FREE_SIZE = 2
_WORDS = [b"", b"a", "\u00fc\u4e16".encode(), b"\x00\xff", b'"]}', b"x" * 40]


def arrays(signature: Signature, rows: int, rng: np.random.Generator, *, outputs: bool = False) -> list[Array]:
    """Tensors for its inputs, or its outputs: each `[rows, *record]`."""
    specs = signature.outputs if outputs else signature.inputs
    if signature.batching is Batching.NONE:
        rows = 1
    sizes = [tuple(_FREE_SIZE if size == FREE else size for size in signature.record_shape(each)) for each in specs]
    return [_filled((rows, *size), each.dtype, rng) for size, each in zip(sizes, specs, strict=True)]


def _filled(shape: Sequence[int], dtype: "np.dtype[np.generic]", rng: np.random.Generator) -> Array:
    array: Array = np.empty(shape, dtype)
    match dtype.kind:
        case "O":
            assert dtype == STRING
            array.reshape(-1)[:] = [_WORDS[index] for index in rng.integers(len(_WORDS), size=array.size)]
        case "b":
            array[...] = rng.integers(2, size=shape)
        case "f" | "c":
            array[...] = rng.choice([0.0, 1.0, -2.5, 0.1, 3e4, 7.0], size=shape)
        case _:
            limits = np.iinfo(dtype)  # type: ignore[type-var]
            array[...] = rng.choice(np.array([0, 1, limits.max, 100, limits.min], dtype), size=shape)
    return array
