"""Whether the rows of a batch leave each other alone, so that requests of different clients may share an invoke.

The probe runs records of very unlike content and scale alone and in company. A model that mixes rows (a maximum over
the batch, a row taken from the first, a scale common to all) gives them other answers in company. Not-a-number is the
sharpest of the records: it spreads through nearly every operation that touches it.
"""

import numpy as np

from app.errors import LitepoolError
from app.runtime import batching
from app.runtime.runners import AnyRunner
from app.tensors import STRING, Array, Batching, Signature

_SEED = 20240229
_WORDS = np.array([b"", b"a", b"of several words", "\u00e9\u00df".encode(), b"0", b"-7.5"], object)
_TOLERANCE = 1e-5
"""Of a record's own scale: kernels sum in another order for another batch size, which costs a few last digits."""


def why_dependent(runner: AnyRunner, signature: Signature, example: list[Array]) -> str | None:
    """Why requests may not share an invoke; None when the probe found rows independent.

    Args:
        example: one record of each input, `[1, *record]`, that the model runs on.
    """
    if signature.batching is not Batching.FREE:
        return "the leading dimension is not free in every input and output"
    records = unlike_records(signature, example)
    rows = len(records[0])
    try:
        alone = [
            batching.run(runner, signature.batching, [array[[row]] for array in records], 1) for row in range(rows)
        ]
        for order in _orders(rows):
            together = batching.run(runner, signature.batching, [array[order] for array in records], len(order))
            for place, row in enumerate(order):
                for spec, output, wanted in zip(signature.outputs, together, alone[row], strict=True):
                    if not _same(output[place, ...], wanted[0, ...]):
                        return f"output {spec.name!r} of a record depends on the records beside it"
    except LitepoolError as error:
        return f"the probe did not run: {error.message}"
    return None


def unlike_records(signature: Signature, example: list[Array]) -> list[Array]:
    """Records that have nothing in common, for each input `[rows, *record]`."""
    generator = np.random.default_rng(_SEED)
    columns = []
    for spec, array in zip(signature.inputs, example, strict=True):
        shape = array.shape[1:]
        if spec.dtype == STRING:
            columns.append(np.stack([generator.choice(_WORDS, shape) for _ in range(10)]))
            continue
        if spec.dtype.kind not in "fc":
            # Integers may be indices, so that only 0 and 1 are safe to send; but those that stand for real numbers.
            low, high = (0, 2) if spec.scaling is None else (np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max + 1)
            columns.append(np.stack([generator.integers(low, high, shape) for _ in range(10)]).astype(spec.dtype))
            continue
        noise = [generator.standard_normal(shape) for _ in range(4)]
        one_hot = np.zeros(shape)
        one_hot.flat[:1] = 1.0
        kinds = [noise[0], np.zeros(shape), noise[1] * 1e3, noise[2] * 1e-3, np.ones(shape), one_hot * 50, -noise[3]]
        kinds += [np.full(shape, np.nan), np.full(shape, np.inf), np.full(shape, -7.0)]
        columns.append(np.stack(kinds).astype(spec.dtype))
    return columns


def _orders(rows: int) -> list[list[int]]:
    """Companies to run in: all, all backwards, pairs, a few, and more than all with some repeated."""
    everyone = list(range(rows))
    pairs = [[row, (row + 3) % rows] for row in everyone]
    return [everyone, everyone[::-1], *pairs, everyone[2:5], everyone[1:8], [*everyone, *everyone[:7]], everyone * 4]


def _same(have: Array, want: Array) -> bool:
    if have.shape != want.shape:
        return False
    if have.dtype.kind not in "fc":
        return bool(np.array_equal(have, want))
    wide = np.complex128 if have.dtype.kind == "c" else np.float64
    finite = np.isfinite(want)
    if not np.array_equal(have[~finite], want[~finite], equal_nan=True):
        return False
    scale = float(np.abs(want[finite]).max(initial=0.0))
    difference = np.abs(have[finite].astype(wide) - want[finite].astype(wide))
    return bool(np.all(difference <= _TOLERANCE * max(scale, 1e-2)))
