"""The best classes of scores, as Triton's classification extension has them: `value:index` or `value:index:label`.

Source: `docs/protocol/extension_classification.md` of triton-inference-server/server, and for what its code does
otherwise `src/classification.cc`: the type is BYTES, and a value has six digits behind the point.
"""

from collections.abc import Sequence

import numpy as np

from app.tensors import STRING, Array


def best(scores: Array, count: int, labels: Sequence[str]) -> Array:
    """The classes of the highest scores, the best first; of equal scores that of the lower index.

    Args:
        scores: `[rows, *record]` of numbers; a record's are taken as one list.
        count: how many are wanted, where there are as many.
        labels: names of the classes, where they have some.

    Returns:
        `[rows, n]` of strings.
    """
    flat = scores.reshape(len(scores), -1)
    count = min(count, flat.shape[1])
    found = np.empty((len(flat), count), STRING)
    text = b"%f:%d" if flat.dtype.kind == "f" else b"%d:%d"
    for row, values in zip(found, flat, strict=True):
        order = _order(values)[:count]
        # Python's numbers, since there may be many, and those of NumPy are slow to write.
        places = order.tolist()
        pairs = zip(values[order].tolist(), places, strict=True)
        if labels:
            row[:] = [text % pair + _label(pair[1], labels) for pair in pairs]
        else:
            row[:] = [text % pair for pair in pairs]
    return found


def _order(values: Array) -> Array:
    """The indexes by falling values; what is no number comes last."""
    if values.dtype.kind == "f":
        return np.argsort(-values, kind="stable")
    # The least integer has no opposite. Turned round twice: what is stable in rising order has the highest index first
    # among equals.
    order: Array = len(values) - 1 - np.argsort(values[::-1], kind="stable")[::-1]
    return order


def _label(index: int, labels: Sequence[str]) -> bytes:
    return b":" + labels[index].encode() if index < len(labels) else b""
